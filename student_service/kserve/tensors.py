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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tritonclient.grpc import service_pb2

from student_service.kserve.questions import read_question, write_answer
from student_service.reasoner import Answered
from world2vlm.errors import InvalidInputError
from world2vlm.kserve.tensors import Model, Tensor, Value, read_inputs
from world2vlm.tasks import Question

_MOST_QUESTION_BYTES = 1 << 16

INPUTS = (
    Tensor("IMAGES", "BYTES", (-1,)),
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
    model.name: model
    for model in (
        Model("student", False, INPUTS, _ANSWER),
        Model("student_stream", True, INPUTS, (DELTA, *_ANSWER)),
    )
}


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
    values = read_inputs(request, INPUTS)
    (limit,) = map(int, values.get("MAX_NEW_TOKENS", (0,)))
    if limit < 0:
        raise InvalidInputError(f"MAX_NEW_TOKENS must be 0 or more, not {limit}")
    (task,) = values.get("TASK", (b"",))
    (text,) = values.get("QUESTION", (b"",))
    return Asked([*values["IMAGES"]], read_question(_utf8("TASK", task), _utf8("QUESTION", text)), limit)


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


def _utf8(name: str, data: bytes) -> str:
    if len(data) > _MOST_QUESTION_BYTES:
        raise InvalidInputError(f"{name} has more than {_MOST_QUESTION_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is no UTF-8") from error
