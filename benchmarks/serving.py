"""The student service measured, all in one run: beside others, on swaps, over many of them, overloaded, and fuzzed."""

import gc
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.serve import checkpoints, findings, sides
from benchmarks.serve.findings import Part
from benchmarks.serve.fuzzing import fuzz
from benchmarks.serve.memory import measure_memory
from benchmarks.serve.overload import SETTINGS, overload
from benchmarks.serve.pictures import compare_pictures
from benchmarks.serve.questions import Item, make_items, with_own_pictures
from benchmarks.serve.soak import soak
from benchmarks.serve.swapping import Prepared, prepare, swap_under_load
from benchmarks.serve.throughput import compare
from world2vlm.base_student import BASE_STUDENT

RESULT = Path(__file__).parent / "results" / "serving.json"
_TRAJECTORIES = 4
_FUZZED = 40
_ALSO = ("litserve", "nvidia-pytriton", "onnxruntime", "tritonclient")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Name(StrEnum):
    """The parts."""

    THROUGHPUT = "throughput"
    PICTURES = "pictures"
    SWAP = "swap"
    TRITON_SWAP = "triton-swap"
    MEMORY = "memory"
    SOAK = "soak"
    OVERLOAD = "overload"
    FUZZ = "fuzz"


@dataclass(frozen=True)
class Options:
    """How much is done; see the options' help."""

    checkpoint: Path
    rooms: int
    rounds: int
    seconds: float
    questions: int
    swap_seconds: float
    overload_seconds: float
    swaps: int
    memory_mb: float
    requests: int
    seed: int
    noise: float


@app.command()
def main(
    only: Annotated[list[Name] | None, typer.Option(help="Run these parts only; may be given several times.")] = None,
    checkpoint: Annotated[Path, typer.Option(help="Folder of the student that everybody serves.")] = BASE_STUDENT,
    rooms: Annotated[int, typer.Option(min=1, help="Rooms that the questions are about.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="How often the sides take turns.")] = 12,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of each load of each side.")] = 1.2,
    questions: Annotated[int, typer.Option(min=64, help="Questions with pictures of their own, all rounds.")] = 9600,
    swap_seconds: Annotated[float, typer.Option(min=3, help="Seconds of each load under swaps.")] = 15.0,
    overload_seconds: Annotated[float, typer.Option(min=3, help="Seconds of overload.")] = 15.0,
    full: Annotated[bool, typer.Option(help="60 s of each load under swaps, 30 s of overload.")] = False,
    swaps: Annotated[int, typer.Option(min=8, help="Swaps of the soak.")] = 200,
    memory_mb: Annotated[float, typer.Option(min=20, help="Megabytes of weights for the memory's measure.")] = 200.0,
    requests: Annotated[int, typer.Option(min=1, help="Mutated requests.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the mutations.")] = 0,
    noise: Annotated[float, typer.Option(help="How far the second version's weights are from the first's.")] = 0.1,
    json: Annotated[Path, typer.Option(help="Where the result goes.")] = RESULT,
) -> None:
    """Measure the student service; needs the extras of the teacher and the trainer, for the questions."""
    if full:
        swap_seconds, overload_seconds = 60.0, 30.0
    options = Options(
        checkpoint.resolve(),
        rooms,
        rounds,
        seconds,
        questions,
        swap_seconds,
        overload_seconds,
        swaps,
        memory_mb,
        requests,
        seed,
        noise,
    )
    head, parts = findings.header("serving", _ALSO), dict[str, Part]()
    with tempfile.TemporaryDirectory(prefix="world2vlm-serving-") as folder:
        own = checkpoints.copied(checkpoint, Path(folder) / "checkpoint")
        bench = Bench(replace(options, checkpoint=own), Path(folder))
        for name, run in bench.parts.items():
            if only and name not in only:
                continue
            parts[name] = run()
            parts[name].show(name)
            # After every part: what was measured is kept, whatever becomes of the rest.
            findings.write(json, head, {**vars(options), "checkpoint": checkpoints.describe(options.checkpoint)}, parts)
    missed = [claim for part in parts.values() for claim in part.claims if not claim.is_met]
    print(f"\n{len(missed)} of {sum(len(part.claims) for part in parts.values())} claims are not met; see {json}")


