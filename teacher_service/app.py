"""The teacher service's composition root: settings in, a server out."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import world2vlm
from teacher_service.cache import FrameCache
from teacher_service.gates.there_and_back import ThereAndBack
from teacher_service.gating import judged_by, read_gate_settings
from teacher_service.kserve import servicer as kserve
from teacher_service.objects import DetectorOptions, ObjectFilters, WithObjects, make_detector
from teacher_service.planning import Limits, Planner
from teacher_service.service import Teacher
from teacher_service.servicer import TeacherServicer
from teacher_service.streams import Streams
from teacher_service.worlds.depths import make_depths
from teacher_service.worlds.registry import make_worlds
from world2vlm import rpc, tracing
from world2vlm.errors import InvalidInputError
from world2vlm.files import canonical_json
from world2vlm.rpc import Server, Service
from world2vlm.settings import ServiceSettings, TeacherSettings
from world2vlm.telemetry import configure_logging, serve_metrics
from world2vlm.v1.teacher_pb2_grpc import add_TeacherServiceServicer_to_server

log = logging.getLogger(__name__)
# Settings that no frame is a function of, beside those that all services have.
_NOT_IN_FRAMES = {"worlds", "world_options", "max_workers", "max_frames", "scene_cache", "cache_dir", "cache_bytes"}


def make_teacher(settings: TeacherSettings) -> Teacher:
    """Make the worlds, and what judges their frames.

    Raises:
        NotFoundError, InvalidInputError: see `make_worlds`, `make_detector` and `make_depths`; or a bad limit of a
            gate, or one that asks for estimated depth where no model estimates any.
    """
    gates = read_gate_settings(settings.gates) if settings.with_gates else None
    estimates = gates is not None and gates.estimate_depth
    worlds = make_worlds(settings)
    if gates is not None and gates.there_and_back:
        worlds = [ThereAndBack(each, gates) if each.info.generative else each for each in worlds]
    detector = make_detector(DetectorOptions(settings.detector, settings.vocabulary, settings.device))
    depths = make_depths(settings.depth_model, settings.device) if detector or estimates else None
    if estimates and depths is None:
        raise InvalidInputError("gates: estimate_depth needs a depth_model, and the setting says none")
    if detector is not None:
        filters = ObjectFilters()
        worlds = [WithObjects(each, detector, filters, depths) if each.info.takes_photos else each for each in worlds]
    shared = settings.model_dump(mode="json", exclude=_NOT_IN_FRAMES | set(ServiceSettings.model_fields))
    made_with = {
        world.info.name: canonical_json(
            [world2vlm.__version__, shared, depths and depths.digest, settings.world_options.get(world.info.name, {})]
        )
        for world in worlds
    }
    gating = None if gates is None else judged_by(gates, depths.of if depths and estimates else None)
    return Teacher(worlds, made_with, gating)


def make_streams(settings: TeacherSettings) -> Streams:
    """Where trajectories are made; use it as a context manager."""
    cache = None if settings.cache_dir is None else FrameCache(settings.cache_dir, settings.cache_bytes)
    return Streams(settings.max_workers, settings.max_queue, cache)


def make_planner(settings: TeacherSettings, teacher: Teacher) -> Planner:
    """What reads requests, within the limits of the settings."""
    return Planner(teacher, Limits(settings.max_image_bytes, settings.max_image_pixels, settings.max_frames))


def build_server(settings: TeacherSettings, teacher: Teacher, streams: Streams) -> Server:
    """Wire the service. Call it inside a running event loop."""
    planner = make_planner(settings, teacher)
    services = [
        Service(kserve.NAME, kserve.KServeServicer(teacher, streams, planner), kserve.add_to_server),
        Service(
            "world2vlm.v1.TeacherService",
            TeacherServicer(teacher, streams, planner),
            add_TeacherServiceServicer_to_server,
            doors={"Imagine": streams.check_room},
        ),
    ]
    return Server(
        services,
        settings.host,
        settings.port,
        settings.server_tls,
        with_reflection=settings.reflection,
        warm=teacher.warm,
    )


@contextmanager
def in_background(settings: TeacherSettings) -> Iterator[int]:
    """Serve from a thread of this process, for synchronous code in it. Yields the port."""
    teacher = make_teacher(settings)
    with make_streams(settings) as streams, rpc.in_background(lambda: build_server(settings, teacher, streams)) as port:
        yield port


def run(settings: TeacherSettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        World2VLMError: a world can't be made or warmed up, or the port is taken.
    """
    configure_logging(settings.log_format, settings.log_level)
    # The URL may carry a password.
    log.info("settings: %s", settings.model_dump_json(exclude={"control_token", "redis_url"}))
    serve_metrics(settings.metrics_port, settings.host)
    teacher = make_teacher(settings)
    traces = tracing.exporting("world2vlm-teacher", settings.otlp_endpoint)
    with traces, make_streams(settings) as streams:
        asyncio.run(_run(settings, teacher, streams))


async def _run(settings: TeacherSettings, teacher: Teacher, streams: Streams) -> None:
    await build_server(settings, teacher, streams).run(settings.drain_seconds)
