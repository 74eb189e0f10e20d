"""GRPO: its loss against formulas written out by hand, its probabilities against the decoder's, and that it learns."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.dataset_kit import toy_records
from tests.vlm_kit import TINY, clips, student
from trainer.grpo.choices import choices
from trainer.grpo.config import GrpoConfig
from trainer.grpo.guard import Guard, repetition
from trainer.grpo.objective import advantages, divergence, mean_over_answers, surrogate
from trainer.grpo.policy import Policy
from trainer.grpo.prompts import Prompts
from trainer.grpo.rollouts import Group, Rollouts, draw_groups
from trainer.grpo.training import train
from trainer.optim_config import OptimConfig
from world2vlm import rewards, scoring
from world2vlm.errors import DivergedError, GateRejectedError, InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.tasks import TASKS, AnswerKind
from world2vlm.vlm import StudentModel
from world2vlm.vlm.grammar import max_answer_tokens

FAST = GrpoConfig(
    steps=4, prompts=4, group=4, anchor=1, redraws=1, snapshot_every=2, threads=1,
    optim=OptimConfig(muon_lr=0.005, adam_lr=1e-3, warmup=1, cooldown=0.5),
)  # fmt: skip


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def records(bundles: Path) -> list[TaskRecord]:
    return toy_records(bundles)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    student().save(folder)
    return folder


def rollouts(model: StudentModel, size: int = 4) -> Rollouts:
    frames = clips(1, TINY.frame_size)[0]
    spell = model.processor.encode_question
    return Rollouts(model, lambda record: list(frames[: len(record.images)]), spell, size, "strict")


def test_advantages_are_each_groups_own() -> None:
    rewards = np.array([[0.0, 1.0, 1.0, 0.0], [0.2, 0.2, 0.2, 0.2], [0.0, 0.0, 0.0, 1.0]])
    better = advantages(rewards, standardise=True)
    assert better[0] == pytest.approx([-1, 1, 1, -1], abs=1e-3)
    assert better[1] == pytest.approx([0, 0, 0, 0])
    deviation = math.sqrt(3) / 4
    assert better[2] == pytest.approx([-0.25 / deviation] * 3 + [0.75 / deviation], abs=1e-3)
    assert advantages(rewards, standardise=False)[2] == pytest.approx([-0.25] * 3 + [0.75])


def test_the_objective_is_the_papers() -> None:
    def by_hand(new: float, old: float, advantage: float) -> float:
        ratio = math.exp(new - old)
        return min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage)

    cases = [(-0.1, -1.0, 1.0), (-0.1, -1.0, -1.0), (-2.0, -1.0, 1.0), (-2.0, -1.0, -1.0), (-1.0, -1.0, 0.5)]
    new, old, advantage = (torch.tensor(column) for column in zip(*cases, strict=True))
    found = surrogate(new, old, advantage, low=0.2, high=0.28)
    assert found.tolist() == pytest.approx([by_hand(*case) for case in cases])
    drift = divergence(torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -1.0]))
    assert drift.tolist() == pytest.approx([0.0, math.e - 1 - 1])


def test_the_gradient_of_what_was_just_drawn_is_the_policy_gradient() -> None:
    new = torch.tensor([-0.5, -1.5], requires_grad=True)
    surrogate(new, new.detach(), torch.tensor([2.0, -1.0]), 0.2, 0.2).sum().backward()  # type: ignore[no-untyped-call]
    assert new.grad is not None and new.grad.tolist() == pytest.approx([2.0, -1.0])


def test_beyond_the_clip_nothing_pulls() -> None:
    new = torch.tensor([0.0, -3.0], requires_grad=True)
    surrogate(new, torch.tensor([-1.0, -1.0]), torch.tensor([1.0, -1.0]), 0.2, 0.2).sum().backward()  # type: ignore[no-untyped-call]
    assert new.grad is not None and new.grad.tolist() == [0.0, 0.0]


def test_long_answers_count_as_much_as_short_ones() -> None:
    values, answer = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1])
    assert mean_over_answers(values, answer, answers=2).item() == pytest.approx((2 + 5) / 2)
    assert mean_over_answers(values, answer, answers=3).item() == pytest.approx((2 + 5) / 3)


def test_an_estimate_of_the_divergence_is_right_on_average() -> None:
    torch.manual_seed(0)
    p, q = torch.log_softmax(torch.randn(6), 0), torch.log_softmax(torch.randn(6), 0)
    drawn = torch.multinomial(p.exp(), 200_000, replacement=True)
    exact = (p.exp() * (p - q)).sum().item()
    assert divergence(p[drawn], q[drawn]).mean().item() == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_policys_probabilities_are_those_that_the_answer_was_drawn_with(task: str) -> None:
    model = student(3)
    images = [f"{number}.png" for number in range(TASKS[task].images)]
    record = TaskRecord.create(task, f"A question for {task}?", _answer(task), images)
    (group,) = rollouts(model, size=5).draw([record], [11])
    policy = Policy(model)
    batch = policy.lay_out([group])
    found = policy.log_probabilities(batch)
    sums = torch.zeros(5).index_add(0, batch.answer, found.detach())
    jobs = [
        replace(
            model.frame_inputs([*group.clip[: TASKS[task].images]], record.question, task).job(max_answer_tokens(task)),
            seed=11 * 5 + number,
        )
        for number in range(5)
    ]
    decoded = model.decode(jobs)
    assert [each.ids for each in decoded] == list(group.answers)
    drawn = [math.log(each.probabilities[0]) for each in decoded]
    assert sums.tolist() == pytest.approx(drawn, abs=2e-4)


def test_drawn_answers_are_as_frequent_as_they_are_likely() -> None:
    model = student(3)
    record = TaskRecord.create("D2", "Is it still in view?", "yes", ["0.png"])
    (group,) = rollouts(model, size=400).draw([record], [0])
    yes = model.processor.encode_question("yes")
    share = np.mean([list(answer) == yes for answer in group.answers])
    policy = Policy(model)
    batch = policy.lay_out([replace(group, answers=[tuple(yes)])])
    likely = policy.log_probabilities(batch).exp().item()
    assert 0.02 < likely < 0.98
    assert abs(share - likely) < 4 * math.sqrt(likely * (1 - likely) / 400)


def test_a_seed_gives_the_same_answers_and_another_one_others() -> None:
    model, record = student(3), TaskRecord.create("D1", "Where?", "[1, 2, 3, 4]", ["0.png", "1.png"])
    first, again, other = (rollouts(model).draw([record], [seed])[0].answers for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) > 1


def test_either_reward_may_be_asked_for() -> None:
    model = student(3)
    record = TaskRecord.create("D3", "Which actions?", "turn left 30 degrees", ["0.png", "1.png"])
    frames = clips(1)[0]
    for name, score in (("strict", scoring.score), ("world2vlm", rewards.reward)):
        (group,) = Rollouts(model, lambda _: list(frames), model.processor.encode_question, 6, name).draw([record], [0])  # type: ignore[arg-type]
        texts = [model.processor.tokenizer.decode(list(answer)) for answer in group.answers]
        assert group.rewards.tolist() == [score("D3", record.assistant, text)["overall"] for text in texts]


def test_forced_tokens_are_no_choices() -> None:
    model = student()
    encode, eos = model.processor.encode_question, model.processor.tokenizer.eos_token_id
    box = choices(model.grammars.constraint("D1"), encode("[10, 20, 300, 400]"), eos)
    assert [choice.place for choice in box] == [1, 3, 5, 7]
    assert [model.processor.tokenizer.decode([choice.token]) for choice in box] == ["10", "20", "300", "400"]
    assert 0 < len(box[2].allowed) < len(box[0].allowed)
    ends = choices(model.grammars.constraint("D3"), encode("turn left 30 degrees"), eos)
    assert ends[-1].token == eos and len(ends[-1].allowed) == 2


def test_questions_are_balanced_and_depend_on_the_seed_and_the_step_alone(records: list[TaskRecord]) -> None:
    many = [*records, *(replace(records[0], user=f"{records[0].user} {number}") for number in range(30))]
    prompts, again = (Prompts(replace(FAST, prompts=6), many) for _ in range(2))
    for step in range(4):
        drawn = [prompts.draw(step, slot) for slot in range(6)]
        assert drawn == [again.draw(step, slot) for slot in range(6)]
        assert sorted(record.task_type for record in drawn) == ["A2", "A2", "D1", "D1", "D2", "D2"]
        assert prompts.draw(step, 1, attempt=1).task_type == drawn[1].task_type
    pool = Prompts(replace(FAST, pool=6), many)
    asked = {(record.task_type, record.user) for step in range(60) for record in [pool.draw(step, 0)]}
    assert sorted(task for task, _ in asked) == ["A2", "A2", "D1", "D1", "D2", "D2"]
    alone = Prompts(replace(FAST, tasks=("D1",)), many)
    assert {alone.draw(step, slot).task_type for step in range(4) for slot in range(4)} == {"D1"}
    with pytest.raises(InvalidInputError, match="no question of A1: there is nothing to train on"):
        Prompts(replace(FAST, tasks=("A1",)), many)
    with pytest.raises(InvalidInputError, match="nothing to train on"):
        Prompts(FAST, [TaskRecord.create("X9", "What?", "that", [])])


class Even:
    """Draws groups of which only every other draw tells anything."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def draw(self, asked: Sequence[TaskRecord], seeds: Sequence[int]) -> list[Group]:
        self.asked.append(len(asked))
        rewards = [np.array([0.0, float(number % 2)]) for number in range(len(asked))]
        return [
            Group(record, clips(1)[0], [], [(1,), (2,)], [1], each, np.ones(2))
            for record, each in zip(asked, rewards, strict=True)
        ]