class Bench:
    """The parts, over the same checkpoint and the same questions."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self.parts: dict[Name, Callable[[], Part]] = {
            Name.THROUGHPUT: self.throughput,
            Name.PICTURES: self.pictures,
            Name.SWAP: self.swap,
            Name.TRITON_SWAP: self.triton_swap,
            Name.MEMORY: self.memory,
            Name.SOAK: self.soak,
            Name.OVERLOAD: self.overload,
            Name.FUZZ: self.fuzz,
        }

    @cached_property
    def items(self) -> list[Item]:
        """The questions that share pictures."""
        items = make_items(self._options.rooms, _TRAJECTORIES)
        # A third of a second for looking through the libraries' objects would be this process's, not the service's.
        gc.collect()
        gc.freeze()
        gc.disable()
        return items

    @cached_property
    def fresh(self) -> list[Item]:
        """Questions with pictures of their own."""
        return with_own_pictures(self.items, self._options.questions)

    def throughput(self) -> Part:
        """Ours beside the same model elsewhere."""
        checkpoint, folder = self._options.checkpoint, self._new("throughput")
        items, missing = self.fresh, {}
        with ExitStack() as running:
            there = [running.enter_context(sides.ours(folder, checkpoint, {"MAX_QUEUE": 64}))]
            there.append(running.enter_context(sides.plain(folder, checkpoint)))
            if missing_lit := sides.missing_lit():
                missing["LitServe"] = missing_lit
            else:
                there.append(running.enter_context(sides.lit(folder, checkpoint)))
            if missing_triton := sides.missing_triton():
                missing["Triton"] = missing_triton
            else:
                there.append(running.enter_context(sides.triton(folder, checkpoint)).side)
            part = compare(there, items, self.items, self._options.rounds, self._options.seconds)
        return Part({**part.figures, **({"left out": missing} if missing else {})}, part.claims)

    def pictures(self) -> Part:
        """Ten questions about one picture."""
        with sides.ours(self._new("pictures"), self._options.checkpoint) as side:
            return compare_pictures(side, self.items, 2 * self._options.rounds)

    def swap(self) -> Part:
        """Swaps under load, in our service."""
        folder = self._new("swap")
        with sides.ours(folder, self._options.checkpoint) as side, sides.controller(side) as control:
            prepared = self._prepare(folder, folder / "store")
            return swap_under_load(side, prepared, control.swap, self._options.swap_seconds)

    def triton_swap(self) -> Part:
        """The same in Triton, with its plain `load_model`: no canary, no verification, everything at once."""
        if missing := sides.missing_triton():
            return Part({"left out": missing})
        folder = self._new("triton-swap")
        with sides.triton(folder, self._options.checkpoint) as triton:
            prepared = self._prepare(folder, folder / "triton-store")
            return swap_under_load(triton.side, prepared, triton.load_plainly, self._options.swap_seconds)

    def memory(self) -> Part:
        """Memory over a swap."""
        return measure_memory(self._new("memory"), self.items, self._options.memory_mb)

    def soak(self) -> Part:
        """Swap after swap."""
        folder, checkpoint = self._new("soak"), self._options.checkpoint
        with sides.ours(folder, checkpoint) as side:
            other = checkpoints.another(checkpoint, folder / "other", self._options.noise)
            checkpoints.publish(folder / "store", other, "2")
            return soak(side, self.items, self._options.swaps, checkpoints.weight_bytes(checkpoint))

    def overload(self) -> Part:
        """Four times what it can do."""
        with sides.ours(self._new("overload"), self._options.checkpoint, SETTINGS) as side:
            return overload(side, self.fresh, self._options.overload_seconds)

    def fuzz(self) -> Part:
        """Mutated requests."""
        seeds = [item.message() for item in self.items[:_FUZZED]]
        with sides.ours(self._new("fuzz"), self._options.checkpoint, {"LOG_LEVEL": "INFO"}) as side:
            return fuzz(side, seeds, self._options.requests, self._options.seed)

    def _prepare(self, folder: Path, store: Path) -> Prepared:
        checkpoint = self._options.checkpoint
        other = checkpoints.another(checkpoint, folder / "other", self._options.noise)
        return prepare(store, checkpoint, other, checkpoints.unfit(checkpoint, folder / "unfit"), self.items)

    def _new(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder


if __name__ == "__main__":
    app()
