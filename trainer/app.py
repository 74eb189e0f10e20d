"""The trainer's composition root: settings in, a running worker or scheduler out."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from celery import Celery, signals
from celery.schedules import crontab

from trainer.attempts import forgive
from trainer.celery_app import RECONCILE, make_celery
from trainer.coordination import RedisCoordinator
from trainer.metrics import register_metrics
from trainer.nightly import plan_of_night
from trainer.plans import create_round, unfinished_rounds
from trainer.runner import RoundRunner
from trainer.services import StudentControl, TeacherService
from trainer.steps import RoundSteps
from trainer.tasks import NIGHTLY, register_tasks, send_advance, send_piece
from trainer.tracking import Tracking
from world2vlm.broker import open_broker
from world2vlm.errors import World2VLMError
from world2vlm.settings import TrainerSettings
from world2vlm.store import Store
from world2vlm.telemetry import configure_logging, serve_metrics

_log = logging.getLogger(__name__)
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Trainer:
    """Everything a worker is made of."""

    celery: Celery
    store: Store
    runner: RoundRunner
    coordinator: RedisCoordinator
    node: str


def build_trainer(settings: TrainerSettings, broker_url: str, name: str = "worker") -> Trainer:
    """Wire a worker; it connects to nothing yet."""
    node = f"{name}@{socket.gethostname()}"
    store = Store(settings.store)
    celery = make_celery(broker_url)
    coordinator = RedisCoordinator(broker_url, node, lambda piece: send_piece(celery, piece))
    steps = RoundSteps(
        store,
        TeacherService(settings),
        StudentControl(settings),
        threads=settings.threads or os.cpu_count() or 1,
        patience_s=PATIENCE_SECONDS,
        work=local_folder(store, ".work"),
        tracking=tracking_of(settings, store),
        policy=settings.policy,
        keep_rejected=settings.keep_rejected,
    )
    runner = RoundRunner(store, steps, coordinator, node)

    def start_nightly() -> None:
        if unfinished_rounds(store):
            _log.warning("no nightly round: another round is under way")
            return
        try:
            plan = plan_of_night(settings, store, datetime.now(UTC).date())
            create_round(store, plan)
        except World2VLMError as error:
            _log.error("no nightly round: %s", error)
            return
        send_advance(celery, plan.id)

    register_tasks(celery, runner, start_nightly)
    return Trainer(celery, store, runner, coordinator, node)


def run_worker(settings: TrainerSettings, name: str, queues: Sequence[str]) -> None:
    """Run a worker with `settings.max_workers` processes until it is told to stop."""
    with _process(settings) as broker_url:
        trainer = build_trainer(settings, broker_url, name)
        _serve_metrics(settings, trainer.store, broker_url)
        trainer.coordinator.forget_own_leases()
        options = [
            f"--hostname={trainer.node}",
            f"--concurrency={settings.max_workers}",
            f"--queues={','.join(queues)}",
        ]
        try:
            trainer.celery.worker_main(["worker", "--pool=prefork", "--without-mingle", "--without-gossip", *options])
        finally:
            for round_id in unfinished_rounds(trainer.store):
                forgive(trainer.store, round_id, trainer.node)


def run_beat(settings: TrainerSettings, reconcile_seconds: float, nightly: tuple[int, int] | None) -> None:
    """Run the scheduler until it is told to stop; of several, a lock lets one work.

    Args:
        settings: the trainer's.
        reconcile_seconds: how often to look for dropped work.
        nightly: UTC (hour, minute) at which a round starts every day; None = no nightly round.
    """
    with _process(settings) as broker_url:
        celery = make_celery(broker_url)
        schedule = {"reconcile": {"task": RECONCILE, "schedule": reconcile_seconds}}
        if nightly is not None:
            schedule["nightly"] = {"task": NIGHTLY, "schedule": crontab(hour=nightly[0], minute=nightly[1])}
        celery.conf.update(
            beat_schedule=schedule,
            beat_scheduler="redbeat.RedBeatScheduler",
            beat_max_loop_interval=5,
            redbeat_redis_url=broker_url,
            redbeat_lock_timeout=30,
            redbeat_redis_options={"retry_period": 60},
        )
        celery.Beat(loglevel=settings.log_level, quiet=True).run()


@contextmanager
def _process(settings: TrainerSettings) -> Iterator[str]:
    """Logging as settings want it, not as Celery does, and a broker; yields the broker's URL."""
    configure_logging(settings.log_format, settings.log_level)
    # Celery sets logging up only where nobody listens to this signal.
    signals.setup_logging.connect(_keep_logging)
    with open_broker(settings.redis_url, settings.store) as broker_url:
        yield broker_url


def _serve_metrics(settings: TrainerSettings, store: Store, broker_url: str) -> None:
    register_metrics(store, broker_url)
    try:
        serve_metrics(settings.metrics_port, settings.host)
    except OSError as error:
        # The queues and rounds that another worker on this machine tells about are the same.
        _log.warning("no metrics on port %d: %s", settings.metrics_port, error)


def _keep_logging(**_arguments: object) -> None:
    """Leave logging as it is."""


def tracking_of(settings: TrainerSettings, store: Store) -> Tracking:
    """Where the curves of trainings go."""
    return Tracking(settings.trackers, settings.tracking or local_folder(store, "tracking"))


def local_folder(store: Store, name: str) -> Path:
    """A folder on this machine for what belongs to a store: within it, or, where it is remote, in the user's cache."""
    if store.is_local:
        return Path(store.root) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "world2vlm" / name.lstrip(".")
