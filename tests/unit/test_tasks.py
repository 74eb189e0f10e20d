import pytest
from hypothesis import given
from hypothesis import strategies as st

from world2vlm.actions import Action, Primitive, parse_actions
from world2vlm.boxes import SCALE, Box
from world2vlm.errors import InvalidInputError
from world2vlm.tasks import TASKS, Answer, AnswerKind, Question, format_answer, get_task, parse_answer

BOX, SECOND = Box(10, 20, 300, 400), Box(50, 60, 700, 800)
ACTIONS = tuple(parse_actions("FWD_0.5 TL_30"))
ALLOWED = "Allowed actions:\n- move forward/backward/left/right X meters\n- turn left/right X degrees"

QUESTIONS = {
    "A1": Question("A1"),
    "A2": Question("A2"),
    "A3": Question("A3"),
    "A4": Question("A4", actions=ACTIONS),
    "D1": Question("D1", actions=ACTIONS, object="red chair", box=BOX),
    "D2": Question("D2", actions=ACTIONS, object="red chair", box=BOX),
    "D3": Question("D3", object="red chair", box=BOX, second_box=SECOND),
    "D4": Question("D4", actions=ACTIONS, object="red chair", box=BOX, second_box=SECOND),
}
TEXTS = {
    "A1": "How many meters did the camera move to get the second image? "
    "Answer as: move forward/backward/left/right X meters.",
    "A2": "How many degrees did the camera turn to get the second image? Answer as: turn left/right X degrees.",
    "A3": "To move from the first image to the second image, the camera used 2 or 3 actions in order. "
    f"Write the full action sequence using ';' as a separator. {ALLOWED}",
    "A4": 'True or false: the camera did "move forward 0.5 meters and turn left 30 degrees" to get the second image.',
    "D1": "In the first image, the red chair is at bbox [10, 20, 300, 400]. Bboxes use normalized integer coordinates "
    'in [0,1000]. After the camera does "move forward 0.5 meters; turn left 30 degrees", give the bbox of the same '
    "red chair in the second image. Answer with bbox [x1, y1, x2, y2] only.",
    "D2": 'In the image, the red chair is at bbox [10, 20, 300, 400]. After the camera does "move forward 0.5 meters; '
    'turn left 30 degrees", does this red chair disappear from view? Answer: yes or no.',
    "D3": "The red chair in the first image (bbox [10, 20, 300, 400]) and the red chair in the second image "
    "(bbox [50, 60, 700, 800]) are the same physical object. the camera used 1 or 2 actions in order. "
    f"Write the full action sequence using ';' as a separator. {ALLOWED}",
    "D4": "In the first image, the red chair is at bbox [10, 20, 300, 400]. After the camera does "
    '"move forward 0.5 meters; turn left 30 degrees", the second image shows a red chair at bbox [50, 60, 700, 800]. '
    "Are these the same physical object instance? Answer: yes or no.",
}

sides = st.lists(st.integers(0, SCALE), min_size=2, max_size=2, unique=True).map(sorted)
moves = [primitive for primitive in Primitive if not primitive.is_turn]
turns = [primitive for primitive in Primitive if primitive.is_turn]


def _actions(primitives: list[Primitive], most: int) -> st.SearchStrategy[tuple[Action, ...]]:
    one = st.builds(Action, st.sampled_from(primitives), st.integers(1, 90_000).map(lambda n: n / 1000))
    return st.lists(one, min_size=1, max_size=most).map(tuple)


ANSWERS: dict[str, st.SearchStrategy[Answer]] = {
    "A1": _actions(moves, 1),
    "A2": _actions(turns, 1),
    "A3": _actions([*moves, *turns], 3),
    "A4": st.booleans(),
    "D1": st.builds(lambda x, y: Box(x[0], y[0], x[1], y[1]), sides, sides),
    "D2": st.booleans(),
    "D3": _actions([*moves, *turns], 2),
    "D4": st.booleans(),
}


def test_there_are_eight_tasks() -> None:
    assert list(TASKS) == ["A1", "A2", "A3", "A4", "D1", "D2", "D3", "D4"]
    assert {code: task.images for code, task in TASKS.items() if task.images != 2} == {"D2": 1}


@pytest.mark.parametrize("code", TASKS)
def test_the_questions_text_is_the_published_one(code: str) -> None:
    assert QUESTIONS[code].text == TEXTS[code]


def test_a_claim_of_three_actions_reads_like_english() -> None:
    claim = Question("A4", actions=tuple(parse_actions("FWD_1 TL_30 BACK_2")))
    assert '"move forward 1 meters, turn left 30 degrees and move backward 2 meters"' in claim.text


@pytest.mark.parametrize("code", TASKS)
@given(data=st.data())
def test_an_answer_reads_back_as_it_was(code: str, data: st.DataObject) -> None:
    answer = data.draw(ANSWERS[code])
    assert parse_answer(code, format_answer(code, answer)) == answer


@pytest.mark.parametrize(
    ("code", "text", "answer"),
    [
        ("A4", " True. ", True),
        ("A4", "false", False),
        ("D2", "YES", True),
        ("D4", "no.", False),
        ("D1", " [1, 2, 3, 4] ", Box(1, 2, 3, 4)),
        ("D3", "turn left 30 degrees", (Action(Primitive.TURN_LEFT, 30),)),
    ],
)
def test_accepted_answers(code: str, text: str, answer: Answer) -> None:
    assert parse_answer(code, text) == answer


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("A1", "turn left 30 degrees"),
        ("A1", "move forward 1 meters; move left 1 meters"),
        ("A1", "I think: move forward 1 meters"),
        ("A2", "move left 1 meters"),
        ("A3", ""),
        ("A4", "yes"),
        ("D2", "true"),
        ("D2", "yes, it does"),
        ("D1", "bbox [1, 2, 3, 4]"),
        ("D4", ""),
    ],
)
def test_an_answer_is_parsed_strictly(code: str, text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_answer(code, text)


@pytest.mark.parametrize("code", TASKS)
def test_a_question_takes_what_its_task_needs_and_nothing_else(code: str) -> None:
    given_fields = {"actions": ACTIONS, "object": "red chair", "box": BOX, "second_box": SECOND}
    needs = get_task(code).needs
    for name, value in given_fields.items():
        fields = {key: given_fields[key] for key in needs if key != name}
        if name not in needs:
            fields[name] = value
        with pytest.raises(InvalidInputError, match=f"{'needs' if name in needs else 'takes no'} {name}"):
            Question(code, **fields)  # type: ignore[arg-type]


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="unknown task 'Z9'"):
        Question("Z9")


def test_kinds() -> None:
    kinds = {kind: [code for code, task in TASKS.items() if task.kind is kind] for kind in AnswerKind}
    assert kinds == {
        AnswerKind.MOTION: ["A1", "A2"],
        AnswerKind.SEQUENCE: ["A3", "D3"],
        AnswerKind.BOX: ["D1"],
        AnswerKind.BINARY: ["A4", "D2", "D4"],
    }
