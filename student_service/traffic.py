"""Live traffic as it passes: a batcher that shows every query it is given to those who watch."""

from collections.abc import Callable
from concurrent.futures import Future

from student_service.batching import Batcher, Outcome
from student_service.engines.base import Query
from student_service.slots import Slot

Observer = Callable[[Slot, Query, int, Future[Outcome]], None]
"""Gets a live query's slot, the query, its token limit and its future, in the submitting thread; must be quick."""


class ObservedBatcher(Batcher):
    """A batcher whose live queries are observed; background ones are not."""

    def __init__(self, max_batch: int) -> None:
        super().__init__(max_batch)
        self.observers: list[Observer] = []

    def submit(
        self,
        slot: Slot,
        query: Query,
        max_new_tokens: int,
        on_text: Callable[[str], None] | None = None,
        *,
        background: bool = False,
    ) -> Future[Outcome]:
        """See `Batcher.submit`."""
        future = super().submit(slot, query, max_new_tokens, on_text, background=background)
        if not background:
            for observe in self.observers:
                observe(slot, query, max_new_tokens, future)
        return future
