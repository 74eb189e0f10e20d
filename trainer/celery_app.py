"""The Celery application: how messages travel. What they mean is in `trainer.tasks`.

JSON only. A message is acknowledged when its task has ended, and goes back into its queue when the task's process dies.
No result backend: results are files in the store.
"""

from typing import Any

from celery import Celery, bootsteps
from kombu.entity import Queue

from trainer.pieces import QUEUES

# The longest task must end before the broker would hand its message to somebody else.
TASK_SECONDS = 24 * 3600
VISIBILITY_SECONDS = TASK_SECONDS + 3600
SOFT_SHUTDOWN_SECONDS = 10
RECONCILE = "trainer.tasks.reconcile"


def make_celery(broker_url: str) -> Celery:
    """Build the application; it connects to nothing yet."""
    app = Celery("trainer", broker=broker_url, set_as_current=False)
    transport = {"visibility_timeout": VISIBILITY_SECONDS}
    app.conf.update(
        task_queues=[Queue(name, routing_key=name) for name in QUEUES],  # type: ignore[no-untyped-call]
        task_default_queue=QUEUES[0],
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_time_limit=TASK_SECONDS,
        task_track_started=True,
        worker_prefetch_multiplier=1,
        worker_soft_shutdown_timeout=SOFT_SHUTDOWN_SECONDS,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=True,
        task_send_sent_event=True,
        broker_transport="trainer.transport:Transport",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=transport,
        result_backend_transport_options=transport,
        visibility_timeout=VISIBILITY_SECONDS,
        enable_utc=True,
        timezone="UTC",
    )
    app.steps["consumer"].add(ReconcileOnConnect)
    return app


class ReconcileOnConnect(bootsteps.StartStopStep):  # type: ignore[misc]
    """Looks for dropped work whenever the worker has (re)connected: at its start, and after the broker was away."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Send the task `reconcile`."""
        parent.app.send_task(RECONCILE)
