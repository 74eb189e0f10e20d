"""What models are, in KServe's and Triton's terms."""

from tritonclient.grpc import model_config_pb2, service_pb2

from world2vlm.kserve.tensors import Model, Tensor

_PLATFORM = "world2vlm"
_DATA_TYPES = {
    "BYTES": model_config_pb2.TYPE_STRING,
    "UINT8": model_config_pb2.TYPE_UINT8,
    "INT32": model_config_pb2.TYPE_INT32,
    "INT64": model_config_pb2.TYPE_INT64,
    "FP32": model_config_pb2.TYPE_FP32,
    "FP64": model_config_pb2.TYPE_FP64,
}


def metadata(model: Model, version: int) -> service_pb2.ModelMetadataResponse:
    """A model's tensors, and the version that serves."""
    response = service_pb2.ModelMetadataResponse(name=model.name, versions=[str(version)], platform=_PLATFORM)
    for messages, tensors in ((response.inputs, model.inputs), (response.outputs, model.outputs)):
        for tensor in tensors:
            messages.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return response


def config(model: Model) -> service_pb2.ModelConfigResponse:
    """A model's configuration: batches form inside the service, so a request has no batch dimension."""
    return service_pb2.ModelConfigResponse(
        config=model_config_pb2.ModelConfig(
            name=model.name,
            platform=_PLATFORM,
            backend=_PLATFORM,
            max_batch_size=0,
            input=map(_input, model.inputs),
            output=map(_output, model.outputs),
            version_policy=model_config_pb2.ModelVersionPolicy(
                latest=model_config_pb2.ModelVersionPolicy.Latest(num_versions=1)
            ),
            model_transaction_policy=model_config_pb2.ModelTransactionPolicy(decoupled=model.decoupled),
        )
    )


def _input(tensor: Tensor) -> model_config_pb2.ModelInput:
    return model_config_pb2.ModelInput(
        name=tensor.name, data_type=_DATA_TYPES[tensor.datatype], dims=tensor.shape, optional=tensor.optional
    )


def _output(tensor: Tensor) -> model_config_pb2.ModelOutput:
    return model_config_pb2.ModelOutput(name=tensor.name, data_type=_DATA_TYPES[tensor.datatype], dims=tensor.shape)
