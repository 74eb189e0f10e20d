"""GRPO of any family's model: its probabilities against transformers' own, that it learns, resumes, and stops."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests import finetune_kit
from tests.finetune_kit import Killed, Models, make_records, run, settings
from trainer.finetune import stages
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.encoding import Encoder
from trainer.finetune.grpo.beginning import Begun, begin
from trainer.finetune.grpo.config import FinetuneGrpoConfig
from trainer.finetune.grpo.learner import Learner
from trainer.finetune.grpo.policy import Policy
from trainer.finetune.grpo.training import train
from trainer.finetune.processes import Processes
from trainer.grpo.choices import choices
from trainer.grpo.rollouts import Group, Rollouts
from world2vlm.errors import DivergedError, GateRejectedError, InvalidInputError, PreconditionError
from world2vlm.images import decode_image
from world2vlm.records import TaskRecord
from world2vlm.tasks import TASKS
from world2vlm.vlm.fullsize.conversation import Form
from world2vlm.vlm.fullsize.families import find_family
from world2vlm.vlm.fullsize.student import FamilyStudent
from world2vlm.vlm.fullsize.vision import look

FAST = FinetuneGrpoConfig(steps=4, prompts=2, tasks=("A2", "D2"), reward="strict", learning_rate=3e-3, snapshot_every=2)
ALONE = Processes(0, 1, torch.device("cpu"))

models, images = finetune_kit.models, finetune_kit.images


@pytest.fixture(scope="module")
def records(images: Path) -> list[TaskRecord]:
    made = [record for record in make_records(images) if record.task_type in TASKS]
    return [replace(record, assistant="true") if record.task_type == "A4" else record for record in made]


@pytest.fixture(scope="module")
def tuned(
    models: Models, records: list[TaskRecord], images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FinetuneConfig, Path]:
    """An adapter as a fine-tuning of two steps leaves it."""
    config, out = settings(models("qwen2_5_vl"), row_tokens=400, steps=2), tmp_path_factory.mktemp("tuned")
    run(config, records, images, out)
    return config, out


def yes_records(records: list[TaskRecord]) -> list[TaskRecord]:
    return [replace(record, assistant="yes") for record in records if record.task_type == "D2"]


class Asked:
    """A model that answers, and its probabilities."""

    def __init__(self, begun: Begun, images: Path, prepared: Path) -> None:
        self.student, self.form = FamilyStudent(begun.model, begun.processor), Form.of(begun.processor)
        self.begun, self.policy = begun, Policy(begun, self.student.grammars, self.form)
        encoder = Encoder(begun.processor, begun.model.model, begun.family, prepared, images, frozen=True)
        self.rollouts = Rollouts(
            self.student,
            lambda record: [encoder.seen(key) for key in encoder.entry(record).images],
            lambda answer: self.form.spell(begun.processor.tokenizer, answer),
            4,
            "strict",
        )

    def draw(self, records: list[TaskRecord]) -> list[Group]:
        with self.begun.answering():
            return self.rollouts.draw(records, list(range(len(records))))

    def sums(self, groups: list[Group]) -> list[float]:
        """Log-probability of each group's distinct answers, in order."""
        found: list[float] = []
        for group in groups:
            for answer in dict.fromkeys(group.answers):
                (lesson,) = self.policy.lay_out([replace(group, answers=[answer])], np.zeros((1, 1)))
                found.append(self.policy.log_probabilities(lesson).sum().item())
        return found


@torch.inference_mode()
def plainly(model: Any, asked: Asked, group: Group, answer: tuple[int, ...], images: Path) -> float:
    """By transformers' own forward pass, of one prompt and one answer, from pixels."""
    clip, family = group.clip, find_family(model.config)
    ids = torch.tensor([[*clip.ids, *group.prompt, *answer]])
    looks = [
        look(asked.begun.processor, family, decode_image((images / name).read_bytes()))[0]
        for name in group.record.images
    ]
    inputs = {name: torch.cat([each[name] for each in looks]) for name in looks[0]}
    if family.grid_positions:
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    logits = model(input_ids=ids, **inputs).logits[0].double()
    constraint = asked.student.grammars.constraint(group.record.task_type)
    total, begin_at = 0.0, len(clip.ids) + len(group.prompt)
    for choice in choices(constraint, answer, asked.form.end):
        row = logits[begin_at + choice.place - 1]
        total += (row[choice.token] - row[torch.from_numpy(choice.allowed)].logsumexp(0)).item()
    return total


