"""Calibration: a temperature repairs what is too sure, and the error says what it should."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.vlm_kit import TINY, noise, student
from trainer.calibration import GRID, fit_temperatures, measure_calibration, negative_log_likelihood, reliability
from world2vlm.files import write_atomically
from world2vlm.images import encode_png
from world2vlm.records import TaskRecord
from world2vlm.tasks import Question
from world2vlm.vlm import Prompt, StudentModel


def test_the_error_of_known_probabilities() -> None:
    certain = np.ones(40)
    right = np.arange(40) % 4 != 0
    figures = reliability(certain, right)
    assert figures["ece"] == pytest.approx(0.25)
    assert sum(entry["n"] for entry in figures["bins"]) == 40
    assert reliability(np.full(40, 0.75), right)["ece"] == pytest.approx(0.0, abs=0.08)


def test_the_likelihood_is_best_at_the_true_share() -> None:
    right = np.arange(100) < 80
    losses = [negative_log_likelihood(np.full(100, p), right) for p in (0.5, 0.7, 0.8, 0.9, 1.0)]
    assert int(np.argmin(losses)) == 2


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    for number in range(8):
        write_atomically(tmp_path / f"{number}.png", encode_png(np.asarray(noise(number, 32, 32))))
    return tmp_path


def records(model: StudentModel, bundles: Path, share_right: float) -> list[TaskRecord]:
    """Questions of A2 that the student answers rightly in a known share."""
    pairs = [(f"{i}.png", f"{j}.png") for i in range(8) for j in range(8) if i != j]
    question = Question("A2")
    prompts = [Prompt(tuple(noise(int(name[0]), 32, 32) for name in pair), question.text, "A2") for pair in pairs]
    said = [reply.text for reply in model.answer(prompts)]
    right = round(share_right * len(pairs))
    answers = said[:right] + [_opposite(text) for text in said[right:]]
    return [
        TaskRecord.create("A2", question.text, text, pair, {"scene": "s"})
        for pair, text in zip(pairs, answers, strict=True)
    ]


def _opposite(text: str) -> str:
    return text.replace("left", "right") if "left" in text else text.replace("right", "left")


def test_a_student_that_is_too_sure_gets_a_temperature_above_one_and_a_smaller_error(bundles: Path) -> None:
    model = student(0, TINY)
    # Sharper logits (in a head of its own: the student's is tied to its embeddings) make it all but certain.
    head = torch.nn.Linear(*reversed(model.model.lm_head.weight.shape), bias=False)
    head.weight.data = 1000 * model.model.lm_head.weight.detach()
    model.model.lm_head = head
    asked = records(model, bundles, 0.5)
    model.temperatures = fit_temperatures(model, asked, bundles)
    assert set(model.temperatures) == {"motion"}
    assert model.temperatures["motion"] > 1.5 and model.temperatures["motion"] in GRID
    figures = measure_calibration(model, asked, bundles)["motion"]
    assert figures["n"] == len(asked) and figures["temperature"] == model.temperatures["motion"]
    assert figures["after"]["ece"] < figures["before"]["ece"]


def test_boxes_are_not_calibrated(bundles: Path) -> None:
    model = student(0, TINY)
    box = TaskRecord.create("D1", "where?", "[1, 2, 3, 4]", ["0.png", "1.png"], {"scene": "s"})
    assert fit_temperatures(model, [box], bundles) == {}
