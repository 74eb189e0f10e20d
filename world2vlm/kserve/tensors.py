"""Tensors of KServe v2: what a model takes and gives, and how requests' values are read and responses' are written."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tritonclient.grpc import service_pb2

from world2vlm.errors import InvalidInputError, NotFoundError, UnsupportedError

# More than a small tensor needs; without a bound a few bytes could claim millions of elements for us to look for.
_MOST_ELEMENTS = 64
_MOST_DIMENSIONS = 8
_BYTES = "BYTES"
_DTYPES = {"UINT8": "u1", "INT32": "<i4", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}
_TYPED_FIELDS = {
    _BYTES: "bytes_contents",
    "UINT8": "uint_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}

Read: TypeAlias = Sequence[bytes] | NDArray[Any]
Value: TypeAlias = bytes | ArrayLike


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model.

    Attributes:
        name: its name.
        datatype: KServe's: BYTES, UINT8, INT32, INT64, FP32 or FP64.
        shape: -1 for any number.
        optional: an input that may be left out.
        most: elements of an input at most.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] = (1,)
    optional: bool = False
    most: int = _MOST_ELEMENTS


@dataclass(frozen=True)
class Model:
    """A model as KServe v2 knows it; a decoupled one answers a request with several responses."""

    name: str
    decoupled: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def find_model(models: Mapping[str, Model], name: str) -> Model:
    """Look a model up.

    Raises:
        NotFoundError: no such model.
    """
    model = models.get(name)
    if model is None:
        raise NotFoundError(f"unknown model {name!r}; the models are {', '.join(models)}")
    return model


def parse_version(text: str) -> int | None:
    """A model version as requests write it; None where the request names none.

    Raises:
        InvalidInputError: not a version.
    """
    if text and not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidInputError(f"failed to get model version from specified version string {text[:40]!r}")
    return int(text) if text else None


def read_inputs(request: service_pb2.ModelInferRequest, tensors: Sequence[Tensor]) -> dict[str, Read]:
    """Read a request's inputs: BYTES as a list of elements, all others as arrays of their shapes.

    Raises:
        InvalidInputError: an input is missing, unknown, given twice, of the wrong datatype or shape, or its contents
            are not what these say.
        UnsupportedError: an input lies in shared memory.
    """
    known = {tensor.name: tensor for tensor in tensors}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInputError(f"{len(request.inputs)} inputs, but {len(raw)} raw_input_contents")
    values: dict[str, Read] = {}
    for index, given in enumerate(request.inputs):
        tensor = known.get(given.name)
        if tensor is None:
            raise InvalidInputError(f"unexpected inference input {given.name!r}; the inputs are {', '.join(known)}")
        if given.name in values:
            raise InvalidInputError(f"inference input {given.name!r} is given twice")
        shape = _check_input(given, tensor)
        if not raw:
            values[given.name] = _read_typed(given, shape)
        elif given.HasField("contents"):
            raise InvalidInputError(
                f"contents field must not be specified when using raw_input_contents for {given.name!r}"
            )
        else:
            values[given.name] = _read_raw(tensor, raw[index], shape)
    if missing := [tensor.name for tensor in tensors if not tensor.optional and tensor.name not in values]:
        raise InvalidInputError(f"expected inference input {missing[0]!r}, which is missing")
    return values


def read_wanted(request: service_pb2.ModelInferRequest, model: Model) -> frozenset[str]:
    """The names of the outputs that a request wants: those it names, all of the model's where it names none.

    Raises:
        InvalidInputError: the model has no such output.
        UnsupportedError: an output is wanted in shared memory or as a classification.
    """
    names = {output.name for output in model.outputs}
    for output in request.outputs:
        if output.name not in names:
            raise InvalidInputError(f"unexpected inference output {output.name!r} for model {model.name!r}")
        _refuse_shared_memory(output)
        if "classification" in output.parameters:
            raise UnsupportedError("this service does not offer the classification extension")
    return frozenset(output.name for output in request.outputs) or frozenset(names)


def write_outputs(
    response: service_pb2.ModelInferResponse, model: Model, wanted: frozenset[str], values: Mapping[str, Value]
) -> None:
    """Put those of `values` that are wanted into a response."""
    for output in model.outputs:
        if output.name in wanted and output.name in values:
            shape, packed = _pack(output, values[output.name])
            response.outputs.add(name=output.name, datatype=output.datatype, shape=shape)
            response.raw_output_contents.append(packed)


def as_array(output: Tensor, value: Value) -> NDArray[Any]:
    """A value as an array of an output's datatype, which is not BYTES, and shape."""
    array = np.frombuffer(value, "u1") if isinstance(value, bytes) else np.asarray(value, _DTYPES[output.datatype])
    return array.reshape(output.shape)


