"""What our services answer alike as `inference.GRPCInferenceService`."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, TypeAlias

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

import world2vlm
from world2vlm.errors import UnsupportedError
from world2vlm.kserve.conversation import Conversation, is_strict
from world2vlm.kserve.tensors import Model

Context = grpc.aio.ServicerContext[Any, Any]
Request: TypeAlias = service_pb2.ModelInferRequest
Response: TypeAlias = service_pb2.ModelInferResponse

NAME: str = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
add_to_server = service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server


class ModelServicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """What an unmodified `tritonclient` talks to, as far as all services are alike.

    Args:
        models: what is served, by name.

    Attributes:
        server_name: the service's.
        extensions: those of the protocol that it offers.
        lacks: what it does not offer, in words.
    """

    server_name: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]]
    lacks: ClassVar[str] = "no shared memory, no trace settings and no log settings"

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    async def ServerLive(self, request: Any, context: Context) -> service_pb2.ServerLiveResponse:
        """Whether the process answers."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerMetadata(self, request: Any, context: Context) -> service_pb2.ServerMetadataResponse:
        """Name and version of this service, and the protocol's extensions that it offers."""
        return service_pb2.ServerMetadataResponse(
            name=self.server_name, version=world2vlm.__version__, extensions=self.extensions
        )

    async def ModelStreamInfer(
        self, requests: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[service_pb2.ModelStreamInferResponse]:
        """Answer requests as they come; responses of different requests mix, `id` tells whose each is."""
        conversation = Conversation(self._models, self._infer, requests, strict=is_strict(context))
        async with aclosing(conversation.responses()) as responses:
            async for response in responses:
                yield response

    async def _infer(
        self, model: Model, request: Request, on_piece: Callable[[Response], None] | None = None
    ) -> Response:
        """Answer one request; `on_piece` gets what a decoupled model says on the way."""
        raise NotImplementedError

    async def _refuse(self, request: Any, context: Context) -> Any:
        raise UnsupportedError(f"this service offers {self.lacks}")

    SystemSharedMemoryStatus = SystemSharedMemoryRegister = SystemSharedMemoryUnregister = _refuse
    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = _refuse
    TraceSetting = LogSettings = _refuse
