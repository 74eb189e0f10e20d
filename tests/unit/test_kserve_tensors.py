"""Reading KServe v2 tensors: what was written comes back, and whatever else comes is refused in so many words."""

import json
import struct
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from student_service.batching import Outcome
from student_service.engines.base import Reply
from student_service.kserve.questions import read_question
from student_service.kserve.statistics import Statistics
from student_service.kserve.tensors import INPUTS, read_asked
from world2vlm.errors import InvalidInputError, UnsupportedError, World2VLMError
from world2vlm.kserve.tensors import parse_version
from world2vlm.tasks import TASKS

OUTCOME = Outcome(Reply("yes", 1.0, 1, 1), 1, 1.0, 2.0)
NAMES = [tensor.name for tensor in INPUTS]
MESSAGES: Any = service_pb2.ModelInferRequest


def request(*inputs: tuple[str, str, list[int], bytes]) -> Any:
    tensors = [MESSAGES.InferInputTensor(name=name, datatype=kind, shape=shape) for name, kind, shape, _ in inputs]
    return MESSAGES(model_name="student", inputs=tensors, raw_input_contents=[raw for *_, raw in inputs])


def elements(*data: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in data)


@given(images=st.lists(st.binary(max_size=40), max_size=6), text=st.text(max_size=40), limit=st.integers(0, 2**31 - 1))
def test_what_was_written_is_read(images: list[bytes], text: str, limit: int) -> None:
    asked = read_asked(
        request(
            ("MAX_NEW_TOKENS", "INT32", [1], struct.pack("<i", limit)),
            ("IMAGES", "BYTES", [len(images)], elements(*images)),
            ("QUESTION", "BYTES", [1], elements(text.encode())),
        )
    )
    assert (list(asked.images), asked.question, asked.max_new_tokens) == (images, text, limit)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*NAMES, "OTHER"]),
            st.sampled_from(["BYTES", "INT32", "FP32", ""]),
            st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2), max_size=3),
            st.binary(max_size=24) | st.binary(max_size=12).map(elements),
        ),
        max_size=5,
    )
)
def test_any_tensors_are_read_or_refused(inputs: list[tuple[str, str, list[int], bytes]]) -> None:
    try:
        asked = read_asked(request(*inputs))
    except (InvalidInputError, UnsupportedError) as error:
        assert str(error)
    else:
        assert len(asked.images) == next(shape[0] for name, _, shape, _ in inputs if name == "IMAGES")


@given(st.binary(max_size=300))
def test_any_message_is_read_or_refused(data: bytes) -> None:
    message = MESSAGES()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return
    try:
        read_asked(message)
    except World2VLMError as error:
        assert str(error)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
_FIELDS = st.dictionaries(st.sampled_from(["actions", "object", "box", "second_box", "primitive"]), _JSON)


@given(task=st.sampled_from([*TASKS, "Z9"]), text=st.text(max_size=60) | _FIELDS.map(json.dumps))
def test_any_question_is_read_or_invalid(task: str, text: str) -> None:
    try:
        question = read_question(task, text)
    except InvalidInputError as error:
        assert str(error)
    else:
        assert not isinstance(question, str) and question.text


@pytest.mark.parametrize(("text", "version"), [("", None), ("1", 1), ("007", 7), ("9" * 18, 10**18 - 1)])
def test_versions_are_integers(text: str, version: int | None) -> None:
    assert parse_version(text) == version


def test_statistics_forget_the_oldest_versions() -> None:
    statistics = Statistics()
    for version in range(1, 101):
        with statistics.recording("student") as record:
            record.version, record.outcome = version, OUTCOME
    stats = statistics.report(["student"], None, 100).model_stats
    assert [one.version for one in stats] == [str(version) for version in range(85, 101)]
    assert all(one.inference_count == 1 for one in stats)
    assert not statistics.knows("student", 1) and statistics.knows("student", 100)


def test_a_request_that_no_version_took_is_not_counted() -> None:
    statistics = Statistics()
    with pytest.raises(InvalidInputError), statistics.recording("student"):
        raise InvalidInputError("bad tensors")
    assert not statistics.knows("student", 1)
