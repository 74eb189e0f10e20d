"""The teacher service's composition root: settings in, a server out."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from teacher_service.service import Teacher
from teacher_service.servicer import Limits, TeacherServicer
from teacher_service.streams import Streams
from teacher_service.worlds.registry import make_worlds
from world2vlm import rpc, tracing
from world2vlm.rpc import Server, Service
from world2vlm.settings import TeacherSettings
from world2vlm.telemetry import configure_logging, serve_metrics
from world2vlm.v1.teacher_pb2_grpc import add_TeacherServiceServicer_to_server

log = logging.getLogger(__name__)


def build_server(settings: TeacherSettings, streams: Streams) -> Server:
    """Wire the service. Call it inside a running event loop."""
    teacher = Teacher(make_worlds(settings))
    limits = Limits(settings.max_image_bytes, settings.max_image_pixels, settings.max_frames)
    servicer = TeacherServicer(teacher, streams, limits)
    service = Service("world2vlm.v1.TeacherService", servicer, add_TeacherServiceServicer_to_server)
    return Server([service], settings.host, settings.port, settings.server_tls, with_reflection=settings.reflection)


@contextmanager
def in_background(settings: TeacherSettings) -> Iterator[int]:
    """Serve from a thread of this process, for synchronous code in it. Yields the port."""
    streams = Streams(settings.max_workers, settings.max_queue)
    with streams, rpc.in_background(lambda: build_server(settings, streams)) as port:
        yield port


def run(settings: TeacherSettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    configure_logging(settings.log_format, settings.log_level)
    # The URL may carry a password.
    log.info("settings: %s", settings.model_dump_json(exclude={"control_token", "redis_url"}))
    serve_metrics(settings.metrics_port, settings.host)
    traces = tracing.exporting("world2vlm-teacher", settings.otlp_endpoint)
    with traces, Streams(settings.max_workers, settings.max_queue) as streams:
        asyncio.run(_run(settings, streams))


async def _run(settings: TeacherSettings, streams: Streams) -> None:
    await build_server(settings, streams).run(settings.drain_seconds)
