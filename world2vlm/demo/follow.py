"""Follow a round's files and show how far each step is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from world2vlm.errors import NotFoundError, UnavailableError
from world2vlm.rounds import RoundState, Step
from world2vlm.store import Store

STEPS: dict[Step, str] = {
    "imagine": "imagine and label",
    "dataset": "dataset",
    "distil": "distil",
    "evaluate": "evaluate",
    "promote": "promote and swap",
}
_POLL_SECONDS = 0.3
_STALL_SECONDS = 600.0


@dataclass(frozen=True)
class Where:
    """Where a round is: its next step and how much of that is done."""

    step: Step
    done: int = 0
    total: int = 1

    @property
    def share(self) -> float:
        """How much of the step is done, 0 to 1."""
        return self.done / self.total

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.step not in STEPS


class Display(Protocol):
    """Shows where a round is."""

    def show(self, where: Where) -> None:
        """Show it; called a few times a second."""
        ...


def look(store: Store, state: RoundState) -> Where:
    """Read where a round is."""
    step = state.status()
    if step == "imagine":
        total = len(state.shards())
        return Where(step, total - len(state.missing_shards()), total)
    try:
        written = store.read_json(f"rounds/{state.plan().id}/progress.json")
    except NotFoundError:
        return Where(step)
    return Where(step, written["done"], written["total"]) if written["step"] == step else Where(step)


def follow(store: Store, state: RoundState) -> Iterator[Where]:
    """Yield where a round is, a few times a second, until it is over.

    Raises:
        UnavailableError: nothing has moved for minutes.
    """
    last, since = None, time.monotonic()
    while True:
        where = look(store, state)
        yield where
        if where.is_over:
            return
        if where != last:
            last, since = where, time.monotonic()
        elif time.monotonic() - since > _STALL_SECONDS:
            raise UnavailableError(
                f"the step {where.step} has not moved for {_STALL_SECONDS:.0f} s; see the worker's log"
            )
        time.sleep(_POLL_SECONDS)


@contextmanager
def open_display(console: Console) -> Iterator[Display]:
    """Bars on a terminal, else a line whenever a step begins."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.fields[count]:>12}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        yield _Bars(progress)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._step: Step | None = None

    def show(self, where: Where) -> None:
        if where.step != self._step:
            self._step = where.step
            self._console.print(f"{time.strftime('%H:%M:%S')} {STEPS.get(where.step, where.step)}")


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[Step, TaskID] = {
            step: progress.add_task(name, total=1, start=False, count="") for step, name in STEPS.items()
        }

    def show(self, where: Where) -> None:
        if where.step == "stopped":
            return
        order = list(STEPS)
        for step in order[: len(order) if where.is_over else order.index(where.step)]:
            self._finish(self._tasks[step])
        if where.is_over:
            return
        task = self._tasks[where.step]
        self._progress.start_task(task)
        count = f"{where.done} of {where.total}" if where.total > 1 else ""
        self._progress.update(task, completed=where.done, total=where.total, count=count)

    def _finish(self, task: TaskID) -> None:
        found = self._progress.tasks[task]
        if not found.finished:
            self._progress.start_task(task)
            self._progress.update(task, completed=found.total)
            self._progress.stop_task(task)
