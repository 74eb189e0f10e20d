"""Ten questions about one picture (or one pair of views) against ten questions about ten."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.serve.asking import OK, GrpcAsker
from benchmarks.serve.findings import Claim, Part
from benchmarks.serve.questions import Item, with_own_pictures
from benchmarks.serve.sides import Side
from benchmarks.timing import interleave

TEN = 10
_BOUND = 0.4
_ONE_BY_ONE, _AT_ONCE, _IN_ONE_CALL = "one after the other", "all at once", "in one call"
# How those about one picture are asked, and those about ten: these can't go in one call.
_ORDERS = (
    (_ONE_BY_ONE, _ONE_BY_ONE),
    (_AT_ONCE, _AT_ONCE),
    (_IN_ONE_CALL, _ONE_BY_ONE),
    (_IN_ONE_CALL, _AT_ONCE),
)
# As the teacher renders them, and as cameras send them.
_FRAMES = {"": None, ", 640 x 480": (640, 480)}


def compare_pictures(side: Side, items: Sequence[Item], repetitions: int) -> Part:
    """Time ten questions about one picture and about ten, none of which was ever seen before; they take turns."""
    figures: dict[str, dict[str, float]] = {}
    claims = []
    kinds = (("image", "images", 1), ("pair of views", "pairs", 2))
    for (name, names, pictures), (size, frame) in itertools.product(kinds, _FRAMES.items()):
        asked = [item for item in items if len(item.images) == pictures]
        for number, orders in enumerate(_ORDERS):
            # No picture is sent in two repetitions, nor in two orders.
            seeds = range(2 * number * repetitions, 2 * (number + 1) * repetitions, 2)
            seconds = _time(side, asked[:TEN], seeds, frame, orders)
            one, ten = (1000 * median(seconds[kind]) for kind in ("one", "ten"))
            text = f"ten questions about one {name}{size}, {orders[0]}, against ten {names}, {orders[1]}"
            figures[text] = {"one, ms": one, "ten, ms": ten, "ratio": one / ten}
            claims.append(Claim(text, one / ten, _BOUND))
    return Part(figures, claims)


def _time(
    side: Side,
    ten: Sequence[Item],
    seeds: Sequence[int],
    frame: tuple[int, int] | None,
    orders: tuple[str, str],
) -> dict[str, list[float]]:
    kinds = {"one": (_about_one, orders[0]), "ten": (_about_ten, orders[1])}
    with asyncio.Runner() as runner:

        def ask(make: Callable[..., list[Item]], order: str) -> Callable[[], None]:
            fresh = iter([runner.run(_connect(side, make(ten, seed, frame))) for seed in seeds])
            return lambda: runner.run(_ask_all(next(fresh), order))

        return interleave({kind: ask(*how) for kind, how in kinds.items()}, len(seeds))


def _about_ten(ten: Sequence[Item], seed: int, frame: tuple[int, int] | None) -> list[Item]:
    return with_own_pictures(ten, TEN, seed, frame)


def _about_one(ten: Sequence[Item], seed: int, frame: tuple[int, int] | None) -> list[Item]:
    images = with_own_pictures(ten, 1, seed + 1, frame)[0].images
    return [Item(item.question, images, item.task) for item in ten]


async def _connect(side: Side, items: Sequence[Item]) -> GrpcAsker:
    return GrpcAsker(side.url, items)


async def _ask_all(asker: GrpcAsker, order: str) -> None:
    if order == _IN_ONE_CALL:
        told = await asker.ask_all()
    elif order == _AT_ONCE:
        told = await asyncio.gather(*(asker.ask(index) for index in range(TEN)))
    else:
        told = [await asker.ask(index) for index in range(TEN)]
    await asker.close()
    if len(told) != TEN or any(each.status != OK for each in told):
        raise SystemExit(f"a question was not answered: {told}")
