"""The student's questions and answers as KServe v2 tensors.

Inputs: `IMAGES`, BYTES [n], the encoded pictures, oldest first. `QUESTION`, BYTES [1], UTF-8: free text; or, with
`TASK`, BYTES [1], one of A1 to D4, the JSON of what that task needs (see `questions`), nothing or `{}` where that is
nothing. `MAX_NEW_TOKENS`, INT32 [1]: where to stop at the latest; 0 or none: as late as the service allows.

Outputs, each of shape [1]: `TEXT`, BYTES, what the student said. `ANSWER`, BYTES, the same as JSON where it has its
task's form, empty where not, and for free text.
`PROBABILITY`, FP32. `VERSION`, INT64, the checkpoint that answered. `PROMPT_TOKENS` and `ANSWER_TOKENS`, INT32.
`QUEUE_MS` and `GENERATE_MS`, FP32. The streaming model's pieces have `DELTA`, BYTES, alone, its last response has all
the others.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2

from student_service.kserve.questions import read_question, write_answer
from student_service.reasoner import Answered
from world2vlm.errors import InvalidInputError, NotFoundError, UnsupportedError
from world2vlm.tasks import Question

# More than any request needs; without a bound a few bytes could claim millions of elements for us to look for.
_MOST_ELEMENTS = 64
_MOST_QUESTION_BYTES = 1 << 16
_TYPED_FIELDS = {"BYTES": "bytes_contents", "INT32": "int_contents"}
_FORMATS = {"INT32": "<i", "INT64": "<q", "FP32": "<f"}

Value = bytes | int | float


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model; one dimension, of `size` elements, -1 for any number."""

    name: str
    datatype: str
    size: int = 1
    optional: bool = False


@dataclass(frozen=True)
class Model:
    """A model as KServe v2 knows it; a decoupled one answers a request with several responses."""

    name: str
    decoupled: bool
    outputs: tuple[Tensor, ...]


INPUTS = (
    Tensor("IMAGES", "BYTES", -1),
    Tensor("QUESTION", "BYTES", optional=True),
    Tensor("TASK", "BYTES", optional=True),
    Tensor("MAX_NEW_TOKENS", "INT32", optional=True),
)
DELTA = Tensor("DELTA", "BYTES")
_ANSWER = (
    Tensor("TEXT", "BYTES"),
    Tensor("ANSWER", "BYTES"),
    Tensor("PROBABILITY", "FP32"),
    Tensor("VERSION", "INT64"),
    Tensor("PROMPT_TOKENS", "INT32"),
    Tensor("ANSWER_TOKENS", "INT32"),
    Tensor("QUEUE_MS", "FP32"),
    Tensor("GENERATE_MS", "FP32"),
)
MODELS = {
    model.name: model for model in (Model("student", False, _ANSWER), Model("student_stream", True, (DELTA, *_ANSWER)))
}


def find_model(name: str) -> Model:
    """Look a model up.

    Raises:
        NotFoundError: no such model.
    """
    model = MODELS.get(name)
    if model is None:
        raise NotFoundError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
    return model


def parse_version(text: str) -> int | None:
    """A model version as requests write it; None where the request names none.

    Raises:
        InvalidInputError: not a version.
    """
    if text and not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidInputError(f"failed to get model version from specified version string {text[:40]!r}")
    return int(text) if text else None


@dataclass(frozen=True)
class Asked:
    """A request: encoded pictures, a question, and where to stop at the latest (0: the service decides)."""

    images: Sequence[bytes]
    question: Question | str
    max_new_tokens: int


def read_asked(request: service_pb2.ModelInferRequest) -> Asked:
    """Read a request's inputs.

    Raises:
        InvalidInputError: an input is missing, unknown, given twice, of the wrong datatype or shape, or its contents
            are not what these say; or what they ask is no question.
        UnsupportedError: an input lies in shared memory.
    """
    values = _read_inputs(request)
    (limit,) = values.get("MAX_NEW_TOKENS", (0,))
    if limit < 0:
        raise InvalidInputError(f"MAX_NEW_TOKENS must be 0 or more, not {limit}")
    (task,) = values.get("TASK", (b"",))
    (text,) = values.get("QUESTION", (b"",))
    return Asked(values["IMAGES"], read_question(_utf8("TASK", task), _utf8("QUESTION", text)), limit)


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


