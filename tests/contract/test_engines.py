"""The contract of `student_service.engines.base.Engine`, run on every engine."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from student_service.engines.base import Engine
from student_service.engines.transformers import TransformersEngine
from tests.student_kit import EchoEngine, query, tiny_student
from world2vlm.errors import InvalidInputError, PreconditionError

QUESTIONS = ("Where is the red chair?", "Is there a blue sofa in the second image?", "How many tables?")


@pytest.fixture(params=["echo", "transformers"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine: Engine = EchoEngine() if request.param == "echo" else TransformersEngine.load(tiny_student())
    yield engine
    engine.close()


def test_answers_a_batch_in_order_as_it_answers_each_alone(engine: Engine) -> None:
    queries = [query(QUESTIONS[0]), query(QUESTIONS[1], images=2), query(QUESTIONS[2])]
    together = engine.answer(queries, 8)
    alone = [engine.answer([q], 8)[0] for q in queries]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.prompt_tokens for reply in together] == [reply.prompt_tokens for reply in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.probability == pytest.approx(other.probability, rel=1e-3)


def test_figures_are_in_their_ranges(engine: Engine) -> None:
    replies = engine.answer([query(text, images=2) for text in QUESTIONS], 8)
    for text, reply in zip(QUESTIONS, replies, strict=True):
        assert math.isfinite(reply.probability) and 0 < reply.probability <= 1 + 1e-6
        assert 1 <= reply.answer_tokens <= 8
        assert reply.prompt_tokens > engine.count_tokens(text)


def test_an_empty_batch_has_no_replies(engine: Engine) -> None:
    assert engine.answer([], 8) == []


def test_stops_at_the_token_limit(engine: Engine) -> None:
    (short,) = engine.answer([query(QUESTIONS[1])], 2)
    (longer,) = engine.answer([query(QUESTIONS[1])], 6)
    assert short.answer_tokens == 2
    assert longer.answer_tokens > 2 and longer.text.startswith(short.text)


def test_streamed_pieces_add_up_to_the_texts(engine: Engine) -> None:
    pieces: list[tuple[int, str]] = []
    replies = engine.answer([query(text) for text in QUESTIONS], 8, lambda index, text: pieces.append((index, text)))
    for index, reply in enumerate(replies):
        assert "".join(text for i, text in pieces if i == index) == reply.text
    assert len(pieces) > len(replies)
    assert {index for index, _ in pieces} == {0, 1, 2}


def test_refuses_a_query_without_images(engine: Engine) -> None:
    with pytest.raises(InvalidInputError):
        engine.answer([query(QUESTIONS[0], images=0)], 8)


def test_longer_texts_have_more_tokens(engine: Engine) -> None:
    assert 0 < engine.count_tokens("where?") < engine.count_tokens("where? " * 10)
    with pytest.raises(InvalidInputError):
        engine.count_tokens(" ")


def test_tokens_can_be_counted_while_it_answers(engine: Engine) -> None:
    expected = engine.count_tokens(QUESTIONS[1])
    counted: list[int] = []
    thread = threading.Thread(target=lambda: counted.extend(engine.count_tokens(QUESTIONS[1]) for _ in range(50)))
    thread.start()
    before = engine.answer([query(text) for text in QUESTIONS], 8)
    thread.join()
    assert counted == [expected] * 50
    assert engine.answer([query(text) for text in QUESTIONS], 8) == before


def test_a_closed_engine_answers_nothing(engine: Engine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError):
        engine.answer([query(QUESTIONS[0])], 8)


def test_an_unfit_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PreconditionError, match="unfit"):
        TransformersEngine.load(tmp_path)
