"""What stops a fine-tuning run, and what it says and leaves behind."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests import finetune_kit
from tests.finetune_kit import Killed, make_llava, make_records, run, settings
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.plan import Size, plan_steps, record_weight
from trainer.finetune.training import train
from world2vlm.errors import DivergedError, InvalidInputError, PreconditionError, UnavailableError
from world2vlm.records import TaskRecord


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llava")
    make_llava(made)
    return made


images = finetune_kit.images


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_snapshot(
    folder: Path, images: Path, tmp_path: Path
) -> None:
    config, records = settings(folder, method="full"), make_records(images, 6)
    with pytest.raises(Killed):
        run(config, records, images, tmp_path, 3)
    path = tmp_path / "snapshot.safetensors"
    tensors, good = load_file(path), path.read_bytes()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    name = next(name for name in tensors if name.endswith("embed_tokens.weight") and not name.startswith("optimizer"))
    save_file({**tensors, name: tensors[name] * torch.nan}, path, metadata=metadata)
    poisoned = path.read_bytes()
    with pytest.raises(DivergedError, match="step 3 of 6: the loss is nan"):
        train(config, records, images, tmp_path)
    assert path.read_bytes() == poisoned and not (tmp_path / "model.safetensors").exists()
    path.write_bytes(good)
    assert train(config, records, images, tmp_path)["loss"] > 0


def test_out_of_memory_says_what_to_lower(folder: Path, images: Path, tmp_path: Path) -> None:
    def exhausted(step: int, steps: int, figures: dict[str, float]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(PreconditionError, match=r"lower row_tokens \(now 160.*rank \(now 4"):
        train(settings(folder), make_records(images, 2), images, tmp_path, exhausted)


def test_bad_input_is_named(folder: Path, images: Path, tmp_path: Path) -> None:
    records = make_records(images, 2)
    (images / "broken.png").write_bytes(b"no picture")
    cases: list[tuple[FinetuneConfig, list[TaskRecord], str]] = [
        (settings(folder), [], "no records"),
        (settings(folder), [TaskRecord.create("D2", "so?", "yes", ["gone.png"])], "gone.png"),
        (settings(folder), [TaskRecord.create("D2", "so?", "yes", ["broken.png"])], r"broken\.png"),
        (settings(folder), [TaskRecord.create("D2", "so? </s>", "yes", ["0.png"])], "control token </s>"),
        (settings(folder, row_tokens=20), records, "raise row_tokens"),
        (settings(folder, replay=0.5), records, "there are none"),
        (settings(folder, targets=("nothing",)), records, "no linear layer"),
        (settings(folder, lambda_forward=0.0, lambda_inverse=0.0), records, "weighs nothing"),
        (settings(folder), [TaskRecord.create("D2", "?", "no", ["0.png"], {"weight": -1})], "weight"),
        (settings(tmp_path / "nowhere"), records, "nowhere"),
    ]
    for config, given, expected in cases:
        with pytest.raises(InvalidInputError, match=expected):
            train(config, given, images, tmp_path / "out")


def test_an_unknown_family_is_refused(folder: Path, images: Path, tmp_path: Path) -> None:
    text = (folder / "config.json").read_text().replace('"model_type": "llava"', '"model_type": "vipllava"')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidInputError, match="'vipllava' cannot be fine-tuned"):
        train(settings(tmp_path), make_records(images, 2), images, tmp_path / "out")


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_qlora_names_the_missing_package(folder: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="bitsandbytes"):
        train(settings(folder, method="qlora", dtype="bf16"), make_records(images, 2), images, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "magic"}, {"rank": 0}, {"dropout": 1.0}, {"warmup": -0.1}, {"betas": (0.9,)}, {"targets": "q_proj"},
        {"targets": ()}, {"steps": 0}, {"learning_rate": 0.0}, {"schedule": "steps"}, {"row_tokens": 0},
        {"replay": 1.0}, {"dtype": "float16"}, {"method": "qlora", "dtype": "float32"}, {"lambda_forward": -1.0},
        {"model": ""},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="|".join(changes)):
        FinetuneConfig(**{"model": "model", **changes})


def test_weights_are_reliability_times_direction() -> None:
    config = FinetuneConfig("model", lambda_forward=0.5, lambda_inverse=2.0)
    forward = TaskRecord.create("D4", "?", "no", [], {"weight": 0.5})
    inverse, other = TaskRecord.create("D3", "?", "no", []), TaskRecord.create("ground", "?", "no", [])
    assert [record_weight(config, record) for record in (forward, inverse, other)] == [0.25, 2.0, 1.0]


def test_every_epoch_shows_each_record_once_and_replays_a_share() -> None:
    config = FinetuneConfig("model", epochs=3, row_tokens=50, accumulation=2, replay=0.2, seed=4)
    sizes = [Size(10 + index % 7, 2, 1 + index % 2) for index in range(40)] + [Size(12, 3)] * 5
    steps = plan_steps(config, sizes, 40, world=3)
    shown = [index for step in steps for row in step.rows for index in row]
    assert sorted(index for index in shown if index < 40) == sorted([*range(40)] * 3)
    assert len([index for index in shown if index >= 40]) == 3 * 10
    assert all(sum(sizes[index].tokens for index in row) <= 50 for step in steps for row in step.rows)
    for step in steps:
        assert step.total == sum(sizes[i].weight * sizes[i].answer_tokens for row in step.rows for i in row)
        mine = [step.of_process(rank, 3) for rank in range(3)]
        assert len({len(rows) for rows in mine}) == 1 and len(mine[0]) <= 2
        assert sorted(row for rows in mine for row in rows if row) == sorted(step.rows)
    assert plan_steps(config, sizes, 40, world=3) == steps