def answer_values(answered: Answered) -> Mapping[str, Value]:
    """The outputs of an answer."""
    outcome = answered.outcome
    return {
        "TEXT": outcome.reply.text.encode(),
        "ANSWER": write_answer(answered.answer).encode(),
        "PROBABILITY": outcome.reply.probability,
        "VERSION": outcome.version,
        "PROMPT_TOKENS": outcome.reply.prompt_tokens,
        "ANSWER_TOKENS": outcome.reply.answer_tokens,
        "QUEUE_MS": outcome.queue_ms,
        "GENERATE_MS": outcome.generate_ms,
    }


def write_outputs(
    response: service_pb2.ModelInferResponse, model: Model, wanted: frozenset[str], values: Mapping[str, Value]
) -> None:
    """Put those of `values` that are wanted into a response."""
    for output in model.outputs:
        if output.name in wanted and output.name in values:
            response.outputs.add(name=output.name, datatype=output.datatype, shape=[1])
            response.raw_output_contents.append(_pack(output.datatype, values[output.name]))


def _read_inputs(request: service_pb2.ModelInferRequest) -> dict[str, Sequence[Any]]:
    known = {tensor.name: tensor for tensor in INPUTS}
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInputError(f"{len(request.inputs)} inputs, but {len(raw)} raw_input_contents")
    values: dict[str, Sequence[Any]] = {}
    for index, given in enumerate(request.inputs):
        tensor = known.get(given.name)
        if tensor is None:
            raise InvalidInputError(f"unexpected inference input {given.name!r}; the inputs are {', '.join(known)}")
        if given.name in values:
            raise InvalidInputError(f"inference input {given.name!r} is given twice")
        count = _check_input(given, tensor)
        if not raw:
            values[given.name] = _read_typed(given, count)
        elif given.HasField("contents"):
            raise InvalidInputError(
                f"contents field must not be specified when using raw_input_contents for {given.name!r}"
            )
        else:
            values[given.name] = _read_raw(tensor, raw[index], count)
    if missing := [tensor.name for tensor in INPUTS if not tensor.optional and tensor.name not in values]:
        raise InvalidInputError(f"expected inference input {missing[0]!r}, which is missing")
    return values


def _check_input(given: Any, tensor: Tensor) -> int:
    """The number of elements that the input's shape says."""
    _refuse_shared_memory(given)
    if given.datatype != tensor.datatype:
        raise InvalidInputError(
            f"inference input {tensor.name!r} data-type is {given.datatype!r}, but the model expects {tensor.datatype}"
        )
    shape = list(given.shape[:4])
    if len(shape) != 1 or not 0 <= shape[0] <= _MOST_ELEMENTS or shape[0] != tensor.size != -1:
        raise InvalidInputError(
            f"unexpected shape for input {tensor.name!r}: expected [{tensor.size}], at most [{_MOST_ELEMENTS}], "
            f"got {shape}"
        )
    return int(shape[0])


def _refuse_shared_memory(tensor: Any) -> None:
    if any(key.startswith("shared_memory") for key in tensor.parameters):
        raise UnsupportedError("this service does not offer shared memory")


def _read_typed(given: Any, count: int) -> Sequence[Any]:
    wanted = _TYPED_FIELDS[given.datatype]
    if others := [field.name for field, _ in given.contents.ListFields() if field.name != wanted]:
        raise InvalidInputError(f"input {given.name!r} has {others[0]}; {given.datatype} goes into {wanted}")
    values: Sequence[Any] = getattr(given.contents, wanted)
    if len(values) != count:
        raise InvalidInputError(f"input {given.name!r} has {len(values)} elements; its shape says {count}")
    return tuple(values)


def _read_raw(tensor: Tensor, raw: bytes, count: int) -> Sequence[Any]:
    if tensor.datatype == "BYTES":
        return _split(tensor.name, raw, count)
    code = _FORMATS[tensor.datatype]
    if len(raw) != count * struct.calcsize(code):
        raise InvalidInputError(
            f"input {tensor.name!r} has {len(raw)} bytes; its shape needs {count * struct.calcsize(code)}"
        )
    return [value for (value,) in struct.iter_unpack(code, raw)]


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


def _pack(datatype: str, value: Value) -> bytes:
    if isinstance(value, bytes):
        return struct.pack("<I", len(value)) + value
    return struct.pack(_FORMATS[datatype], value)


def _utf8(name: str, data: bytes) -> str:
    if len(data) > _MOST_QUESTION_BYTES:
        raise InvalidInputError(f"{name} has more than {_MOST_QUESTION_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is no UTF-8") from error
