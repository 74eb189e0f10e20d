"""`inference.GRPCInferenceService`: it translates, and `reasoner` and `swap` do the work.

There are two models, `student` and, decoupled, `student_stream`; both are the checkpoint that serves, and its version
is theirs. Loading either is the swap, for both. Neither is ever unloaded: one serves until another does.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tritonclient.grpc import service_pb2

from student_service.control import Control
from student_service.kserve import loading
from student_service.kserve.describing import index
from student_service.kserve.statistics import Record, Statistics
from student_service.kserve.tensors import MODELS, answer_values, read_asked
from student_service.reasoner import Reasoner
from student_service.slots import Serving
from student_service.swap import Swapper
from world2vlm.checkpoints import Registry
from world2vlm.errors import NotFoundError, PreconditionError, UnavailableError, UnsupportedError
from world2vlm.kserve import describing
from world2vlm.kserve.servicing import NAME, Context, ModelServicer, Request, Response, add_to_server
from world2vlm.kserve.tensors import Model, Value, find_model, parse_version, read_wanted, write_outputs

__all__ = ["NAME", "KServeServicer", "add_to_server"]


class KServeServicer(ModelServicer):
    """What an unmodified `tritonclient` talks to."""

    server_name = "world2vlm-student"
    extensions = ("model_repository", "model_configuration", "statistics")

    def __init__(
        self, reasoner: Reasoner, serving: Serving, swapper: Swapper, registry: Registry, control: Control
    ) -> None:
        super().__init__(MODELS)
        self._reasoner = reasoner
        self._serving = serving
        self._swapper = swapper
        self._registry = registry
        self._control = control
        self._statistics = Statistics()

    async def ServerReady(self, request: Any, context: Context) -> service_pb2.ServerReadyResponse:
        """Whether a checkpoint serves."""
        return service_pb2.ServerReadyResponse(ready=self._serving.version is not None)

    async def ModelReady(self, request: Any, context: Context) -> service_pb2.ModelReadyResponse:
        """Whether a model, and the version if one is named, serves; an unknown model does not."""
        serving, wanted = self._serving.version, parse_version(request.version)
        ready = request.name in MODELS and serving is not None and wanted in (None, serving)
        return service_pb2.ModelReadyResponse(ready=ready)

    async def ModelMetadata(self, request: Any, context: Context) -> service_pb2.ModelMetadataResponse:
        """A model's tensors and the version that serves."""
        model = find_model(MODELS, request.name)
        return describing.metadata(model, self._require_version(model, request.version))

    async def ModelConfig(self, request: Any, context: Context) -> service_pb2.ModelConfigResponse:
        """A model's configuration in Triton's terms."""
        model = find_model(MODELS, request.name)
        self._require_version(model, request.version)
        return describing.config(model)

    async def ModelStatistics(self, request: Any, context: Context) -> service_pb2.ModelStatisticsResponse:
        """Counts and durations of one model, or of all."""
        models = [find_model(MODELS, request.name).name] if request.name else list(MODELS)
        wanted, serving = parse_version(request.version), self._serving.version
        if serving is None:
            raise UnavailableError("no checkpoint serves yet")
        if wanted not in (None, serving) and not any(self._statistics.knows(model, wanted) for model in models):
            raise NotFoundError(f"version {wanted} has not answered anything")
        return self._statistics.report(models, wanted, serving)

    async def ModelInfer(self, request: Request, context: Context) -> Response:
        """Answer one request with one response."""
        model = find_model(MODELS, request.model_name)
        if model.decoupled:
            raise UnsupportedError("ModelInfer RPC doesn't support models with decoupled transaction policy")
        return await self._infer(model, request)

    async def RepositoryIndex(self, request: Any, context: Context) -> service_pb2.RepositoryIndexResponse:
        """All published versions; the one that serves is READY."""
        loading.refuse_repository(request)
        versions = await self._control.run(self._registry.versions)
        return index(versions, self._serving.version, ready_only=request.ready)

    async def RepositoryModelLoad(self, request: Any, context: Context) -> service_pb2.RepositoryModelLoadResponse:
        """Swap to the newest published version, or the one chosen. A swap that began runs to its end."""
        self._control.authorise(context)
        loading.refuse_repository(request)
        model = find_model(MODELS, request.model_name)
        await self._control.run(partial(loading.load, self._swapper, self._registry, model.name, request.parameters))
        return service_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Context) -> service_pb2.RepositoryModelUnloadResponse:
        """Refuse: FAILED_PRECONDITION, and not UNAVAILABLE, for it would be refused again."""
        self._control.authorise(context)
        loading.refuse_repository(request)
        model = find_model(MODELS, request.model_name)
        raise PreconditionError(f"model {model.name!r} is never unloaded; load another version instead")

    async def _infer(
        self, model: Model, request: Request, on_piece: Callable[[Response], None] | None = None
    ) -> Response:
        """Answer one request; `on_piece` gets what a decoupled model says on the way."""
        pinned, wanted = parse_version(request.model_version), read_wanted(request, model)
        with self._statistics.recording(model.name) as record:
            asked = read_asked(request)

            def on_text(text: str) -> None:
                if on_piece is not None:
                    on_piece(_response(model, request, record, wanted, {"DELTA": text.encode()}))

            def on_version(version: int) -> None:
                _check_pinned(model, pinned, version)
                record.version = version

            answered = await self._reasoner.answer(
                asked.images,
                asked.question,
                asked.max_new_tokens,
                on_text if on_piece is not None and "DELTA" in wanted else None,
                on_version,
            )
            record.outcome = answered.outcome
        return _response(model, request, record, wanted, answer_values(answered))

    def _require_version(self, model: Model, text: str) -> int:
        pinned, serving = parse_version(text), self._serving.version
        if serving is None:
            raise UnavailableError("no checkpoint serves yet")
        _check_pinned(model, pinned, serving)
        return serving


def _check_pinned(model: Model, pinned: int | None, serving: int) -> None:
    if pinned not in (None, serving):
        raise NotFoundError(f"model {model.name!r} version {pinned} does not serve; version {serving} does")


def _response(
    model: Model, request: Request, record: Record, wanted: frozenset[str], values: Mapping[str, Value]
) -> Response:
    response = Response(model_name=model.name, model_version=str(record.version), id=request.id)
    write_outputs(response, model, wanted, values)
    return response
