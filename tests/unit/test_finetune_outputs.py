"""What a run writes: a full checkpoint with its processor, or an adapter that leaves its base alone."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests import finetune_kit
from tests.finetune_kit import Models, run, settings
from trainer.finetune.adapting import load
from world2vlm.records import TaskRecord

models, images, records = finetune_kit.models, finetune_kit.images, finetune_kit.records


def test_a_full_checkpoint_keeps_the_frozen_tower_and_is_trained_elsewhere(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    run(settings(models("qwen3_vl"), method="full"), records, images, tmp_path)
    before, after = load_file(models("qwen3_vl") / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(before) == set(after)
    seen = {name for name in before if "visual" in name}
    assert seen and all(torch.equal(before[name], after[name]) for name in seen)
    assert all(not torch.equal(before[name], after[name]) for name in set(before) - seen if "weight" in name)
    # It can be trained again, so its processor came along.
    assert run(settings(tmp_path, steps=1), records, images, tmp_path / "again")


def test_an_adapter_leaves_the_base_alone_and_changes_its_answers(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = models("idefics3")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run(settings(folder), records, images, tmp_path)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    names = list(load_file(tmp_path / "adapter_model.safetensors"))
    assert names and all("lora_" in name and ".text_model." in name for name in names)
    base: Any = AutoModelForImageTextToText.from_pretrained(folder)
    ids = torch.arange(20)[None]
    plain = base(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(base, tmp_path)(input_ids=ids).logits
    assert not torch.allclose(plain, adapted, atol=1e-3)


def test_the_tower_gets_adapters_where_it_is_not_frozen(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    run(settings(models("llava"), freeze_vision=False, targets=("q_proj",)), records, images, tmp_path)
    names = list(load_file(tmp_path / "adapter_model.safetensors"))
    assert any("vision_tower" in name for name in names) and all("q_proj" in name for name in names)


def test_bf16_learns_too(models: Models, records: list[TaskRecord], images: Path, tmp_path: Path) -> None:
    losses = run(settings(models("qwen2_5_vl"), dtype="bf16", learning_rate=5e-2), records, images, tmp_path)
    assert losses[-1] < 0.8 * losses[0]
    assert all(value.dtype == torch.float32 for value in load_file(tmp_path / "adapter_model.safetensors").values())


def test_a_full_checkpoint_of_bf16_is_loaded_as_bf16(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    run(settings(models("qwen3_vl"), method="full", dtype="bf16", steps=1), records, images, tmp_path)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_qlora_learns_on_weights_of_four_bits(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    config = settings(models("qwen2_5_vl"), method="qlora", dtype="bf16", learning_rate=5e-2, steps=8)
    names = {name for name, module in load(config).model.named_modules() if type(module).__name__ == "Linear4bit"}
    assert len(names) == 2 * 7 and all(".language_model." in name for name in names)
    losses = run(config, records, images, tmp_path)
    assert losses[-1] < 0.8 * losses[0]
    assert {path.name for path in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
