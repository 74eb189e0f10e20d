"""Recipes: what ships resolves, what is broken is refused by name, and a digest tells recipes apart."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.finetune.grpo.config import FinetuneGrpoConfig
from trainer.grpo.config import GrpoConfig
from trainer.recipes import load_recipe, recipe_names
from world2vlm.errors import InvalidInputError

NAMES = (
    "base-student", "demo", "forward-only", "inverse-only", "qwen2.5-vl-3b", "qwen2.5-vl-7b-world2vlm", "smoke",
    "tiny-grpo",
)  # fmt: skip


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_what_ships_is_known_by_name() -> None:
    assert tuple(recipe_names()) == NAMES


def test_every_recipe_resolves_to_a_digest_of_its_own() -> None:
    recipes = [load_recipe(name) for name in NAMES]
    assert len({recipe.digest for recipe in recipes}) == len(NAMES)
    assert [recipe.digest for recipe in recipes] == [load_recipe(name).digest for name in NAMES]
    assert all(recipe.description for recipe in recipes)


def test_the_published_hyperparameters_are_those_of_the_paper() -> None:
    finetune = load_recipe("qwen2.5-vl-7b-world2vlm").finetune
    assert finetune is not None
    assert (finetune.method, finetune.rank, finetune.alpha, finetune.targets) == ("lora", 256, 512, "all-linear")
    assert (finetune.learning_rate, finetune.schedule, finetune.warmup) == (1e-5, "cosine", 0.05)
    assert (finetune.epochs, finetune.weight_decay, finetune.betas) == (1, 0.1, (0.9, 0.95))
    assert finetune.freeze_vision


def test_so_are_those_of_its_grpo() -> None:
    recipe = load_recipe("qwen2.5-vl-7b-world2vlm")
    assert isinstance(recipe.grpo, FinetuneGrpoConfig)
    assert (recipe.grpo.group, recipe.grpo.kl_weight, recipe.grpo.learning_rate) == (4, 0.01, 1e-6)
    assert (recipe.grpo.reward, recipe.grpo.pool, recipe.grpo.steps * recipe.grpo.prompts) == ("world2vlm", 1000, 1000)
    assert recipe.grpo == FinetuneGrpoConfig()


def test_forward_and_inverse_tasks_share_out_the_eight() -> None:
    forward, inverse = (set(load_recipe(f"{name}-only").tasks) for name in ("forward", "inverse"))
    assert forward == {"A4", "D1", "D2", "D4"} and inverse == {"A1", "A2", "A3", "D3"}


def test_a_file_of_ones_own_sets_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    name = write(
        tmp_path, 'description = "Mine."\n[sft]\nsteps = 7\n[sft.optim]\nmuon_lr = 0.02\n[sft.tasks]\nA1 = 2\n'
    )
    recipe, demo = load_recipe(name), load_recipe("demo")
    assert recipe.name == "mine" and recipe.sft is not None and demo.sft is not None
    assert recipe.sft.optim.muon_lr == 0.02 and dict(recipe.sft.tasks) == {"A1": 2}
    assert replace(recipe.sft, steps=demo.sft.steps, optim=demo.sft.optim, tasks=demo.sft.tasks).clips == demo.sft.clips
    assert recipe.steps == 7


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[sft]\nsteps = 7\n", "description"),
        ('description = ""\n', "either .*sft"),
        ('description = ""\n[sft]\nstep = 7\n', r"sft\.step"),
        ('description = ""\n[sft]\nsteps = "many"\n', r"sft\.steps"),
        ('description = ""\n[sft.optim]\nlr = 7\n', r"sft\.optim\.lr"),
        ('description = ""\n[grpo]\nreward = "luck"\n', r"grpo\.reward"),
        ('description = ""\n[grpo]\nreward = "strict"\nentropy = 1.0\n', r"grpo\.entropy"),
        ('description = ""\n[sft]\nsteps = 0\n', r"sft\.steps"),
        ('description = ""\n[sft]\nreplay = 1.5\n', r"sft\.replay"),
        ('description = ""\n[sft.tasks]\nA9 = 1.0\n', r"sft\.tasks.*no such task: A9"),
        ('description = ""\n[sft.optim]\nmuon_lr = -1.0\n', r"sft\.optim\.muon_lr"),
        ('description = ""\n[grpo]\ngroup = 1\n', r"grpo\.group"),
        ('description = ""\n[grpo]\ntasks = ["A9"]\n', r"grpo\.tasks.*no such task: A9"),
        ('description = ""\n[finetune]\n', r"finetune\.model"),
        ('description = ""\n[finetune]\nmodel = "m"\nlr = 1.0\n', r"finetune\.lr"),
        ('description = ""\n[finetune]\nmodel = "m"\nrank = 0\n', "rank must be at least 1"),
        ('description = ""\n[finetune]\nmodel = "m"\n[sft]\n', "either"),
        ('description = ""\n[finetune]\nmodel = "m"\n[sft]\n[grpo]\n', "either"),
        ('description = ""\n[finetune]\nmodel = "m"\n[grpo]\nanchor = 3\n', r"grpo\.anchor"),
        ('description = ""\n[finetune]\nmodel = "m"\n[grpo]\nlearning_rate = 0.0\n', r"grpo\.learning_rate"),
        ('description = ""\n[grpo]\nlearning_rate = 1e-6\n', r"grpo\.learning_rate"),
        ('description = ""\n[base]\n[sft]\n', "either"),
        ('description = ""\n[base]\nclips = 0\n', r"base\.clips"),
        ('description = ""\n[base.training]\nfirst_seed = 1999999\nrooms = 2\nanchors = 1\n', "overlap"),
        ('description = ""\n[magic]\n', "magic"),
        ('description = ""\ntasks = ["A9"]\n[sft]\n', "no such task: A9"),
        ("[sft\n", "no TOML"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_a_broken_recipe_is_refused_with_what_is_wrong(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InvalidInputError, match=f"(?s)recipe mine.*{told}"):
        load_recipe(write(tmp_path, text))


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"unknown recipe 'mine'; known are base-student, demo, .*tiny-grpo"):
        load_recipe("mine")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_recipe(str(tmp_path / "none.toml"))


def test_steps_are_the_first_stages_and_seed_and_threads_are_all_stages() -> None:
    both = load_recipe("tiny-grpo")
    changed = both.adjusted(steps=5, seed=9, threads=3)
    assert both.sft and both.grpo and changed.sft and isinstance(changed.grpo, GrpoConfig)
    assert (changed.sft.steps, changed.grpo.steps) == (5, both.grpo.steps)
    assert (changed.sft.seed, changed.grpo.seed, changed.sft.threads, changed.grpo.threads) == (9, 9, 3, 3)
    assert both.adjusted() == both
    alone = replace(both, sft=None).adjusted(steps=5)
    assert alone.grpo is not None and alone.grpo.steps == 5 and alone.steps == 5
    base = load_recipe("base-student").adjusted(steps=5, seed=9).base
    assert base is not None and (base.steps, base.seed) == (5, 9)
    other = load_recipe("qwen2.5-vl-3b").adjusted(steps=5, seed=9, threads=3)
    assert other.finetune is not None and (other.finetune.steps, other.finetune.seed) == (5, 9)
    assert other.grpo == FinetuneGrpoConfig(seed=9)


def test_reading_a_recipe_needs_no_torch() -> None:
    code = "import sys; from trainer.recipes import load_recipe; load_recipe('demo'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
