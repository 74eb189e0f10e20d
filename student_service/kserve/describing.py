"""What the models are, in KServe's and Triton's terms."""

from collections.abc import Sequence

from tritonclient.grpc import model_config_pb2, service_pb2

from student_service.kserve.tensors import INPUTS, MODELS, Model, Tensor

_PLATFORM = "world2vlm"
_DATA_TYPES = {
    "BYTES": model_config_pb2.TYPE_STRING,
    "INT32": model_config_pb2.TYPE_INT32,
    "INT64": model_config_pb2.TYPE_INT64,
    "FP32": model_config_pb2.TYPE_FP32,
}


def metadata(model: Model, version: int) -> service_pb2.ModelMetadataResponse:
    """A model's tensors, and the version that serves."""
    response = service_pb2.ModelMetadataResponse(name=model.name, versions=[str(version)], platform=_PLATFORM)
    for messages, tensors in ((response.inputs, INPUTS), (response.outputs, model.outputs)):
        for tensor in tensors:
            messages.add(name=tensor.name, datatype=tensor.datatype, shape=[tensor.size])
    return response


def config(model: Model) -> service_pb2.ModelConfigResponse:
    """A model's configuration: batches form inside the service, so a request has no batch dimension."""
    return service_pb2.ModelConfigResponse(
        config=model_config_pb2.ModelConfig(
            name=model.name,
            platform=_PLATFORM,
            backend=_PLATFORM,
            max_batch_size=0,
            input=map(_input, INPUTS),
            output=map(_output, model.outputs),
            version_policy=model_config_pb2.ModelVersionPolicy(
                latest=model_config_pb2.ModelVersionPolicy.Latest(num_versions=1)
            ),
            model_transaction_policy=model_config_pb2.ModelTransactionPolicy(decoupled=model.decoupled),
        )
    )


def index(versions: Sequence[int], serving: int | None, *, ready_only: bool) -> service_pb2.RepositoryIndexResponse:
    """The models at all published versions; the one that serves is READY, the others are not loaded."""
    response = service_pb2.RepositoryIndexResponse()
    for name in MODELS:
        for version in versions:
            if version == serving:
                response.models.add(name=name, version=str(version), state="READY")
            elif not ready_only:
                response.models.add(name=name, version=str(version), state="UNAVAILABLE", reason="not loaded")
    return response


def _input(tensor: Tensor) -> model_config_pb2.ModelInput:
    return model_config_pb2.ModelInput(
        name=tensor.name, data_type=_DATA_TYPES[tensor.datatype], dims=[tensor.size], optional=tensor.optional
    )


def _output(tensor: Tensor) -> model_config_pb2.ModelOutput:
    return model_config_pb2.ModelOutput(name=tensor.name, data_type=_DATA_TYPES[tensor.datatype], dims=[tensor.size])