def test_questions_that_tell_nothing_are_replaced(records: list[TaskRecord]) -> None:
    drawn, prompts = Even(), Prompts(FAST, records)
    groups = draw_groups(replace(FAST, redraws=2), prompts, drawn, 0, range(4))  # type: ignore[arg-type]
    assert drawn.asked == [4, 2, 1]
    assert [group.is_telling for group in groups] == [False, True, True, True]
    assert draw_groups(replace(FAST, redraws=0), prompts, (none := Even()), 0, range(4)) and none.asked == [4]  # type: ignore[arg-type]


def test_it_learns_what_is_rewarded(base: Path, records: list[TaskRecord], bundles: Path, tmp_path: Path) -> None:
    seen: list[float] = []
    binary = [record for record in records if record.task_type == "D2"]
    config = replace(FAST, steps=25, prompts=3, group=8, redraws=0, anchor=0, kl_weight=0.0, freeze_vision=False)
    train(config, base, binary, bundles, tmp_path / "out", lambda _step, _steps, means: seen.append(means["reward"]))
    assert np.mean(seen[:3]) < 0.75 < 0.9 < seen[-1]
    assert StudentModel.load(tmp_path / "out").processor is not None


def test_a_killed_run_continues_to_the_same_weights(
    base: Path, records: list[TaskRecord], bundles: Path, tmp_path: Path
) -> None:
    config = replace(FAST, updates=2)
    figures: dict[int, list[dict[str, float]]] = {}

    def watch(step: int, _steps: int, means: dict[str, float]) -> None:
        figures.setdefault(step, []).append(means)

    def die(step: int, _steps: int, means: dict[str, float]) -> None:
        watch(step, _steps, means)
        if step == 3:
            raise KeyboardInterrupt

    train(config, base, records, bundles, tmp_path / "whole", watch)
    with pytest.raises(KeyboardInterrupt):
        train(config, base, records, bundles, tmp_path / "killed", die)
    train(config, base, records, bundles, tmp_path / "killed", watch)
    assert set(figures) == {1, 2, 3, 4}
    for told in figures.values():
        assert all(each == told[0] for each in told)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    untrained = load_file(base / "model.safetensors")
    changed = {name for name in first if not torch.equal(first[name], untrained[name])}
    assert changed and not any(".visual." in name for name in changed)


