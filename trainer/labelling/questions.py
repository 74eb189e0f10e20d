"""Task records from a bundle: for each transition, questions of all eight tasks that have a certain answer."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from trainer.labelling.claims import false_claim
from trainer.labelling.transition import MIN_AREA, Transition, is_clear, transitions
from world2vlm.actions import Action, format_actions
from world2vlm.bundles import Bundle, ObjectView
from world2vlm.records import TaskRecord
from world2vlm.tasks import Answer, Question, format_answer, get_task

MAX_OBJECTS = 2
# Task -> number of actions -> share of such transitions that are asked about. Single actions carry most: only their
# texts repeat often enough to be balanced, and to be held against what the text alone gives away.
_SHARES: dict[str, dict[int, float]] = {
    "A1": {1: 1.0},
    "A2": {1: 1.0},
    "A3": {2: 1.0, 3: 1.0},
    "A4": {1: 1.0, 2: 0.25, 3: 0.25},
    "D1": {1: 1.0, 2: 0.25},
    "D2": {1: 1.0, 2: 0.25},
    "D3": {1: 1.0, 2: 0.5},
    "D4": {1: 1.0, 2: 0.25},
}

T = TypeVar("T")
Records = Iterable[TaskRecord]
Pool = Sequence[Action]


def label(bundle: Bundle, seed: int) -> list[TaskRecord]:
    """Write the candidate records of a bundle, for all eight tasks; `balance` must choose among them.

    The result depends on the bundle and the seed only. `meta` holds `scene`, `trajectory`, `frames`, `actions` (the
    true ones), and where the question has them `claim` (the actions it names), `object`, `instance`, `box`,
    `second_box`, `second_instance`.

    Args:
        bundle: a bundle that was read from disk, so that its frames know their paths.
        seed: chooses objects and claims.

    Raises:
        InvalidInputError: a frame has no path.
    """
    rng = random.Random(f"{seed}/{bundle.scene}/{bundle.trajectory}")
    found = transitions(bundle)
    pool = [t.actions[0] for t in found if len(t.actions) == 1]
    return [
        record
        for transition in found
        for task, shares in _SHARES.items()
        if rng.random() < shares.get(len(transition.actions), 0.0)
        for record in _ASKERS[task](transition, pool, rng)
    ]


def _ask_move(transition: Transition, _pool: Pool, _rng: random.Random) -> Records:
    if not transition.actions[0].primitive.is_turn:
        yield _record(transition, Question("A1"), transition.actions)


def _ask_turn(transition: Transition, _pool: Pool, _rng: random.Random) -> Records:
    if transition.actions[0].primitive.is_turn:
        yield _record(transition, Question("A2"), transition.actions)


def _ask_sequence(transition: Transition, _pool: Pool, _rng: random.Random) -> Records:
    yield _record(transition, Question("A3"), transition.actions)


def _ask_claim(transition: Transition, pool: Pool, rng: random.Random) -> Records:
    yield _record(transition, Question("A4", actions=transition.actions), True)
    yield _record(transition, Question("A4", actions=false_claim(transition.actions, pool, rng)), False)


def _ask_box(transition: Transition, _pool: Pool, rng: random.Random) -> Records:
    for first, second in _choose(_clear_in_both(transition), MAX_OBJECTS, rng):
        question = Question("D1", transition.actions, first.category, first.box)
        yield _record(transition, question, second.box, instance=first.instance_id)


def _ask_disappearing(transition: Transition, _pool: Pool, rng: random.Random) -> Records:
    clear = [view for view in transition.before if is_clear(view)]
    after = transition.seen_after
    gone = [view for view in clear if view.instance_id not in after]
    # A few pixels that are left are neither gone nor in view: such objects are not asked about.
    kept = [view for view in clear if view.instance_id in after and after[view.instance_id].area >= MIN_AREA]
    for views, answer in ((gone, True), (kept, False)):
        for view in _choose(views, MAX_OBJECTS // 2, rng):
            question = Question("D2", transition.actions, view.category, view.box)
            yield _record(transition, question, answer, instance=view.instance_id)


def _ask_sequence_by_object(transition: Transition, _pool: Pool, rng: random.Random) -> Records:
    for first, second in _choose(_clear_in_both(transition), 1, rng):
        question = Question("D3", object=first.category, box=first.box, second_box=second.box)
        yield _record(transition, question, transition.actions, instance=first.instance_id)


def _ask_identity(transition: Transition, _pool: Pool, rng: random.Random) -> Records:
    same = _clear_in_both(transition)
    # Another instance of the same category: the name alone can't tell.
    other = [
        (first, second)
        for first in transition.before
        if is_clear(first)
        for second in transition.after
        if is_clear(second) and second.category == first.category and second.instance_id != first.instance_id
    ]
    for pairs, answer in ((same, True), (other, False)):
        for first, second in _choose(pairs, MAX_OBJECTS // 2, rng):
            question = Question("D4", transition.actions, first.category, first.box, second.box)
            ids = {"instance": first.instance_id, "second_instance": second.instance_id}
            yield _record(transition, question, answer, **ids)


_ASKERS: dict[str, Callable[[Transition, Pool, random.Random], Records]] = {
    "A1": _ask_move,
    "A2": _ask_turn,
    "A3": _ask_sequence,
    "A4": _ask_claim,
    "D1": _ask_box,
    "D2": _ask_disappearing,
    "D3": _ask_sequence_by_object,
    "D4": _ask_identity,
}


def _clear_in_both(transition: Transition) -> list[tuple[ObjectView, ObjectView]]:
    after = transition.seen_after
    pairs = [(view, after[view.instance_id]) for view in transition.before if view.instance_id in after]
    return [(first, second) for first, second in pairs if is_clear(first) and is_clear(second)]


def _choose(items: Sequence[T], count: int, rng: random.Random) -> list[T]:
    return rng.sample(items, min(count, len(items)))


def _record(transition: Transition, question: Question, answer: Answer, **ids: int) -> TaskRecord:
    images = transition.images[: get_task(question.task).images]
    meta: dict[str, Any] = {
        "scene": transition.scene,
        "trajectory": transition.trajectory,
        "frames": list(transition.frames),
        "actions": format_actions(transition.actions),
        **ids,
    }
    if question.actions:
        meta["claim"] = format_actions(question.actions)
    if question.object:
        meta["object"] = question.object
    if question.box:
        meta["box"] = list(question.box.corners)
    if question.second_box:
        meta["second_box"] = list(question.second_box.corners)
    return TaskRecord.create(question.task, question.text, format_answer(question.task, answer), images, meta)
