"""`inference.GRPCInferenceService`: it translates, and the planner and the streams do the work.

Each world is a decoupled model by its name, and `teacher` is one whose requests name the world; all have version 1.
Nothing is loaded or unloaded: which worlds there are is a setting.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

import world2vlm
from teacher_service.frames import frames_of
from teacher_service.jobs import Plan
from teacher_service.kserve.tensors import VERSION, frame_values, is_last, keeps_rejected, models_of, read_request
from teacher_service.planning import Planner
from teacher_service.service import Teacher
from teacher_service.streams import Streams
from world2vlm.errors import NotFoundError, UnsupportedError
from world2vlm.kserve import describing
from world2vlm.kserve.conversation import Conversation, is_strict
from world2vlm.kserve.tensors import Model, find_model, parse_version, read_inputs, read_wanted, write_outputs

Context = grpc.aio.ServicerContext[Any, Any]
Request: TypeAlias = service_pb2.ModelInferRequest
Response: TypeAlias = service_pb2.ModelInferResponse

NAME: str = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
add_to_server = service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
SERVER_NAME = "world2vlm-teacher"
_EXTENSIONS = ("model_configuration",)


class KServeServicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """What an unmodified `tritonclient` talks to.

    Args:
        teacher: the worlds.
        streams: where trajectories are made.
        planner: reads requests.
    """

    def __init__(self, teacher: Teacher, streams: Streams, planner: Planner) -> None:
        self._models = models_of(teacher.describe())
        self._streams = streams
        self._planner = planner

    async def ServerLive(self, request: Any, context: Context) -> service_pb2.ServerLiveResponse:
        """Whether the process answers."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Context) -> service_pb2.ServerReadyResponse:
        """Whether the worlds are warm; before that every call is UNAVAILABLE."""
        return service_pb2.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: Any, context: Context) -> service_pb2.ModelReadyResponse:
        """Whether a model, and the version if one is named, serves; an unknown model does not."""
        ready = request.name in self._models and parse_version(request.version) in (None, VERSION)
        return service_pb2.ModelReadyResponse(ready=ready)

    async def ServerMetadata(self, request: Any, context: Context) -> service_pb2.ServerMetadataResponse:
        """Name and version of this service, and the protocol's extensions that it offers."""
        return service_pb2.ServerMetadataResponse(
            name=SERVER_NAME, version=world2vlm.__version__, extensions=_EXTENSIONS
        )

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

    async def ModelStreamInfer(
        self, requests: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[service_pb2.ModelStreamInferResponse]:
        """Answer requests as they come; frames of different requests mix, `id` tells whose each is."""
        conversation = Conversation(self._models, self._infer, requests, strict=is_strict(context))
        async with aclosing(conversation.responses()) as responses:
            async for response in responses:
                yield response

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

    async def _refuse(self, request: Any, context: Context) -> Any:
        raise UnsupportedError(
            "this service offers no model repository, no statistics, no shared memory, no trace and no log settings"
        )

    RepositoryIndex = RepositoryModelLoad = RepositoryModelUnload = ModelStatistics = _refuse
    SystemSharedMemoryStatus = SystemSharedMemoryRegister = SystemSharedMemoryUnregister = _refuse
    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = _refuse
    TraceSetting = LogSettings = _refuse
