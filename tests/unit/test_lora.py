"""LoRA checkpoints: merged exactly as PEFT merges them, or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tests.lora_kit import TARGETS, make_adapter
from tests.student_kit import picture, tiny_student
from world2vlm.errors import InvalidInputError
from world2vlm.vlm import Prompt, StudentModel
from world2vlm.vlm.lora import merge, write_merged
from world2vlm.vlm.student import write_calibration

QUESTIONS = ("Where is the red chair?", "Is there a blue sofa?", "How many tables are on the left?")


def answers(student: StudentModel) -> list[tuple[str, float]]:
    prompts = [Prompt((picture(),), question) for question in QUESTIONS]
    return [(generation.text, generation.probability) for generation in student.answer(prompts, 8)]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"qkv": 3}},
        {"use_rslora": True},
        {"use_dora": True},
        {"target_modules": r".*language_model.*\.(q|k)_proj", "layers_to_transform": None},
        {"modules_to_save": ["merger"]},
    ],
    ids=["plain", "patterns", "rslora", "dora", "expression", "modules to save"],
)
def test_the_merged_student_is_the_one_that_peft_merges(tmp_path: Path, config: dict[str, Any]) -> None:
    expected = make_adapter(tmp_path / "adapter", tiny_student(), **config)
    write_merged(tiny_student(), tmp_path / "adapter", tmp_path / "merged")
    merged = StudentModel.load(tmp_path / "merged")
    weights, others = merged.model.state_dict(), expected.model.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert answers(merged) == answers(expected) != answers(StudentModel.load(tiny_student()))
    assert not (tmp_path / "merged/adapter_config.json").exists()


def test_the_merged_student_answers_as_the_adapter_beside_its_parent(tmp_path: Path) -> None:
    make_adapter(tmp_path, tiny_student())
    student = StudentModel.load(tiny_student())
    adapted: Any = get_peft_model(student.model, LoraConfig.from_pretrained(tmp_path))  # type: ignore[arg-type]
    adapted.load_adapter(tmp_path, "default")
    beside = StudentModel(adapted.eval().base_model.model, student.processor)
    for (text, probability), (other, another) in zip(
        answers(merge(tiny_student(), tmp_path)), answers(beside), strict=True
    ):
        assert text == other and probability == pytest.approx(another, rel=1e-3)


def test_the_adapters_calibration_counts_and_not_the_parents(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    shutil.copytree(tiny_student(), parent)
    make_adapter(tmp_path / "adapter", parent)
    write_calibration(parent, {"binary": 3.0})
    write_merged(parent, tmp_path / "adapter", tmp_path / "one")
    assert StudentModel.load(tmp_path / "one").temperatures == {}
    write_calibration(tmp_path / "adapter", {"binary": 2.0})
    write_merged(parent, tmp_path / "adapter", tmp_path / "two")
    assert StudentModel.load(tmp_path / "two").temperatures == {"binary": 2.0}


def configure(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def reweigh(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        weights = load_file(folder / "adapter_model.safetensors")
        change(weights)
        save_file(weights, folder / "adapter_model.safetensors")

    return rewrite


def rename(weights: dict[str, torch.Tensor], old: str, new: str) -> None:
    name = next(name for name in weights if old in name)
    weights[name.replace(old, new)] = weights.pop(name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "no LoRA adapter"),
        (configure(peft_type="IA3"), "no LoRA adapter"),
        (configure(init_lora_weights="pissa"), "init_lora_weights='pissa'"),
        (configure(megatron_config={"a": 1}, megatron_core="os"), "megatron_config"),
        (configure(layer_replication=[[0, 1]]), "layer_replication"),
        (configure(surprise=1), "surprise"),
        (configure(r=2), "does not fit"),
        (configure(r=0), "positive integer"),
        (configure(r="many"), "does not fit"),
        (configure(target_modules=["nowhere"]), "does not fit"),
        (configure(target_modules=[*TARGETS, "o_proj"]), "does not fit"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"pickle"), "adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (reweigh(lambda weights: rename(weights, "v_proj", "x_proj")), "does not fit"),
        (reweigh(lambda weights: weights.popitem()), "does not fit"),
        (reweigh(lambda weights: next(iter(weights.values())).fill_(torch.nan)), "not finite"),
        (reweigh(lambda weights: rename(weights, "language_model.layers.0.mlp.down_proj", "lm_head")), "twice"),
    ],
)
def test_what_cannot_be_merged_exactly_is_refused(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    make_adapter(tmp_path, tiny_student())
    spoil(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        merge(tiny_student(), tmp_path)


def test_an_adapter_for_other_sizes_is_refused(tmp_path: Path) -> None:
    from world2vlm.vlm import StudentConfig, build_student

    wide = StudentConfig(frame_size=32, patch_size=8, merge_size=2, vision_layers=1, text_layers=1, text_width=64)
    build_student(wide, 0).save(tmp_path / "wide")
    make_adapter(tmp_path / "adapter", tmp_path / "wide")
    with pytest.raises(InvalidInputError, match="does not fit"):
        merge(tiny_student(), tmp_path / "adapter")


def test_no_path_in_the_config_is_looked_up(tmp_path: Path) -> None:
    make_adapter(tmp_path, tiny_student())
    expected = answers(merge(tiny_student(), tmp_path))
    configure(base_model_name_or_path=str(tmp_path / "nowhere"), revision="main")(tmp_path)
    assert answers(merge(tiny_student(), tmp_path)) == expected
