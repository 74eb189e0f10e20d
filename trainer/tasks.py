"""The Celery tasks: each names a piece of work and hands it to the round runner. No logic here."""

from collections.abc import Callable
from typing import Any

from celery import Celery

from trainer.celery_app import RECONCILE
from trainer.coordination import PIECE_HEADER
from trainer.pieces import Piece
from trainer.runner import RoundRunner
from world2vlm.rounds import Step

ADVANCE = "trainer.tasks.advance"
NIGHTLY = "trainer.tasks.start_nightly_round"
_NAMES: dict[Step, str] = {
    "imagine": "trainer.tasks.imagine_shard",
    "dataset": "trainer.tasks.build_dataset",
    "distil": "trainer.tasks.distil",
    "evaluate": "trainer.tasks.evaluate_round",
    "promote": "trainer.tasks.promote",
}


def send_piece(app: Celery, piece: Piece) -> None:
    """Put a piece into its queue."""
    app.send_task(
        _NAMES[piece.step],
        args=[piece.round_id, piece.index],
        queue=piece.queue,
        headers={PIECE_HEADER: piece.key},
    )


def send_advance(app: Celery, round_id: str) -> None:
    """Have a worker look at what a round needs next."""
    app.send_task(ADVANCE, args=[round_id])


def register_tasks(app: Celery, runner: RoundRunner, start_nightly: Callable[[], None]) -> None:
    """Register all tasks on the application."""
    for step, name in _NAMES.items():
        app.task(_piece_task(runner, step), name=name, bind=True)
    app.task(runner.advance, name=ADVANCE)
    app.task(runner.reconcile, name=RECONCILE)
    app.task(start_nightly, name=NIGHTLY)


def _piece_task(runner: RoundRunner, step: Step) -> Callable[[Any, str, int], None]:
    def run(self: Any, round_id: str, index: int) -> None:
        runner.run(Piece(round_id, step, index), self.request.id)

    return run
