"""The teacher measured: what its worlds imagine against what is really there, how fast, and what the service costs."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.serve import findings
from benchmarks.serve.findings import Part
from benchmarks.teach.pair import compare_pair
from benchmarks.teach.quality import compare_fills
from benchmarks.teach.service import time_service
from benchmarks.teach.speed import time_geometric

RESULT = Path(__file__).parent / "results" / "teacher.json"
_ALSO = ("diffusers", "embreex", "scikit-image", "scipy")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Name(StrEnum):
    """The parts."""

    ROOMS = "rooms"
    MOTORCYCLE = "motorcycle"
    SPEED = "speed"
    SERVICE = "service"


@app.command()
def main(
    only: Annotated[list[Name] | None, typer.Option(help="Run these parts only; may be given several times.")] = None,
    transitions: Annotated[int, typer.Option(min=1, help="Transitions through rooms.")] = 200,
    side: Annotated[int, typer.Option(min=16, help="Pixels a side of the rooms' views.")] = 128,
    scenes: Annotated[int, typer.Option(min=1, help="Rooms that the service is timed with.")] = 8,
    trajectories: Annotated[int, typer.Option(min=1, help="Trajectories a room at most.")] = 6,
    repetitions: Annotated[int, typer.Option(min=1, help="How often each side is timed.")] = 5,
    json: Annotated[Path, typer.Option(help="Where the result goes.")] = RESULT,
) -> None:
    """Measure the teacher: the geometric world's quality and speed, and the renderer through the service."""
    runs: dict[Name, Callable[[], Part]] = {
        Name.ROOMS: lambda: compare_fills(transitions, side),
        Name.MOTORCYCLE: compare_pair,
        Name.SPEED: lambda: time_geometric(repetitions),
        Name.SERVICE: lambda: time_service(scenes, trajectories, repetitions),
    }
    options = {"transitions": transitions, "side": side, "scenes": scenes, "trajectories": trajectories}
    head, parts = findings.header("teacher", _ALSO), dict[str, Part]()
    for name, run in runs.items():
        if only and name not in only:
            continue
        parts[name] = run()
        parts[name].show(name)
        # After every part: what was measured is kept, whatever becomes of the rest.
        findings.write(json, head, {**options, "repetitions": repetitions}, parts)
    missed = [claim for part in parts.values() for claim in part.claims if not claim.is_met]
    print(f"\n{len(missed)} of {sum(len(part.claims) for part in parts.values())} claims are not met; see {json}")


if __name__ == "__main__":
    app()
