"""Base pre-training: it runs, saves and is reproducible; its questions, probes and card say what they should."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.vlm_kit import TINY, toy_views
from trainer.base_card import NEVER_SHOWN, guesses, write_card
from trainer.base_config import BaseConfig
from trainer.base_student import ClipSampler, Probe, answer_probes, pretrain, probes, score_probe
from trainer.optim_config import OptimConfig
from trainer.perception import KINDS
from trainer.recipes import load_recipe
from world2vlm.base_student import BASE_STUDENT
from world2vlm.files import sha256_file
from world2vlm.vlm import Generation, Prompt, StudentModel
from world2vlm.vlm.tokenizer import build_tokenizer

VIEWS = toy_views(4)
CONFIG = BaseConfig(
    steps=6, dense_only_steps=2, clips=4, questions=3, student=TINY, optim=OptimConfig(warmup=2, cooldown=0.4)
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("base")
    pretrain(CONFIG, VIEWS, out, lambda step, steps, means: None)
    return out


def test_it_trains_and_saves_a_student(trained: Path, tmp_path: Path) -> None:
    student = StudentModel.load(trained)
    assert student.processor.frame_size == TINY.frame_size
    again: list[tuple[int, int, dict[str, float]]] = []
    pretrain(CONFIG, VIEWS, tmp_path, lambda *figures: again.append(figures))
    assert [(step, steps) for step, steps, _ in again] == [(step, 6) for step in range(1, 7)]
    assert [sorted(means) for _, _, means in again] == [["colour", "dense"]] * 2 + [["answers", "colour", "dense"]] * 4
    # The same seed, the same student; and the dense head is thrown away.
    assert (tmp_path / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert not [name for name in load_file(trained / "model.safetensors") if "auxiliary" in name]


def test_it_learns_to_see(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=40, dense_only_steps=40, clips=8, optim=OptimConfig(adam_lr=5e-3, warmup=5))
    dense: list[float] = []
    pretrain(config, VIEWS, tmp_path, lambda step, steps, means: dense.append(means["dense"]))
    assert dense[-1] < 0.7 * dense[0]


def test_it_is_saved_on_the_way(tmp_path: Path) -> None:
    there: list[bool] = []

    def on_progress(step: int, steps: int, means: dict[str, float]) -> None:
        there.append((tmp_path / "model.safetensors").exists())

    pretrain(replace(CONFIG, steps=4, dense_only_steps=4), VIEWS, tmp_path, on_progress, save_every=2)
    assert there == [False, False, True, True]


def test_clips_are_single_views_or_two_views_of_one_room() -> None:
    sampler = ClipSampler(VIEWS, replace(CONFIG, clips=100))
    pairs, rows = sampler.batch()
    assert pairs.shape == (100, 2) and len(rows) == 100
    assert np.array_equal(VIEWS.scenes[pairs[:, 0]], VIEWS.scenes[pairs[:, 1]])
    single = pairs[:, 0] == pairs[:, 1]
    assert 30 <= single.sum() <= 70
    orders = Counter(int(np.sign(last - first)) for first, last in pairs[~single])
    assert orders[1] > 10 and orders[-1] > 10  # in no order that a motion would have
    for (first, last), examples in zip(pairs.tolist(), rows, strict=True):
        assert 1 <= len(examples) <= CONFIG.questions
        for example in examples:
            assert ("image" in example.question) is (first != last)
            names = re.findall(r"(red|green|blue|yellow) (chair|table|lamp)", example.question)
            if example.answer != "no" and names:
                view = last if "second" in example.question else first
                shown = {(seen.colour, seen.category) for seen in VIEWS.objects[view]}
                assert set(names) <= shown


def test_rooms_with_one_view_give_single_views() -> None:
    sampler = ClipSampler(toy_views(3, per_scene=1), replace(CONFIG, clips=50, pair_share=1.0))
    pairs, _ = sampler.batch()
    assert np.array_equal(pairs[:, 0], pairs[:, 1])


def test_the_sampler_depends_on_its_seed_alone() -> None:
    first, second, other = (ClipSampler(VIEWS, replace(CONFIG, seed=seed)) for seed in (3, 3, 4))
    for _ in range(3):
        (pairs, rows), (same_pairs, same_rows) = first.batch(), second.batch()
        assert np.array_equal(pairs, same_pairs) and rows == same_rows
    assert not np.array_equal(first.batch()[0], other.batch()[0])


def test_probes_are_of_every_kind_and_reproducible() -> None:
    asked = probes(VIEWS, 5, seed=1)
    assert Counter(probe.kind for probe in asked) == {kind: 5 for kind in [*KINDS, "where_second"]}
    assert asked == probes(VIEWS, 5, seed=1) != probes(VIEWS, 5, seed=2)
    for probe in asked:
        assert len(probe.views) == (2 if probe.kind == "where_second" else 1)
        if probe.kind.startswith("where"):
            assert probe.answer in {str(seen.box) for seen in VIEWS.objects[probe.views[-1]]}


class Oracle:
    """Answers from the truth: what a perfect student would say."""

    def __init__(self, asked: Sequence[Probe]) -> None:
        self._answers = {
            (probe.question, len(probe.views), VIEWS.frames[probe.views[-1]].tobytes()): probe.answer for probe in asked
        }

    def answer(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Generation]:
        keys = ((prompt.text, len(prompt.images), prompt.images[-1].tobytes()) for prompt in prompts)
        return [Generation(self._answers[key], 1.0, 1, 1) for key in keys]


def test_probes_reach_the_student_with_their_own_images() -> None:
    asked = probes(VIEWS, 5, seed=1)
    said = answer_probes(Oracle(asked), VIEWS, asked, batch=4)
    assert said == [probe.answer for probe in asked]
    assert all(
        score_probe(probe.kind, probe.answer, text)["overall"] == 1.0 for probe, text in zip(asked, said, strict=True)
    )


def test_scores_by_hand() -> None:
    assert score_probe("where", "[0, 0, 100, 100]", "[0, 0, 100, 50]") == {"overall": 0.5, "parsed": 1.0}
    assert score_probe("where_second", "[0, 0, 100, 100]", "[0, 0, 100") == {"overall": 0.0, "parsed": 0.0}
    assert score_probe("what", "red chair", "red chair")["overall"] == 1.0
    assert score_probe("count", "1", "11")["overall"] == 0.0


def test_guessing_by_hand() -> None:
    asked = [Probe("exists", (0,), "?", answer) for answer in ("yes", "yes", "yes", "no")]
    asked += [Probe("where", (0,), "?", box) for box in ("[0, 0, 100, 100]", "[0, 0, 100, 50]")]
    assert guesses(asked) == {
        "exists": {"chance": 0.75**2 + 0.25**2, "constant": 0.75},
        "where": {"chance": 0.75, "constant": 0.75},
    }


def test_the_card_says_how_it_was_made_and_what_it_can_do(trained: Path) -> None:
    student = StudentModel.load(trained)
    data = {"training": {"first_seed": 0, "rooms": 4}}
    card = write_card(trained, CONFIG, data, student, VIEWS, seed=0, per_kind=6)
    assert json.loads((trained / "card.json").read_text()) == json.loads(json.dumps(card))
    assert card["weights"]["sha256"] == sha256_file(trained / "model.safetensors")
    assert card["weights"]["parameters"] == sum(weight.numel() for weight in student.model.parameters())
    assert card["recipe"] == asdict(CONFIG) and card["recipe"]["student"]["frame_size"] == 32
    assert card["data"] == data
    assert card["never_shown"] == list(NEVER_SHOWN) and "motion" in card["never_shown"][0]
    assert set(card["versions"]) == {"world2vlm", "python", "torch", "transformers"}
    assert (card["probes"]["rooms"], card["probes"]["views"]) == (4, 8)
    kinds = card["probes"]["kinds"]
    assert set(kinds) == {*KINDS, "where_second"}
    for figures in kinds.values():
        assert figures["n"] == 6
        assert 0 <= figures["low"] <= figures["score"] <= figures["high"] <= 1
        assert 0 < figures["baselines"]["chance"] <= figures["baselines"]["constant"] <= 1
    asked = probes(VIEWS, 6, seed=0)
    said = answer_probes(student, VIEWS, asked)
    what = [
        score_probe(p.kind, p.answer, text)["overall"]
        for p, text in zip(asked, said, strict=True)
        if p.kind == "exists"
    ]
    assert kinds["exists"]["score"] == pytest.approx(sum(what) / 6)


def test_the_student_that_ships_is_the_one_on_its_card() -> None:
    card = json.loads((BASE_STUDENT / "card.json").read_text())
    assert card["weights"]["sha256"] == sha256_file(BASE_STUDENT / "model.safetensors")
    student = StudentModel.load(BASE_STUDENT)
    # Whoever trains by the recipe makes this student again.
    recipe = load_recipe("base-student").base
    assert recipe is not None
    assert card["recipe"] == {key: value for key, value in asdict(recipe).items() if key in card["recipe"]}
    assert {**card["data"]["training"], **asdict(recipe.training)} == card["data"]["training"]
    assert card["data"]["held_out"] == asdict(recipe.held_out)
    assert student.processor.frame_size == card["recipe"]["student"]["frame_size"]
    # Today's vocabulary is still the one it was trained with.
    assert student.processor.tokenizer.get_vocab() == build_tokenizer().get_vocab()
    kinds = card["probes"]["kinds"]
    assert set(kinds) == {*KINDS, "where_second"}
    for kind in ("where", "what", "exists", "left_of", "side"):
        assert kinds[kind]["low"] > max(kinds[kind]["baselines"].values()), f"{kind} is no better than guessing"
    assert sum(path.stat().st_size for path in BASE_STUDENT.iterdir()) < 20_000_000
