"""Where a round is, shown to whoever waits for it: bars on a terminal, else a line for each step and each tenth."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from world2vlm.errors import NotFoundError
from world2vlm.rounds import RoundState, Step
from world2vlm.store import Store

STEPS: Mapping[Step, str] = {
    "imagine": "imagine and label",
    "dataset": "dataset",
    "distil": "distil",
    "evaluate": "evaluate",
    "promote": "promote and swap",
}


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


def look(store: Store, state: RoundState, step: Step) -> Where:
    """Read how far the step is that a round is at: its shards, else what the worker wrote down last.

    Args:
        store: where the round lies.
        state: the round.
        step: its next step, as whoever looks sees it.
    """
    if step == "imagine":
        total = len(state.shards())
        return Where(step, total - len(state.missing_shards()), total)
    try:
        written = store.read_json(f"rounds/{state.plan().id}/progress.json")
    except NotFoundError:
        return Where(step)
    return Where(step, written["done"], written["total"]) if written["step"] == step else Where(step)


class Display(Protocol):
    """Shows where a round is."""

    def show(self, where: Where) -> None:
        """Show it; called a few times a second."""
        ...


@contextmanager
def open_display(console: Console, steps: Mapping[Step, str] = STEPS) -> Iterator[Display]:
    """Bars on a terminal, else a line for each step and each tenth of it; `steps` are those that the round takes."""
    if not console.is_terminal:
        yield _Lines(console, steps)
        return
    columns = (TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.fields[count]:>12}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        yield _Bars(progress, steps)


class _Lines:
    def __init__(self, console: Console, steps: Mapping[Step, str]) -> None:
        self._console = console
        self._steps = steps
        self._step: Step | None = None
        self._tenths = 0

    def show(self, where: Where) -> None:
        if where.step != self._step:
            for step in [*self._between(where.step), where.step]:
                self._print(step)
            self._step, self._tenths = where.step, 0
        tenths = int(10 * where.share)
        if self._tenths < tenths < 10:
            self._print(where.step, f": {where.done} of {where.total}")
            self._tenths = tenths

    def _print(self, step: Step, more: str = "") -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {self._steps.get(step, step)}{more}")

    def _between(self, step: Step) -> list[Step]:
        """The steps that came and went since the last look; none is known before the first, or of one that stopped."""
        order: list[Step] = [*self._steps, "done"]
        if self._step not in order or step not in order:
            return []
        return order[order.index(self._step) + 1 : order.index(step)]


class _Bars:
    def __init__(self, progress: Progress, steps: Mapping[Step, str]) -> None:
        self._progress = progress
        self._tasks: dict[Step, TaskID] = {
            step: progress.add_task(name, total=1, start=False, count="") for step, name in steps.items()
        }

    def show(self, where: Where) -> None:
        if where.step == "stopped":
            return
        order = list(self._tasks)
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
