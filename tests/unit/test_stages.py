"""A recipe's stages, and the command that trains by one outside of a round."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.dataset_kit import toy_dataset, toy_records
from tests.finetune_kit import make_qwen25
from tests.vlm_kit import student
from trainer import cli
from trainer.distilling import train_and_publish
from trainer.grpo.config import GrpoConfig
from trainer.recipes import Recipe, load_recipe
from trainer.sft_config import SftConfig
from trainer.stages import train_student
from trainer.tracking import Tracking
from world2vlm.base_student import BASE_STUDENT
from world2vlm.checkpoints import Registry
from world2vlm.datasets import publish_dataset
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.records import TaskRecord
from world2vlm.store import Store

BOTH = Recipe(
    "both",
    "",
    sft=SftConfig(steps=3, clips=2, questions=2, replay=0.0, snapshot_every=1, threads=1),
    grpo=GrpoConfig(steps=2, prompts=2, group=2, anchor=1, snapshot_every=1, threads=1),
)


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


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    one, two = weights(first), weights(second)
    return all(torch.equal(one[name], two[name]) for name in one)


def test_stages_follow_each_other_and_tell_one_progress(
    base: Path, records: list[TaskRecord], bundles: Path, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    out, metrics = train_student(
        BOTH, base, records, bundles, tmp_path, lambda step, steps, _: told.append((step, steps))
    )
    assert told == [(step, 5) for step in range(1, 6)]
    assert {"sft_loss", "grpo_reward", "grpo_kl"} <= set(metrics)
    assert not same(base, tmp_path / "sft") and not same(tmp_path / "sft", out)


def test_a_stage_that_ended_is_not_run_again(
    base: Path, records: list[TaskRecord], bundles: Path, tmp_path: Path
) -> None:
    whole, metrics = train_student(BOTH, base, records, bundles, tmp_path / "whole")

    def die(step: int, _steps: int, _figures: dict[str, float]) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(BOTH, base, records, bundles, tmp_path / "killed", die)
    told: list[int] = []
    out, again = train_student(
        BOTH, base, records, bundles, tmp_path / "killed", lambda step, _steps, _figures: told.append(step)
    )
    # The step at which it was killed had no snapshot yet.
    assert told == [4, 5]
    assert again == metrics and same(out, whole)


def test_a_recipe_may_use_some_tasks_alone(
    base: Path, records: list[TaskRecord], bundles: Path, tmp_path: Path
) -> None:
    inverse = replace(BOTH, tasks=("A1", "A2", "A3", "D3"), grpo=None)
    alone, _ = train_student(inverse, base, records, bundles, tmp_path / "alone")
    filtered = [record for record in records if record.task_type == "A2"]
    same_records, _ = train_student(replace(BOTH, grpo=None), base, filtered, bundles, tmp_path / "filtered")
    assert same(alone, same_records)


def test_data_that_cannot_be_trained_on_is_refused(
    base: Path, records: list[TaskRecord], bundles: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="no record that recipe both trains on"):
        train_student(BOTH, base, [], bundles, tmp_path)
    with pytest.raises(InvalidInputError, match="no record that recipe both trains on"):
        train_student(replace(BOTH, tasks=("A1",)), base, records, bundles, tmp_path)
    lost = replace(records[0], images=("scenes/none.png", records[0].images[1]))
    with pytest.raises(InvalidInputError, match=r"the image .*scenes/none\.png of a record cannot be read"):
        train_student(BOTH, base, [lost], bundles, tmp_path)


def test_a_recipe_for_another_model_trains_no_built_in_student(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(InvalidInputError, match=r"qwen2\.5-vl-7b-world2vlm is not for the student that serves"):
        train_and_publish(
            load_recipe("qwen2.5-vl-7b-world2vlm"),
            Registry(store, "student"),
            toy_dataset(store),
            parent=1,
            bundles=store.local("bundles"),
            work=tmp_path / "work",
            key="key",
            run="run",
            tracking=Tracking(),
            on_progress=lambda step, steps, figures: None,
        )


class Commands:
    """The trainer's commands on a store of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("WORLD2VLM_STORE", str(folder / "store"))
        monkeypatch.setenv("WORLD2VLM_THREADS", "1")
        self.store = Store(folder / "store")
        self.registry = Registry(self.store, "student")
        self._app = typer.Typer()
        cli.register(self._app, typer.Typer())

    def run(self, *arguments: str) -> str:
        result = CliRunner().invoke(self._app, ["train", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    def train(self, *arguments: str) -> dict[str, object]:
        return dict(json.loads(self.run(*arguments)))


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(tmp_path, monkeypatch)


def test_a_dry_run_tells_what_it_would_take_and_trains_nothing(commands: Commands) -> None:
    told = commands.train("--recipe", "tiny-grpo", "--steps", "10", "--dry-run")
    recipe, estimate = told["recipe"], told["estimate"]
    assert isinstance(recipe, dict) and isinstance(estimate, dict)
    assert recipe["digest"] == load_recipe("tiny-grpo").adjusted(steps=10, threads=1).digest
    assert estimate["steps"] == 10 + GrpoConfig.steps
    assert estimate["parameters"] == sum(map(torch.Tensor.numel, weights(BASE_STUDENT).values()))
    assert estimate["memory_mb"] == pytest.approx(5 * 4 * estimate["parameters"] / 1e6)
    assert commands.registry.list() == []


def test_it_publishes_a_child_once_and_curves_and_the_recipe_with_it(commands: Commands) -> None:
    dataset = toy_dataset(commands.store)
    trained = commands.train("--recipe", "smoke", "--steps", "2")
    assert (trained["version"], trained["parent"], trained["recipe"]) == (2, 1, "smoke")
    manifest = commands.registry.get(2)
    assert manifest.dataset_digest == dataset.digest and manifest.recipe == "smoke"
    assert {"recipe.json", "README.md", "calibration.json"} <= set(manifest.files)
    assert commands.registry.serving() is None
    assert commands.train("--recipe", "smoke", "--steps", "2")["version"] == 2
    other = commands.train("--recipe", "smoke", "--steps", "2", "--seed", "5", "--parent", "2")
    assert (other["version"], other["parent"]) == (3, 2)
    assert (commands.store.local("tracking")).is_dir()


def test_what_cannot_be_trained_is_said(commands: Commands, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="the store has 0"):
        commands.train("--recipe", "smoke")
    with pytest.raises(InvalidInputError, match="name a folder with --out"):
        commands.train("--recipe", "qwen2.5-vl-3b")
    with pytest.raises(InvalidInputError, match="--out and --replay are for"):
        commands.train("--recipe", "smoke", "--out", str(tmp_path / "out"))


def test_any_model_is_fine_tuned_into_a_folder(commands: Commands, tmp_path: Path) -> None:
    make_qwen25(tmp_path / "model")
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f'description = "Mine."\ntasks = ["A2", "D2"]\n[finetune]\nmodel = "{tmp_path / "model"}"\n'
        'rank = 2\nalpha = 4\nrow_tokens = 256\naccumulation = 1\nreplay = 0.5\ndtype = "float32"\n'
    )
    first = toy_dataset(commands.store)
    records = toy_records(commands.store.local("bundles"), 4, seed=7)
    second = publish_dataset(commands.store, {"train": records}, {})
    arguments = ["--recipe", str(recipe), "--dataset", second.digest]
    told = commands.run(*arguments, "--dry-run")
    assert json.loads(told)["estimate"]["trainable"] > 0
    commands.run(*arguments, "--replay", first.digest, "--out", str(tmp_path / "out"))
    written = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert {"adapter_config.json", "adapter_model.safetensors", "recipe.json"} <= written
    assert (commands.store.local("tracking") / f"mine-{load_recipe(str(recipe)).digest[:12]}").is_dir()
    with pytest.raises(InvalidInputError, match="replay"):
        commands.run(*arguments, "--out", str(tmp_path / "other"))


def test_grpo_follows_the_fine_tuning_of_any_model(commands: Commands, tmp_path: Path) -> None:
    make_qwen25(tmp_path / "model")
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f'description = "Mine."\n[finetune]\nmodel = "{tmp_path / "model"}"\nsteps = 2\nrank = 2\nalpha = 4\n'
        'row_tokens = 512\ndtype = "float32"\n[grpo]\nsteps = 3\nprompts = 2\ntasks = ["A2", "D2"]\n'
    )
    toy_dataset(commands.store)
    estimate = json.loads(commands.run("--recipe", str(recipe), "--dry-run"))["estimate"]
    assert estimate["steps"] == 5
    assert estimate["reference_gb"] == pytest.approx(4 * estimate["trainable"] / 1e9)
    commands.run("--recipe", str(recipe), "--out", str(tmp_path / "out"))
    for name in ("out", "out-sft"):
        assert (tmp_path / name / "adapter_model.safetensors").exists()
    assert json.loads((tmp_path / "out" / "recipe.json").read_bytes())["grpo"]["group"] == 4
