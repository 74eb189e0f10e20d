"""`inference.GRPCInferenceService`: it translates, and the planner and the streams do the work.

Each world is a decoupled model by its name, and `teacher` is one whose requests name the world; all have version 1.
Nothing is loaded or unloaded: which worlds there are is a setting.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from tritonclient.grpc import service_pb2

from teacher_service.frames import frames_of
from teacher_service.jobs import Plan
from teacher_service.kserve.tensors import VERSION, frame_values, is_last, keeps_rejected, models_of, read_request
from teacher_service.planning import Planner
from teacher_service.service import Teacher
from teacher_service.streams import Streams
from world2vlm.errors import NotFoundError, UnsupportedError
from world2vlm.kserve import describing
from world2vlm.kserve.servicing import NAME, Context, ModelServicer, Request, Response, add_to_server
from world2vlm.kserve.tensors import Model, find_model, parse_version, read_inputs, read_wanted, write_outputs

__all__ = ["NAME", "KServeServicer", "add_to_server"]


class KServeServicer(ModelServicer):
    """What an unmodified `tritonclient` talks to.

    Args:
        teacher: the worlds.
        streams: where trajectories are made.
        planner: reads requests.
    """

    server_name = "world2vlm-teacher"
    extensions = ("model_configuration",)
    lacks = f"no model repository, no statistics, {ModelServicer.lacks}"

    def __init__(self, teacher: Teacher, streams: Streams, planner: Planner) -> None:
        super().__init__(models_of(teacher.describe()))
        self._streams = streams
        self._planner = planner

    async def ServerReady(self, request: Any, context: Context) -> service_pb2.ServerReadyResponse:
        """Whether the worlds are warm; before that every call is UNAVAILABLE."""
        return service_pb2.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: Any, context: Context) -> service_pb2.ModelReadyResponse:
        """Whether a model, and the version if one is named, serves; an unknown model does not."""
        ready = request.name in self._models and parse_version(request.version) in (None, VERSION)
        return service_pb2.ModelReadyResponse(ready=ready)

    async def ModelMetadata(self, request: Any, context: Context) -> service_pb2.ModelMetadataResponse:
        """A model's tensors."""
        return describing.metadata(self._find(request.name, request.version), VERSION)

    async def ModelConfig(self, request: Any, context: Context) -> service_pb2.ModelConfigResponse:
        """A model's configuration in Triton's terms."""
        return describing.config(self._find(request.name, request.version))

    async def ModelInfer(self, request: Request, context: Context) -> Response:
        """Refuse: a trajectory has more frames than one."""
        self._find(request.model_name, request.model_version)
        raise UnsupportedError("ModelInfer RPC doesn't support models with decoupled transaction policy")

    async def _infer(
        self, model: Model, request: Request, on_piece: Callable[[Response], None] | None = None
    ) -> Response:
        """Answer one request: `on_piece` gets all frames but the last."""
        self._find(model.name, request.model_version)
        wanted = read_wanted(request, model)
        values = read_inputs(request, model.inputs)
        last = Response()
        plan = partial(self._plan, model.name, values)
        async with aclosing(frames_of(self._streams, plan, keeps_rejected(values))) as frames:
            async for frame in frames:
                last = Response(model_name=model.name, model_version=str(VERSION), id=request.id)
                write_outputs(last, model, wanted, frame_values(frame))
                if on_piece is not None and not is_last(frame):
                    on_piece(last)
        return last

    def _plan(self, model: str, values: Mapping[str, Any]) -> Plan:
        return self._planner.plan(read_request(model, values))

    def _find(self, name: str, version: str) -> Model:
        model = find_model(self._models, name)
        if parse_version(version) not in (None, VERSION):
            raise NotFoundError(f"model {name!r} has no version {version[:20]}; it has version {VERSION}")
        return model

    RepositoryIndex = RepositoryModelLoad = RepositoryModelUnload = ModelStatistics = ModelServicer._refuse
