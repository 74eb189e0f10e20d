"""The contract of `student_service.engines.base.Engine`, run on every engine."""

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from student_service.engines import onnx
from student_service.engines.base import Engine, Query, Update, answer
from student_service.engines.loading import choose_engine
from student_service.engines.local import LocalEngine
from student_service.engines.triton import TritonEngine
from student_service.engines.triton import load as load_triton
from student_service.triton.wire import STREAM_MODEL
from tests.fullsize_kit import tiny_family
from tests.student_kit import EchoEngine, onnx_cache, png, query, tiny_student
from tests.triton_kit import Kit, running_triton
from world2vlm.errors import InvalidInputError, PreconditionError
from world2vlm.settings import StudentSettings
from world2vlm.tasks import TASKS

QUESTIONS = ("Where is the red chair?", "Is there a blue sofa in the second image?", "How many tables?")


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """A real Triton server with the tiny student in it."""
    with running_triton(tmp_path_factory.mktemp("triton"), [STREAM_MODEL]) as kit:
        kit.deployer.deploy(kit.publish(0))
        yield kit


def make_engine(request: pytest.FixtureRequest) -> Engine:
    match request.param:
        case "echo":
            return EchoEngine()
        case "triton":
            kit: Kit = request.getfixturevalue("triton")
            return kit.engine(1)
        case "onnx":
            return onnx.load(tiny_student(), onnx_cache())
        case "family":
            return LocalEngine.load(tiny_family("qwen2_5_vl"))
        case "family in a pool":
            return choose_engine(StudentSettings.load())(tiny_family("llava"))
        case "pool":
            return choose_engine(StudentSettings.load(engine="local", workers=2))(tiny_student())
        case _:
            return LocalEngine.load(tiny_student())


