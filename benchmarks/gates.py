"""Gates: what they accept of right worlds, and what they catch of wrong ones."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.rooms import FIRST_SCENE
from benchmarks.serve import findings
from benchmarks.serve.findings import Claim, Part
from benchmarks.teach.depths import DepthOf, estimated, known, unknown
from benchmarks.teach.judging import Tally, add_up, draw_moves, draw_turns, judge_mixture, judge_transitions
from benchmarks.teach.panoramas import FOLDER, load_panorama
from benchmarks.teach.sabotage import RIGHT, WRONG, RoomPlace, Turntable
from teacher_service.gates.settings import GateSettings
from trainer.sampling import candidates
from world2vlm.actions import Action
from world2vlm.cameras import integrate

# The defaults were chosen on rooms and panoramas other than these.
REPORTED = (FOLDER / "interior.jpg", FOLDER / "studio.jpg")
_PITCH_DEG = 10.0
_LEAST_CLEARANCE_M = 0.25
_PHOTOGRAPHS = "turns of photographs"
_WRONG_TURNS = ("opposite way", "no motion", "0.75 of the way")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    panorama: Annotated[list[Path] | None, typer.Option(help="Equirectangular photographs.")] = None,
    crops: Annotated[int, typer.Option(min=1, help="Crops of each photograph, each with a turn of its own.")] = 100,
    first_room: Annotated[int, typer.Option(help="The first room's seed.")] = FIRST_SCENE,
    rooms: Annotated[int, typer.Option(min=1, help="Rendered rooms.")] = 40,
    moves: Annotated[int, typer.Option(min=1, help="Moves and turns in each room.")] = 3,
    share: Annotated[float, typer.Option(min=0, max=1, help="Key frames of a trajectory that are wrong.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of crops, moves and sabotage.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Also write the counts to this file.")] = None,
) -> None:
    """Judge turns of photographs, turns and moves in rooms, and trajectories of which a share is wrong."""
    rng, settings, sides = np.random.default_rng(seed), GateSettings(), {**RIGHT, **WRONG}
    options = {"crops": crops, "first_room": first_room, "rooms": rooms, "moves": moves, "share": share, "seed": seed}
    paths = panorama or REPORTED
    head, photographs = findings.header("gates", ()), _turntables(paths, crops, rng)
    found = [RoomPlace(number) for number in range(first_room, first_room + rooms)]
    tallies = {
        _PHOTOGRAPHS: judge_transitions(draw_turns(photographs, 1, rng), sides, settings, rng),
        "turns in rooms": judge_transitions(draw_turns(found, moves, rng), sides, settings, rng),
        "moves, depth known": judge_transitions(draw_moves(found, moves, known, rng), sides, settings, rng),
        "moves, no depth": judge_transitions(draw_moves(found, moves, unknown, rng), sides, settings, rng),
        "trajectories, depth known": _mixtures(found, share, known, settings, rng),
        "trajectories, no depth": _mixtures(found, share, unknown, settings, rng),
        # Last, so that the others are drawn as before.
        "moves, depth estimated (tiny)": judge_transitions(
            draw_moves(found, moves, estimated, rng), sides, settings, rng
        ),
        "trajectories, depth estimated (tiny)": _mixtures(found, share, estimated, settings, rng),
    }
    parts = {
        title: Part({name: each.as_json() for name, each in counts.items()}, _claims(title, counts, share))
        for title, counts in tallies.items()
    }
    for title, part in parts.items():
        Console(width=120).print(_table(title, tallies[title]))
        for claim in part.claims:
            print(claim)
    if json is not None:
        findings.write(json, head, {"panoramas": [path.stem for path in paths], **options}, parts)


def _claims(title: str, tallies: Mapping[str, Tally], share: float) -> list[Claim]:
    """What should hold of turns of photographs, and of trajectories."""
    right = tallies.get("right", Tally())
    if title == _PHOTOGRAPHS:
        caught = min(1 - tallies[name].accepted / tallies[name].judged for name in _WRONG_TURNS)
        return [
            Claim("turns found within max(5 degrees, 20%)", right.recovered / max(1, right.measured), 0.97, True),
            Claim(f"caught of each: {', '.join(_WRONG_TURNS)}", caught, 0.99, is_least=True),
            Claim("right turns rejected", 1 - right.accepted / right.judged, 0.02),
        ]
    if not title.startswith("trajectories"):
        return []
    wrong = [each for name, each in tallies.items() if name != "right"]
    survive = sum(each.accepted for each in wrong) / max(1, sum(each.judged for each in wrong))
    kept = share * survive + (1 - share) * right.accepted / max(1, right.judged)
    text = f"wrong views among those kept, were {share:.0%} wrong"
    return [Claim(text, share * survive / kept if kept else 0.0, 0.01)]


def _turntables(paths: Iterable[Path], crops: int, rng: np.random.Generator) -> list[Turntable]:
    return [
        Turntable(load_panorama(path, rng.uniform(0, 360), rng.uniform(-_PITCH_DEG, _PITCH_DEG)))
        for path in paths
        for _ in range(crops)
    ]


def _mixtures(
    rooms: Iterable[RoomPlace], share: float, depth_of: DepthOf, settings: GateSettings, rng: np.random.Generator
) -> dict[str, Tally]:
    """A round's trajectory through each room, the first that keeps clear of obstacles."""
    return add_up(
        judge_mixture(room, actions, share, depth_of, settings, rng)
        for number, room in enumerate(rooms)
        for actions in [_clear_path(room, number)]
        if actions
    )


def _clear_path(room: RoomPlace, number: int) -> tuple[Action, ...]:
    for candidate in candidates(0, number, 0, 1):
        if all(room.clearance(pose) >= _LEAST_CLEARANCE_M for pose in integrate(candidate.actions)):
            return candidate.actions
    return ()


def _table(title: str, tallies: Mapping[str, Tally]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("world", "views", "accepted", "caught", "turn found", "rejected by", "ms"):
        table.add_column(name, justify="left" if name in ("world", "rejected by") else "right")
    for name, each in tallies.items():
        if not each.judged:
            continue
        accepted = each.accepted / each.judged
        turns = f"{each.recovered / each.measured:.3f}" if each.measured and name in RIGHT else "-"
        reasons = ", ".join(f"{gate} {count}" for gate, count in each.reasons.most_common())
        figures = (f"{accepted:.3f}", "-" if name in RIGHT else f"{1 - accepted:.3f}", turns, reasons)
        table.add_row(name, str(each.judged), *figures, f"{1000 * float(np.median(each.seconds)):.0f}")
    return table


if __name__ == "__main__":
    app()
