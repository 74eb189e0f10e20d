"""Ten questions about one picture (or one pair of views) against ten questions about ten."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.serve.asking import OK, Asker
from benchmarks.serve.findings import Claim, Part
from benchmarks.serve.questions import Item, with_own_pictures
from benchmarks.serve.sides import Side
from benchmarks.timing import interleave

TEN = 10
_BOUND = 0.4
_ORDERS = ("one after the other", "all at once")
# As the teacher renders them, and as cameras send them.
_FRAMES = {"": None, ", 640 x 480": (640, 480)}


def compare_pictures(side: Side, items: Sequence[Item], repetitions: int) -> Part:
    """Time ten questions about one picture and about ten, none of which was ever seen before; they take turns."""
    figures: dict[str, dict[str, float]] = {}
    claims = []
    kinds = (("image", "images", 1), ("pair of views", "pairs", 2))
    for (name, names, pictures), (size, frame) in itertools.product(kinds, _FRAMES.items()):
        asked = [item for item in items if len(item.images) == pictures]
        for at_once, order in enumerate(_ORDERS):
            # No picture is sent in two repetitions, nor in two orders.
            seeds = range(2 * at_once * repetitions, 2 * (at_once + 1) * repetitions, 2)
            seconds = _time(side, asked[:TEN], seeds, frame, at_once=bool(at_once))
            one, ten = (1000 * median(seconds[kind]) for kind in ("one", "ten"))
            figures[f"ten questions about one {name} or ten {names}{size}, {order}"] = {
                "one, ms": one,
                "ten, ms": ten,
                "ratio": one / ten,
            }
            text = f"ten questions about one {name}{size}, {order}, against ten {names}"
            claims.append(Claim(text, one / ten, _BOUND))
    return Part(figures, claims)


def _time(
    side: Side, ten: Sequence[Item], seeds: Sequence[int], frame: tuple[int, int] | None, *, at_once: bool
) -> dict[str, list[float]]:
    kinds = {"one": _about_one, "ten": _about_ten}
    sets = {kind: [make(ten, seed, frame) for seed in seeds] for kind, make in kinds.items()}
    with asyncio.Runner() as runner:
        askers = {kind: [runner.run(_connect(side, items)) for items in each] for kind, each in sets.items()}

        def ask(kind: str) -> Callable[[], None]:
            fresh = iter(askers[kind])
            return lambda: runner.run(_ask_all(next(fresh), at_once=at_once))

        seconds = interleave({kind: ask(kind) for kind in kinds}, len(seeds))
        for each in askers.values():
            for asker in each:
                runner.run(asker.close())
    return seconds


def _about_ten(ten: Sequence[Item], seed: int, frame: tuple[int, int] | None) -> list[Item]:
    return with_own_pictures(ten, TEN, seed, frame)


def _about_one(ten: Sequence[Item], seed: int, frame: tuple[int, int] | None) -> list[Item]:
    images = with_own_pictures(ten, 1, seed + 1, frame)[0].images
    return [Item(item.question, images, item.task) for item in ten]


async def _connect(side: Side, items: Sequence[Item]) -> Asker:
    return side.connect(items)


async def _ask_all(asker: Asker, *, at_once: bool) -> None:
    if at_once:
        told = await asyncio.gather(*(asker.ask(index) for index in range(TEN)))
    else:
        told = [await asker.ask(index) for index in range(TEN)]
    if any(each.status != OK for each in told):
        raise SystemExit(f"a question was not answered: {told}")