@pytest.mark.parametrize("name", ["qwen3_vl", "idefics3", "llava"])
def test_probabilities_are_those_of_one_answer_at_a_time(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path, name: str
) -> None:
    config = settings(models(name), method="full", row_tokens=600)
    asked = Asked(begin(config, models(name), torch.device("cpu")), images, tmp_path)
    model: Any = AutoModelForImageTextToText.from_pretrained(models(name), dtype=torch.float32)
    _compare(asked, model.eval(), records, images)


def test_probabilities_of_an_adapter_are_those_of_pefts_own(
    tuned: tuple[FinetuneConfig, Path], records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    config, base = tuned
    asked = Asked(begin(config, base, torch.device("cpu")), images, tmp_path)
    model: Any = AutoModelForImageTextToText.from_pretrained(config.model, dtype=torch.float32)
    _compare(asked, PeftModel.from_pretrained(model, base).merge_and_unload().eval(), records, images)


def _compare(asked: Asked, model: Any, records: list[TaskRecord], images: Path) -> None:
    groups = asked.draw(records)
    lessons = asked.policy.lay_out(groups, np.zeros((len(groups), 4)))
    assert len(lessons) < len(groups), "answers are packed"
    packed: list[float] = []
    for lesson in lessons:
        found = asked.policy.log_probabilities(lesson)
        # As many equal weights as an answer has choices.
        counts = (lesson.drawn / lesson.row.weights).round().long().tolist()
        while counts:
            packed.append(found[: counts[0]].sum().item())
            found, counts = found[counts[0] :], counts[counts[0] :]
    expected = [
        plainly(model, asked, group, answer, images) for group in groups for answer in dict.fromkeys(group.answers)
    ]
    assert sorted(packed) == pytest.approx(sorted(expected), abs=2e-4)
    assert asked.sums(groups) == pytest.approx(expected, abs=2e-4)
    assert sum(len(set(group.answers)) > 1 for group in groups) > 1


def test_answers_are_drawn_as_likely_as_they_are(
    tuned: tuple[FinetuneConfig, Path], records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    asked = Asked(begin(*tuned, torch.device("cpu")), images, tmp_path)
    (record, *_) = yes_records(records)
    groups = asked.draw([record] * 75)
    yes = tuple(asked.form.spell(asked.begun.processor.tokenizer, "yes"))
    share = np.mean([answer == yes for group in groups for answer in group.answers])
    (likely,) = np.exp(asked.sums([replace(groups[0], answers=[yes])]))
    assert 0.02 < likely < 0.98
    assert abs(share - likely) < 4 * np.sqrt(likely * (1 - likely) / 300)


def test_the_first_step_is_the_policy_gradient_and_has_no_divergence(
    tuned: tuple[FinetuneConfig, Path], records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    """Against the gradient of the mean over all answers, drawn ones twice included, one at a time."""
    asked = Asked(begin(*tuned, torch.device("cpu")), images, tmp_path)
    groups = [
        replace(group, rewards=np.array([float(answer == group.answers[0]) for answer in group.answers]))
        for group in asked.draw(records)
    ]
    telling = [group for group in groups if group.is_telling]
    total = sum(len(group.answers) for group in telling)
    for group in telling:
        mean = group.rewards.mean()
        for answer, reward in zip(group.answers, group.rewards, strict=True):
            (lesson,) = asked.policy.lay_out([replace(group, answers=[answer])], np.zeros((1, 1)))
            loss = -(reward - mean) * asked.policy.log_probabilities(lesson).mean() / total
            loss.backward()
    weights = [weight for weight in asked.begun.module.parameters() if weight.requires_grad]
    expected = torch.stack([weight.grad.norm() for weight in weights if weight.grad is not None]).norm().item()
    asked.begun.module.zero_grad()
    figures = Learner(replace(FAST, standardise=False), asked.begun, asked.policy, ALONE).learn(groups, 0)
    assert figures["kl"] == 0
    assert expected > 0 and figures["gradient"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_it_learns_what_is_rewarded(
    models: Models, tuned: tuple[FinetuneConfig, Path], records: list[TaskRecord], images: Path, tmp_path: Path,
    method: Any,
) -> None:  # fmt: skip
    tuning, base = tuned if method == "lora" else (settings(models("llava"), method="full"), models("llava"))
    grpo = replace(FAST, steps=30, prompts=2, group=6, tasks=("D2",), learning_rate=1e-2 if method == "lora" else 1e-4)
    told: list[dict[str, float]] = []
    asked = yes_records(records)
    train(grpo, tuning, asked, images, base, tmp_path, lambda _step, _steps, figures: told.append(figures))
    rewards = [figures["reward"] for figures in told]
    assert np.mean(rewards[:2]) < 0.8 < 0.95 < np.mean(rewards[-4:]), rewards
    assert told[0]["kl"] == 0 and max(figures["kl"] for figures in told) > 0
    # Once all answers are right, none is better than another.
    assert told[-1]["telling"] < 1
    again = Asked(begin(tuning, tmp_path, torch.device("cpu")), images, tmp_path / "prepared")
    assert np.mean([group.rewards for group in again.draw(asked * 5)]) > 0.9


def test_a_killed_run_continues_to_the_same_figures_and_weights(
    tuned: tuple[FinetuneConfig, Path], records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    config = replace(FAST, updates=2, redraws=1)

    def go(out: str, kill_after: int = 0, grpo: FinetuneGrpoConfig = config) -> list[dict[str, float]]:
        told: list[dict[str, float]] = []

        def watch(step: int, _steps: int, figures: dict[str, float]) -> None:
            told.append(figures)
            if step == kill_after:
                raise Killed

        tuning, base = tuned
        train(grpo, tuning, records, images, base, tmp_path / out, watch)
        return told

    whole = go("whole")
    with pytest.raises(Killed):
        go("killed", 3)
    with pytest.raises(PreconditionError, match="other settings or data"):
        go("killed", grpo=replace(config, kl_weight=0.5))
    assert go("killed") == whole[2:]
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed"))
    before = load_file(tuned[1] / "adapter_model.safetensors")
    assert first.keys() == before.keys() and any(not torch.equal(first[name], before[name]) for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (tmp_path / "killed" / "snapshot.safetensors").exists()


def test_stages_follow_each_other_each_continued(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    tuning = settings(models("qwen2_5_vl"), row_tokens=400, steps=3)
    grpo = replace(FAST, steps=3, snapshot_every=1)

    def go(out: str, kill_after: int = 0, config: FinetuneConfig = tuning) -> list[tuple[int, int]]:
        told: list[tuple[int, int]] = []

        def watch(step: int, steps: int, _figures: dict[str, float]) -> None:
            told.append((step, steps))
            if step == kill_after:
                raise Killed

        stages.train(config, grpo, records, images, tmp_path / out, watch)
        return told

    assert go("whole") == [(step, 6) for step in range(1, 7)]
    for kill_after in (3, 5):
        with pytest.raises(Killed):
            go("killed", kill_after)
    assert go("killed") == [(5, 6), (6, 6)]
    names = ("whole-sft", "killed-sft", "whole", "killed")
    first, second, third, fourth = (load_file(tmp_path / name / "adapter_model.safetensors") for name in names)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(third[name], fourth[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)
    with pytest.raises(PreconditionError, match="whole-sft is a fine-tuning with other settings or data"):
        go("whole", config=replace(tuning, learning_rate=1e-3))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("qwen3_vl", {"method": "lora"}),
        ("qwen2_5_vl", {"method": "dora", "freeze_vision": False, "dropout": 0.3}),
        ("idefics3", {"method": "full", "freeze_vision": False}),
    ],
)
def test_it_goes_on_from_any_fine_tuning_in_bf16(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    tuning = settings(models(name), row_tokens=400, steps=2, dtype="bf16", **changes)
    told: list[dict[str, float]] = []

    def watch(step: int, _steps: int, figures: dict[str, float]) -> None:
        if step > tuning.steps:  # type: ignore[operator]
            told.append(figures)

    stages.train(tuning, replace(FAST, redraws=2), records, images, tmp_path / "out", watch)
    first = next(figures for figures in told if figures["telling"])
    assert first["kl"] == 0 and first["gradient"] > 0
    weights = "model.safetensors" if tuning.method == "full" else "adapter_model.safetensors"
    before, after = (load_file(tmp_path / folder / weights) for folder in ("out-sft", "out"))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert before.keys() == after.keys() and changed
    # Towers and projectors, which the fine-tuning may have trained.
    assert not any(part in key for key in changed for part in ("visual", "vision_model", "connector"))


def test_a_reward_that_cannot_differ_teaches_nothing(
    tuned: tuple[FinetuneConfig, Path], records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    asked = Asked(begin(*tuned, torch.device("cpu")), images, tmp_path)
    groups = [replace(group, rewards=np.full(4, 0.5)) for group in asked.draw(records)]
    before = [weight.detach().clone() for weight in asked.begun.module.parameters()]
    figures = Learner(FAST, asked.begun, asked.policy, ALONE).learn(groups, 0)
    assert (figures["loss"], figures["kl"], figures["gradient"]) == (0, 0, 0)
    assert all(torch.equal(one, other) for one, other in zip(asked.begun.module.parameters(), before, strict=True))


def test_a_gamed_reward_stops_the_run(
    tuned: tuple[FinetuneConfig, Path], records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    tuning, base = tuned
    config = replace(FAST, steps=40, window=2, max_kl=0.01, learning_rate=3e-2, snapshot_every=1)
    with pytest.raises(GateRejectedError, match=r"kl is .* above 0\.01"):
        train(config, tuning, records, images, base, tmp_path)
    assert (tmp_path / "snapshot.safetensors").exists() and not (tmp_path / "adapter_config.json").exists()


def test_what_stops_a_run_is_said(
    models: Models, tuned: tuple[FinetuneConfig, Path], records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    runs, (tuning, base) = count(), tuned

    def go(
        grpo: FinetuneGrpoConfig = FAST, finetune: FinetuneConfig = tuning, folder: Path = base, **more: Any
    ) -> None:
        train(grpo, finetune, records, images, folder, tmp_path / str(next(runs)), **more)

    def exhausted(step: int, steps: int, figures: dict[str, float]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(PreconditionError, match=r"lower row_tokens \(now 400\), or lower rank \(now 4\)$"):
        go(on_progress=exhausted)
    with pytest.raises(DivergedError, match=r"at step \d are not finite|GRPO step \d of 9: the loss is nan"):
        go(replace(FAST, steps=9, learning_rate=1e30, max_kl=1e30, kl_weight=1.0))
    with pytest.raises(InvalidInputError, match="no question of A3: there is nothing to train on"):
        go(replace(FAST, tasks=("A3",)))
    with pytest.raises(InvalidInputError, match="not an answer to D2: 'so'"):
        train(FAST, tuning, [replace(yes_records(records)[0], assistant="so")], images, base, tmp_path / "wrong")
    with pytest.raises(InvalidInputError, match="raise row_tokens"):
        go(finetune=replace(tuning, row_tokens=20))
    with pytest.raises(InvalidInputError, match="no adapter of such a fine-tuning"):
        go(folder=models("qwen2_5_vl"))
    with pytest.raises(InvalidInputError, match="no adapter of such a fine-tuning"):
        go(finetune=replace(tuning, rank=2))
