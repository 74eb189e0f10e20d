"""What waits for a thread, what of it is made at once, and the making."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from teacher_service.jobs import Job, Plan
from world2vlm.errors import World2VLMError


@dataclass(frozen=True, eq=False)
class Order:
    """A trajectory to make, and who waits for it."""

    plan: Plan
    job: Job


class Waiting:
    """Orders that wait for a thread of their lane, and could be made with others.

    Nothing waits for others to come: an order whose turn has come takes with it those that are there.
    """

    def __init__(self) -> None:
        self._orders: dict[str, list[Order]] = {}
        self._lock = threading.Lock()

    def put(self, order: Order) -> None:
        """Have an order wait."""
        if order.plan.batch is not None:
            with self._lock:
                self._orders.setdefault(order.plan.batch.key, []).append(order)

    def take(self, order: Order) -> list[Order]:
        """An order whose turn has come, and those that are made with it; none where it has gone with another."""
        batch = order.plan.batch
        if batch is None:
            return [order]
        with self._lock:
            waiting = self._orders.pop(batch.key, [])
            taken = []
            if order in waiting:
                # One that nobody waits for any more takes nobody along, and no place from others.
                others = [] if order.job.is_cancelled() else waiting
                taken = [order, *(each for each in others if each is not order and not each.job.is_cancelled())]
                taken = taken[: batch.most]
            if left := [each for each in waiting if each not in taken]:
                self._orders[batch.key] = left
        return taken


def made(orders: Sequence[Order]) -> Iterator[tuple[Order, Exception | None]]:
    """Make trajectories, item by item in turns; yield each when it is over, with why it ended early."""
    try:
        lines = list(zip(orders, _lines(orders), strict=True))
    except Exception as of_all:
        yield from ((order, of_all) for order in orders)
        return
    while lines:
        going = []
        for order, items in lines:
            try:
                if _advance(order, items):
                    going.append((order, items))
                    continue
            except Exception as error:
                yield order, error
            else:
                yield order, None
        lines = going


def _lines(orders: Sequence[Order]) -> Sequence[Iterator[bytes]]:
    batch = orders[0].plan.batch if len(orders) > 1 else None
    if batch is None:
        return [order.plan.make(order.job) for order in orders]
    return batch.make([order.plan.batch.spec(order.job) for order in orders if order.plan.batch is not None])


def _advance(order: Order, items: Iterator[bytes]) -> bool:
    """Add the next item; whether there may be more."""
    plan, job = order.plan, order.job
    item = None if job.is_cancelled() else next(items, None)
    if item is not None:
        job.add(item)
    elif job.made != plan.count and not job.is_cancelled():
        raise World2VLMError(f"the world {plan.world!r} made {job.made} of {plan.count} frames")
    return item is not None and not job.is_cancelled()
