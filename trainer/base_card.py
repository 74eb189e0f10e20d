"""The card of a base student: how it was made, what it can do with what certainty, and what it was never shown."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from trainer.base_config import BaseConfig
from trainer.base_student import Probe, answer_probes, probes, score_probe
from trainer.evaluation import Scored, summarise
from trainer.views import Views
from world2vlm import __version__
from world2vlm.files import sha256_file, write_atomically
from world2vlm.records import TaskRecord
from world2vlm.vlm import StudentModel

CARD = "card.json"
WEIGHTS = "model.safetensors"
NEVER_SHOWN = (
    "camera motion: every view is an anchor's own; pairs of views of a room come in random order, and no question "
    "says how the camera got from one to the other",
    "the eight tasks A1-A4 and D1-D4",
    "actions, distances in metres and angles in degrees",
    "photographs",
    "the rooms that it is probed on",
)


def write_card(
    folder: Path,
    config: BaseConfig,
    data_params: Mapping[str, Any],
    student: StudentModel,
    views: Views,
    seed: int,
    per_kind: int = 200,
) -> dict[str, Any]:
    """Probe a base student and write `card.json` beside its weights.

    Args:
        folder: the checkpoint's folder; holds `model.safetensors`.
        config: the recipe it was trained with.
        data_params: what its training views and the held-out ones are: seeds, rooms, anchors, the teacher's world.
        student: the checkpoint, loaded.
        views: held-out views to probe it on.
        seed: chooses the questions.
        per_kind: questions of each kind.

    Returns:
        The card: `name`, `weights` (sha256, bytes, parameters), `recipe`, `data`, `probes` (by kind `score`, `n`,
        `low`, `high`, `skill` and `baselines`), `versions`, `never_shown`. Intervals are 95% bootstraps over rooms.
    """
    asked = probes(views, per_kind, seed)
    scored = _score(asked, answer_probes(student, views, asked), views)
    baselines = guesses(asked)
    summary = summarise(scored, baselines, seed)
    weights = folder / WEIGHTS
    card = {
        "name": "base-student",
        "weights": {
            "sha256": sha256_file(weights),
            "bytes": weights.stat().st_size,
            "parameters": sum(weight.numel() for weight in student.model.parameters()),
        },
        "recipe": asdict(config),
        "data": dict(data_params),
        "probes": {
            "seed": seed,
            "views": len(views.objects),
            "rooms": len(np.unique(views.scenes)),
            "kinds": {kind: {**summary[kind], "baselines": baselines[kind]} for kind in baselines},
        },
        "versions": {
            "world2vlm": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "never_shown": list(NEVER_SHOWN),
    }
    write_atomically(folder / CARD, json.dumps(card, indent=2).encode() + b"\n")
    return card


def guesses(asked: Sequence[Probe]) -> dict[str, dict[str, float]]:
    """What blind guessing reaches, by kind.

    `chance` answers as the true answers are distributed; `constant` always gives the one of them that scores best on
    these very questions.
    """
    found: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys(probe.kind for probe in asked):
        answers = [probe.answer for probe in asked if probe.kind == kind]
        scores = [np.mean([score_probe(kind, truth, guess)["overall"] for truth in answers]) for guess in answers]
        found[kind] = {"chance": float(np.mean(scores)), "constant": float(max(scores))}
    return found


def _score(asked: Sequence[Probe], responses: Sequence[str], views: Views) -> list[Scored]:
    return [
        Scored(_record(probe, views), response, score_probe(probe.kind, probe.answer, response))
        for probe, response in zip(asked, responses, strict=True)
    ]


def _record(probe: Probe, views: Views) -> TaskRecord:
    scene = int(views.scenes[probe.views[-1]])
    return TaskRecord.create(probe.kind, probe.question, probe.answer, list(map(str, probe.views)), {"scene": scene})