def _check_input(given: Any, tensor: Tensor) -> tuple[int, ...]:
    """The input's shape."""
    _refuse_shared_memory(given)
    if given.datatype != tensor.datatype:
        raise InvalidInputError(
            f"inference input {tensor.name!r} data-type is {given.datatype!r}, but the model expects {tensor.datatype}"
        )
    shape = tuple(map(int, given.shape[:_MOST_DIMENSIONS]))
    fits = len(shape) == len(tensor.shape) and all(
        size >= 0 and wanted in (size, -1) for size, wanted in zip(shape, tensor.shape, strict=True)
    )
    if not fits or prod(shape) > tensor.most:
        raise InvalidInputError(
            f"unexpected shape for input {tensor.name!r}: expected {list(tensor.shape)}, at most {tensor.most} "
            f"elements, got {list(shape)}"
        )
    return shape


def _refuse_shared_memory(tensor: Any) -> None:
    if any(key.startswith("shared_memory") for key in tensor.parameters):
        raise UnsupportedError("this service does not offer shared memory")


def _read_typed(given: Any, shape: tuple[int, ...]) -> Read:
    wanted, count = _TYPED_FIELDS[given.datatype], prod(shape)
    if others := [field.name for field, _ in given.contents.ListFields() if field.name != wanted]:
        raise InvalidInputError(f"input {given.name!r} has {others[0]}; {given.datatype} goes into {wanted}")
    values: Sequence[Any] = getattr(given.contents, wanted)
    if len(values) != count:
        raise InvalidInputError(f"input {given.name!r} has {len(values)} elements; its shape says {count}")
    if given.datatype == _BYTES:
        return tuple(values)
    try:
        return np.array(values, _DTYPES[given.datatype]).reshape(shape)
    except OverflowError as error:
        raise InvalidInputError(f"input {given.name!r} has a value that is no {given.datatype}") from error


def _read_raw(tensor: Tensor, raw: bytes, shape: tuple[int, ...]) -> Read:
    count = prod(shape)
    if tensor.datatype == _BYTES:
        return _split(tensor.name, raw, count)
    dtype = np.dtype(_DTYPES[tensor.datatype])
    if len(raw) != count * dtype.itemsize:
        raise InvalidInputError(f"input {tensor.name!r} has {len(raw)} bytes; its shape needs {count * dtype.itemsize}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _split(name: str, raw: bytes, count: int) -> list[bytes]:
    """The elements of a BYTES tensor: each after its length in four bytes, little-endian."""
    elements: list[bytes] = []
    offset = 0
    while len(elements) < count:
        start = offset + 4
        if start > len(raw):
            raise InvalidInputError(f"incomplete string length for inference input {name!r}")
        (length,) = struct.unpack_from("<I", raw, offset)
        offset = start + length
        if offset > len(raw):
            raise InvalidInputError(
                f"incomplete string data for inference input {name!r}: expecting string of length {length} but only "
                f"{len(raw) - start} bytes available"
            )
        elements.append(raw[start:offset])
    if offset != len(raw):
        raise InvalidInputError(f"input {name!r} has {len(raw) - offset} bytes more than the elements of its shape")
    return elements


def _pack(output: Tensor, value: Value) -> tuple[tuple[int, ...], bytes]:
    """A value's shape and its bytes."""
    if output.datatype == _BYTES:
        assert isinstance(value, bytes)
        return (1,), struct.pack("<I", len(value)) + value
    array = as_array(output, value)
    return array.shape, array.tobytes()