def test_a_gamed_reward_stops_the_run(base: Path, records: list[TaskRecord], bundles: Path, tmp_path: Path) -> None:
    config = replace(FAST, steps=60, window=3, max_kl=0.01, snapshot_every=1, optim=replace(FAST.optim, muon_lr=0.05))
    with pytest.raises(GateRejectedError, match=r"kl is .* above 0\.01") as stopped:
        train(config, base, records, bundles, tmp_path / "out")
    assert stopped.value.gate == "grpo_kl" and stopped.value.figure > 0.01
    assert (tmp_path / "out" / "snapshot.safetensors").exists()


def test_the_guard_looks_at_whole_windows() -> None:
    guard = Guard(replace(FAST, window=3, max_length=1.5))
    fine = {"kl": 0.0, "repetition": 0.0}
    guard.check(1, {**fine, "length": 9.0})
    guard.check(2, {**fine, "length": 1.0})
    with pytest.raises(GateRejectedError, match=r"stopped at step 3: length is 3\.667"):
        guard.check(3, {**fine, "length": 1.0})
    with pytest.raises(GateRejectedError, match="kl is nan"):
        for step in range(3):
            Guard(replace(FAST, window=1)).check(step, {"kl": math.nan, "length": 1.0, "repetition": 0.0})


def test_repetition_counts_pairs() -> None:
    assert repetition([1, 2, 3, 4]) == 0
    assert repetition([1, 2, 1, 2, 1]) == 0.5
    assert repetition([7]) == 0


def test_a_loss_that_is_no_number_stops_the_run(
    base: Path, records: list[TaskRecord], bundles: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    config = replace(FAST, optim=replace(FAST.optim, muon_lr=1e30, adam_lr=1e30, clip=1e30))
    with pytest.raises(DivergedError, match="at step"):
        train(config, broken, records, bundles, tmp_path / "out")


def _answer(task: str) -> str:
    """An answer of the task's form."""
    known = {"A1": "move forward 1 meters", "A2": "turn left 30 degrees", "D1": "[1, 2, 3, 4]"}
    is_binary = TASKS[task].kind is AnswerKind.BINARY
    return TASKS[task].words[0] if is_binary else known.get(task, "turn left 30 degrees; move forward 1 meters")