@pytest.fixture(params=["echo", "local", "onnx", "pool", "family", "family in a pool", "triton"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = make_engine(request)
    yield engine
    engine.close()


def test_answers_a_batch_in_order_as_it_answers_each_alone(engine: Engine) -> None:
    queries = [query(QUESTIONS[0]), query(QUESTIONS[1], images=2), query(QUESTIONS[2])]
    together = answer(engine, queries, 8)
    alone = [answer(engine, [q], 8)[0] for q in queries]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.prompt_tokens for reply in together] == [reply.prompt_tokens for reply in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.probability == pytest.approx(other.probability, rel=1e-3)


def test_figures_are_in_their_ranges(engine: Engine) -> None:
    replies = answer(engine, [query(text, images=2) for text in QUESTIONS], 8)
    for text, reply in zip(QUESTIONS, replies, strict=True):
        assert math.isfinite(reply.probability) and 0 < reply.probability <= 1 + 1e-6
        assert 1 <= reply.answer_tokens <= 8
        assert reply.prompt_tokens > len(text.split())


def test_an_empty_batch_has_no_replies(engine: Engine) -> None:
    assert answer(engine, [], 8) == []


def test_stops_at_the_token_limit(engine: Engine) -> None:
    (short,) = answer(engine, [query(QUESTIONS[1])], 2)
    (longer,) = answer(engine, [query(QUESTIONS[1])], 6)
    assert short.answer_tokens == 2
    assert longer.answer_tokens > 2 and longer.text.startswith(short.text)


def test_pieces_add_up_to_the_texts_and_queries_join_and_leave_at_any_step(engine: Engine) -> None:
    expected = [reply.text for reply in answer(engine, [query(text) for text in QUESTIONS], 8)]
    pieces: dict[int, list[str]] = defaultdict(list)
    replies = {}
    for key, text in enumerate(QUESTIONS):
        engine.admit(key, query(text), 8, streams=True)
        for update in engine.step():
            pieces[update.key].append(update.text)
            replies[update.key] = update.reply or replies.get(update.key)
    while not all(replies.get(key) for key in range(len(QUESTIONS))):
        for update in engine.step():
            pieces[update.key].append(update.text)
            replies[update.key] = update.reply
    assert ["".join(pieces[key]) for key in range(len(QUESTIONS))] == expected
    assert sum(map(len, pieces.values())) > len(QUESTIONS)
    assert engine.step() == []


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_pieces_of_a_typed_answer_add_up_to_it(engine: Engine, task: str, streams: bool) -> None:
    engine.admit(0, Query(query("What?", images=TASKS[task].images).images, "What?", task), 24, streams)
    pieces, reply = [], None
    while reply is None:
        for update in engine.step():
            assert update.error is None
            pieces.append(update.text)
            reply = update.reply
    assert "".join(pieces) == reply.text


def test_text_that_nobody_waits_for_comes_with_the_reply(engine: Engine) -> None:
    if isinstance(engine, EchoEngine | TritonEngine):
        pytest.skip("its pieces come as they come")
    engine.admit(0, query(QUESTIONS[1]), 8)
    engine.admit(1, query(QUESTIONS[1]), 8, streams=True)
    updates: dict[int, list[Update]] = {0: [], 1: []}
    while not all(each and each[-1].reply for each in updates.values()):
        for update in engine.step():
            updates[update.key].append(update)
    (whole,) = updates[0]
    assert whole.reply is not None and whole.text == whole.reply.text == "".join(each.text for each in updates[1])
    assert len(updates[1]) > 1


def test_waking_it_at_any_time_loses_nothing(engine: Engine) -> None:
    (expected,) = answer(engine, [query(QUESTIONS[1])], 8)
    engine.wake()
    engine.admit(0, query(QUESTIONS[1]), 8)
    reply = None
    while reply is None:
        engine.wake()
        for update in engine.step():
            reply = update.reply
    assert reply == expected
    assert engine.step() == []


def test_a_dropped_query_makes_room_and_no_noise(engine: Engine) -> None:
    (expected,) = answer(engine, [query(QUESTIONS[1])], 8)
    for key in range(engine.capacity):
        engine.admit(key, query(QUESTIONS[0]), 8)
    engine.step()
    for key in range(engine.capacity):
        engine.drop(key)
    engine.drop(99)
    assert engine.step() == []
    assert answer(engine, [query(QUESTIONS[1])], 8)[0].text == expected.text


def test_refuses_a_query_without_images(engine: Engine) -> None:
    with pytest.raises(InvalidInputError):
        answer(engine, [query(QUESTIONS[0], images=0)], 8)


@pytest.mark.parametrize(
    "bad",
    [
        Query((png()[:100],), "Where?"),
        Query((b"no picture",), "Where?"),
        Query((png(),), " "),
    ],
    ids=["truncated", "no picture", "empty"],
)
def test_a_bad_query_fails_alone(engine: Engine, bad: Query) -> None:
    (expected,) = answer(engine, [query(QUESTIONS[0])], 8)
    with pytest.raises(InvalidInputError):
        answer(engine, [bad], 8)
    assert answer(engine, [query(QUESTIONS[0])], 8)[0].text == expected.text


def test_a_question_is_bounded(engine: Engine) -> None:
    if isinstance(engine, EchoEngine):
        pytest.skip("it has no tokenizer")
    with pytest.raises(InvalidInputError, match="more than 512 tokens"):
        answer(engine, [query("where " * 600)], 8)


def test_it_answers_the_same_before_and_after_live_queries_come(engine: Engine) -> None:
    before = answer(engine, [query(text) for text in QUESTIONS], 8)
    engine.serve()
    engine.serve()
    after = answer(engine, [query(text) for text in QUESTIONS], 8)
    assert [reply.text for reply in after] == [reply.text for reply in before]


def test_a_closed_engine_answers_nothing(engine: Engine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError):
        answer(engine, [query(QUESTIONS[0])], 8)


def test_an_unfit_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PreconditionError, match="unfit"):
        LocalEngine.load(tmp_path)
    with pytest.raises(PreconditionError, match="unfit"):
        onnx.load(tmp_path, onnx_cache())
    with pytest.raises(PreconditionError, match="unfit"):
        choose_engine(StudentSettings.load(engine="local"))(tmp_path)
    with pytest.raises(PreconditionError, match="unfit"):
        load_triton(tmp_path, "127.0.0.1:1")
