"""The composition root: settings in, a running service out."""

import asyncio
import logging
from contextlib import closing
from pathlib import Path

from student_service import metrics
from student_service.batching import Batcher
from student_service.control import Control
from student_service.engines.base import Loader
from student_service.engines.loading import choose_engine
from student_service.kserve import servicer as kserve
from student_service.reasoner import Reasoner
from student_service.servicers import CheckpointServicer, StudentServicer
from student_service.shadow import Shadow
from student_service.slots import Serving
from student_service.swap import Swapper, SwapReport
from student_service.watch import Rules, Watch
from world2vlm import rpc, telemetry, tracing
from world2vlm.base_student import BASE_STUDENT
from world2vlm.checkpoints import Registry
from world2vlm.errors import World2VLMError
from world2vlm.settings import StudentSettings
from world2vlm.store import Store
from world2vlm.v1 import student_pb2, student_pb2_grpc

_log = logging.getLogger(__name__)


class App:
    """The service's parts, wired. `load` is what makes an engine of a checkpoint's folder."""

    def __init__(self, settings: StudentSettings, load: Loader) -> None:
        self.settings = settings
        self.registry = Registry(Store(settings.store), settings.student)
        self.serving = Serving()
        self.batcher = Batcher(settings.max_batch)
        metrics.watch_queue(lambda: self.batcher.waiting)
        self.reasoner = Reasoner(self.serving, self.batcher, settings)
        self.control = Control(settings.control_token.get_secret_value())
        self.swapper = Swapper(
            self.registry,
            self.serving,
            self.batcher,
            load,
            drain_timeout_s=settings.drain_seconds,
            on_flip=lambda version, served_s: self.watch.begin(version, served_s),
            on_swap=_count,
        )
        rules = Rules(settings.watch_seconds, settings.watch_max_error_rate, settings.watch_min_requests)
        self.watch = Watch(rules, self.swapper.ask_canary, self.swapper.reject)
        self.batcher.observers.append(self.watch.observe)
        self.shadow: Shadow | None = None

    def start(self, base: Path) -> None:
        """Serve what was promoted last, or else the student in `base`; then load what the settings shadow.

        A candidate that cannot be shadowed is a line in the log.

        Raises:
            PreconditionError: no checkpoint can serve.
        """
        self.swapper.start(base)
        version, share = self.settings.shadow_version, self.settings.shadow_share
        if version == 0:
            return
        try:
            slot = self.swapper.prepare(version)
        except World2VLMError as error:
            _log.error("version %d cannot be shadowed: %s", version, error)
            return
        self.shadow = Shadow(slot, share, self.batcher)
        self.batcher.observers.append(self.shadow.observe)
        _log.info("version %d gets %g%% of the queries, and its answers are only compared", version, 100 * share)

    def make_server(self) -> rpc.Server:
        """Bind the service's port; call it inside the event loop."""
        checkpoints = CheckpointServicer(self.registry, self.serving, self.swapper, self.control)
        names = student_pb2.DESCRIPTOR.services_by_name
        door = self.reasoner.check_room
        services = [
            rpc.Service(
                names["StudentService"].full_name,
                StudentServicer(self.reasoner),
                student_pb2_grpc.add_StudentServiceServicer_to_server,
                dict.fromkeys(("Reason", "ReasonStream", "ReasonMany"), door),
            ),
            rpc.Service(
                names["CheckpointService"].full_name,
                checkpoints,
                student_pb2_grpc.add_CheckpointServiceServicer_to_server,
            ),
            rpc.Service(
                kserve.NAME,
                kserve.KServeServicer(self.reasoner, self.serving, self.swapper, self.registry, self.control),
                kserve.add_to_server,
                {"ModelInfer": door},
            ),
        ]
        settings = self.settings
        return rpc.Server(
            services, settings.host, settings.port, settings.server_tls, with_reflection=settings.reflection
        )

    def close(self) -> None:
        """Stop the threads; what still waits is cancelled."""
        self.watch.close()
        if self.shadow is not None:
            self.shadow.close()
        self.batcher.close()
        self.watch.join()
        self.control.close()
        self.serving.close()


def run(settings: StudentSettings) -> None:
    """Serve until SIGTERM or SIGINT: load what was promoted last, then listen.

    Raises:
        PreconditionError: no checkpoint can serve.
    """
    telemetry.configure_logging(settings.log_format, settings.log_level)
    _log.info("settings: %s", settings.model_dump_json(exclude={"control_token", "redis_url"}))
    load = choose_engine(settings)
    telemetry.serve_metrics(settings.metrics_port, settings.host)
    traces = tracing.exporting("world2vlm-student", settings.otlp_endpoint)
    with traces, closing(App(settings, load)) as app:
        app.start(BASE_STUDENT)
        asyncio.run(_serve(app))


async def _serve(app: App) -> None:
    await app.make_server().run(app.settings.drain_seconds)


def _count(report: SwapReport) -> None:
    metrics.swapped(report.to_version, report.phases_ms)
