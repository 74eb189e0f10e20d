"""Requests that nobody should send, over a real socket: a plain refusal or an answer, and the service lives on."""

from pathlib import Path

import pytest

from benchmarks.serve.fuzzing import ALLOWED, send, send_mutated
from benchmarks.serve.mutations import Mutator
from tests.student_kit import png, running_student
from world2vlm.actions import Action, Primitive
from world2vlm.boxes import Box
from world2vlm.convert import question_to_proto
from world2vlm.tasks import Question
from world2vlm.v1 import spatial_pb2, student_pb2

pytestmark = pytest.mark.alone

REQUESTS = 300
LONGEST_S = 20.0


def good_requests() -> list[bytes]:
    views = [spatial_pb2.Image(data=png(shade)) for shade in (100, 150)]
    box = Box(250, 400, 625, 775)
    questions = [
        Question("A1"),
        Question("D2", (Action(Primitive.TURN_LEFT, 60.0),), "red chair", box),
        Question("D3", object="red chair", box=box, second_box=box),
    ]
    typed = [
        student_pb2.ReasonRequest(images=views[: 1 + (question.task != "D2")], task=question_to_proto(question))
        for question in questions
    ]
    free = student_pb2.ReasonRequest(images=views[:1], text="Where is the red chair?", max_new_tokens=4)
    return [request.SerializeToString() for request in (*typed, free)]


@pytest.mark.parametrize("seed", [0, 1])
async def test_mutated_requests_break_nothing(tmp_path: Path, seed: int) -> None:
    with running_student(tmp_path) as (app, client):
        assert await send(client.url, good_requests()) == ["OK"] * 4
        fuzzed = await send_mutated(client.url, good_requests(), REQUESTS, seed)
        assert await send(client.url, good_requests()) == ["OK"] * 4
        assert app.reasoner.active == app.batcher.running == app.batcher.waiting == 0
    assert [(status, data.hex()[:200]) for status, data in fuzzed.bad] == []
    assert sum(fuzzed.statuses.values()) == REQUESTS
    assert fuzzed.longest_s < LONGEST_S
    # Mutations that nothing or everything survives would show nothing.
    assert all(fuzzed.statuses[status] > REQUESTS / 20 for status in ALLOWED[:2])


def test_the_same_seed_makes_the_same_requests() -> None:
    first, again, other = (Mutator(good_requests(), seed) for seed in (3, 3, 4))
    made = [first.make() for _ in range(50)]
    assert made == [again.make() for _ in range(50)] != [other.make() for _ in range(50)]
    assert len(set(made)) > 40
