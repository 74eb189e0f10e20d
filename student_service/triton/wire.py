"""What travels between the engine and the models in Triton: names of tensors, and errors as text.

Text travels as UINT8 tensors of UTF-8, not as BYTES: Triton's python backend reads and writes BYTES through numpy's
binary interface, which changed with numpy 2; in the wheel's server they break.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from student_service.engines.base import Query, Reply
from world2vlm import errors
from world2vlm.errors import InvalidInputError, OverloadedError, PreconditionError, UnavailableError, World2VLMError

UNARY_MODEL = "student"
STREAM_MODEL = "student_stream"

# Inputs: encoded pictures, oldest first, and the question. Task and token limit are parameters of the request.
IMAGES = ("IMAGE_1", "IMAGE_2")
QUESTION = "QUESTION"
TASK = "task"
MAX_NEW_TOKENS = "max_new_tokens"
# Outputs: of a piece of the stream `DELTA` alone, of an answer all others.
DELTA = "DELTA"
TEXT = "TEXT"
PROBABILITY = "PROBABILITY"
PROMPT_TOKENS = "PROMPT_TOKENS"
ANSWER_TOKENS = "ANSWER_TOKENS"
# The checkpoint that answered.
VERSION = "VERSION"
DIGEST = "DIGEST"

_CATALOGUE: dict[str, type[World2VLMError]] = {
    kind.code: kind
    for kind in (
        errors.InvalidInputError,
        errors.NotFoundError,
        errors.PreconditionError,
        errors.DataCorruptedError,
        errors.OverloadedError,
        errors.UnavailableError,
    )
}
_MARKED = re.compile(r"<(\w+)> (.+)")


def check_query(query: Query) -> None:
    """Do nothing where a query can be written.

    Raises:
        InvalidInputError: no images or too many, or an empty question.
    """
    if not 1 <= len(query.images) <= len(IMAGES):
        raise InvalidInputError(f"a question takes one or two images, not {len(query.images)}")
    if not query.text.strip():
        raise InvalidInputError("the question is empty")


def write_query(query: Query) -> list[triton.InferInput]:
    """A checked query as a request's inputs, each with a batch dimension of one."""
    inputs = [_write(name, image) for name, image in zip(IMAGES, query.images, strict=False)]
    return [*inputs, _write(QUESTION, query.text.encode())]


def write_parameters(query: Query, max_new_tokens: int) -> dict[str, str | int]:
    """A query's parameters; Triton batches requests whatever theirs are."""
    return {TASK: query.task, MAX_NEW_TOKENS: max_new_tokens}


def read_parameters(text: str) -> tuple[str, int]:
    """Task and token limit of a request's parameters, as the python backend hands them over: JSON.

    Raises:
        InvalidInputError: one is of the wrong type.
    """
    values: Mapping[str, Any] = json.loads(text or "{}")
    task, limit = values.get(TASK, ""), values.get(MAX_NEW_TOKENS, 0)
    if not isinstance(task, str) or not isinstance(limit, int) or limit < 0:
        raise InvalidInputError(f"{TASK} must be a string and {MAX_NEW_TOKENS} an integer from 0 on")
    return task, limit


def read_text(result: triton.InferResult, name: str) -> str | None:
    """An output's text; None where the response has no such output."""
    values = result.as_numpy(name)
    return None if values is None else values.tobytes().decode()


def read_reply(result: triton.InferResult) -> Reply:
    """A whole answer."""
    return Reply(
        read_text(result, TEXT) or "",
        float(result.as_numpy(PROBABILITY).item()),
        int(result.as_numpy(PROMPT_TOKENS).item()),
        int(result.as_numpy(ANSWER_TOKENS).item()),
    )


def read_error(error: InferenceServerException) -> World2VLMError:
    """What went wrong in Triton, as an error of the catalogue; Triton's own words stay out of it.

    What a model raised comes back as it was; a dead model, a full queue or a lost connection are temporary.
    """
    text = error.message() or ""
    if (marked := _MARKED.search(text)) and marked[1] in _CATALOGUE:
        return _CATALOGUE[marked[1]](marked[2])
    if "maximum queue size" in text:
        return OverloadedError("Triton's queue is full; try again later")
    status = error.status() or ""
    if "INVALID_ARGUMENT" in status:
        return InvalidInputError("Triton does not take this request")
    # NOT_FOUND too: a model or a version that is not there may be there after the next deployment.
    return UnavailableError("Triton's model does not answer; try again later")


def read_load_error(error: InferenceServerException) -> World2VLMError:
    """Why Triton does not load a model: what the model raised, a refusal, or no answer."""
    text, status = error.message() or "", error.status() or ""
    if (marked := _MARKED.search(text)) and marked[1] in _CATALOGUE:
        return _CATALOGUE[marked[1]](marked[2])
    if "INVALID_ARGUMENT" in status:
        return PreconditionError("Triton refuses to load the model; its log says why")
    return UnavailableError("Triton does not answer, or not in time")


def _write(name: str, data: bytes) -> triton.InferInput:
    values = np.frombuffer(data, np.uint8)[None]
    return triton.InferInput(name, values.shape, "UINT8").set_data_from_numpy(values)
