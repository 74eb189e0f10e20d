"""The composition root: settings in, a running service out."""

import asyncio
import logging
from contextlib import closing

from prometheus_client import Counter, Gauge

from student_service.batching import Batcher
from student_service.engines.base import Loader
from student_service.reasoner import Reasoner
from student_service.servicers import CheckpointServicer, StudentServicer
from student_service.slots import Serving
from student_service.swap import Swapper, SwapReport
from world2vlm import rpc, telemetry
from world2vlm.checkpoints import Registry
from world2vlm.errors import InvalidInputError
from world2vlm.settings import StudentSettings
from world2vlm.store import Store
from world2vlm.v1 import student_pb2, student_pb2_grpc

_log = logging.getLogger(__name__)

VERSION = Gauge("world2vlm_checkpoint_version", "The checkpoint version that answers.")
SWAPS = Counter("world2vlm_swaps", "Swaps that took place, the first start among them.")


class App:
    """The service's parts, wired. `load` is what makes an engine of a checkpoint's folder."""

    def __init__(self, settings: StudentSettings, load: Loader) -> None:
        self.settings = settings
        self.registry = Registry(Store(settings.store), settings.student)
        self.serving = Serving()
        self.batcher = Batcher(settings.max_batch)
        self.reasoner = Reasoner(self.serving, self.batcher, settings)
        self.swapper = Swapper(
            self.registry, self.serving, self.batcher, load, drain_timeout_s=settings.drain_seconds, on_swap=_count
        )

    def make_server(self) -> rpc.Server:
        """Bind the service's port; call it inside the event loop."""
        token = self.settings.control_token.get_secret_value()
        checkpoints = CheckpointServicer(self.registry, self.serving, self.swapper, token)
        names = student_pb2.DESCRIPTOR.services_by_name
        services = [
            rpc.Service(
                names["StudentService"].full_name,
                StudentServicer(self.reasoner),
                student_pb2_grpc.add_StudentServiceServicer_to_server,
            ),
            rpc.Service(
                names["CheckpointService"].full_name,
                checkpoints,
                student_pb2_grpc.add_CheckpointServiceServicer_to_server,
            ),
        ]
        certificate, key = self.settings.tls_cert, self.settings.tls_key
        tls = rpc.Tls(certificate, key) if certificate and key else None
        return rpc.Server(services, self.settings.host, self.settings.port, tls)

    def close(self) -> None:
        """Stop the threads; what still waits is cancelled."""
        self.batcher.close()
        self.reasoner.close()


def run(settings: StudentSettings) -> None:
    """Serve until SIGTERM or SIGINT: load what was promoted last, then listen.

    Raises:
        PreconditionError: no checkpoint can serve.
    """
    telemetry.configure_logging(settings.log_format, settings.log_level)
    _log.info("settings: %s", settings.model_dump_json(exclude={"control_token", "redis_url"}))
    load = choose_engine(settings)
    from world2vlm.vlm.base import BASE_STUDENT  # imports torch

    telemetry.serve_metrics(settings.metrics_port, settings.host)
    with closing(App(settings, load)) as app:
        app.swapper.start(BASE_STUDENT)
        asyncio.run(_serve(app))


def choose_engine(settings: StudentSettings) -> Loader:
    """What loads checkpoints under these settings.

    Raises:
        InvalidInputError: no such engine in this version.
    """
    if settings.engine != "local":
        raise InvalidInputError(f"this version has no engine {settings.engine!r}; use 'local'")
    from student_service.engines.transformers import TransformersEngine, limit_threads

    # One thread answers a tiny student faster than several, and leaves a core to whatever loads beside it.
    limit_threads(settings.threads or 1)
    return lambda folder: TransformersEngine.load(folder, settings.device)


async def _serve(app: App) -> None:
    await app.make_server().run(app.settings.drain_seconds)


def _count(report: SwapReport) -> None:
    VERSION.set(report.to_version)
    SWAPS.inc()
