"""Pre-training of `base-student`: a tiny Qwen3-VL that can see, name and ground objects, and was never shown motion.

It learns from questions about single views and about unrelated pairs of views of rendered rooms
(`trainer.perception`), helped by a dense auxiliary loss on the vision tower (`trainer.dense`).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from trainer.base_config import BaseConfig
from trainer.dense import DenseHead
from trainer.optim import StudentOptimizer
from trainer.packing import Example, PackedStudent
from trainer.perception import KINDS, SUFFIXES, ask
from trainer.progress import Progress, running_means
from trainer.views import Views
from world2vlm.boxes import iou, parse_box
from world2vlm.errors import InvalidInputError
from world2vlm.vlm import Prompt, StudentModel, build_student

# Of the running means.
_MEMORY = 0.98


def pretrain(config: BaseConfig, views: Views, out: Path, on_progress: Progress, save_every: int = 2_000) -> None:
    """Train from random weights and write the checkpoint to `out` (also every `save_every` steps)."""
    student = build_student(config.student, config.seed)
    packed = PackedStudent(student)
    head = DenseHead(config.student.text_width, config.student.merge_size**2)
    optimizer = StudentOptimizer([student.model, head], config.optim, config.steps)
    sampler = ClipSampler(views, config)
    student.model.train()
    means: dict[str, float] = {}
    for step in range(config.steps):
        index, rows = sampler.batch()
        seen = packed.see(views.frames[index])
        targets = torch.from_numpy(views.targets[index][:, :, packed.patch_order.numpy()]).transpose(1, 2)
        loss, right = head.loss(seen[0], targets)
        figures = {"dense": loss.item(), "colour": right}
        if step >= config.dense_only_steps:
            answers = packed.loss(packed.pack(rows), seen)
            figures["answers"] = answers.item()
            loss = loss + answers
        optimizer.step(loss)
        means = running_means(means, figures, _MEMORY)
        on_progress(step + 1, config.steps, means)
        if (step + 1) % save_every == 0 or step + 1 == config.steps:
            student.save(out)


class ClipSampler:
    """Draws clips (one view twice, or two unrelated views of one scene) with questions about them."""

    def __init__(self, views: Views, config: BaseConfig) -> None:
        self._views, self._config = views, config
        self._rng = random.Random(config.seed)
        starts = np.searchsorted(views.scenes, np.unique(views.scenes)).tolist()
        self._scenes = list(zip(starts, [*starts[1:], len(views.scenes)], strict=True))

    def batch(self) -> tuple[np.ndarray, list[list[Example]]]:
        """Indices (clips, 2) of the views, and each clip's questions."""
        drawn = [self._clip() for _ in range(self._config.clips)]
        return np.array([pair for pair, _ in drawn]), [examples for _, examples in drawn]

    def _clip(self) -> tuple[tuple[int, int], list[Example]]:
        rng = self._rng
        while True:
            first, last = self._pair()
            examples: dict[str, Example] = {}
            for _ in range(3 * self._config.questions):
                which = rng.randrange(2) if first != last else -1
                view = self._views.objects[last if which == 1 else first]
                asked = ask(view, SUFFIXES[which + 1], rng)
                if asked:
                    examples[asked.question] = Example(asked.question, asked.answer, asked.weight, asked.ordinal)
                if len(examples) == self._config.questions:
                    break
            if examples:
                return (first, last), list(examples.values())

    def _pair(self) -> tuple[int, int]:
        start, end = self._rng.choice(self._scenes)
        if end - start > 1 and self._rng.random() < self._config.pair_share:
            first, last = self._rng.sample(range(start, end), 2)
            return first, last
        view = self._rng.randrange(start, end)
        return view, view


@dataclass(frozen=True)
class Probe:
    """A perception question with its answer, about one or two images (indices into some views)."""

    kind: str
    views: tuple[int, ...]
    question: str
    answer: str


def probes(views: Views, per_kind: int, seed: int) -> list[Probe]:
    """Draw questions of every kind about single views and, as `where_second`, about the second of two."""
    rng = random.Random(seed)
    drawn: list[Probe] = []
    for kind in [*KINDS, "where_second"]:
        found = 0
        for _ in range(50 * per_kind):
            first, last = rng.randrange(len(views.objects)), rng.randrange(len(views.objects))
            second = kind == "where_second"
            asked = KINDS["where" if second else kind](
                views.objects[last if second else first], SUFFIXES[2 if second else 0], rng
            )
            if asked:
                drawn.append(Probe(kind, (first, last) if second else (first,), *asked))
                found += 1
            if found == per_kind:
                break
    return drawn


def answer_probes(student: StudentModel, views: Views, asked: Sequence[Probe], batch: int = 32) -> list[str]:
    """What a student says to each probe, with transformers' generate."""
    answers: list[str] = []
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        prompts = [Prompt(tuple(Image.fromarray(views.frames[i]) for i in p.views), p.question) for p in part]
        answers += [reply.text for reply in student.answer(prompts, max_new_tokens=12)]
    return answers


def score_probe(kind: str, answer: str, response: str) -> dict[str, float]:
    """Score a response: `overall` is the IoU for boxes and exact match else; `parsed` is 0 for a box that is none."""
    if not kind.startswith("where"):
        return {"overall": float(response == answer), "parsed": 1.0}
    try:
        return {"overall": iou(parse_box(answer), parse_box(response)), "parsed": 1.0}
    except InvalidInputError:
        return {"overall": 0.0, "parsed": 0.0}
