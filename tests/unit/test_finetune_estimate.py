"""Estimates from configs alone: the published student has its size, tiny ones agree with what is really trained."""

from math import ceil
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen2_5_VLConfig

from tests.finetune_kit import MAKERS
from trainer.finetune.adapting import adapt, load
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.estimate import estimate
from world2vlm.errors import InvalidInputError


@pytest.fixture(scope="module")
def seven_billion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config of Qwen2.5-VL-7B and nothing else."""
    folder = tmp_path_factory.mktemp("qwen2.5-vl-7b")
    text = {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
    }  # fmt: skip
    Qwen2_5_VLConfig(text_config=text, vision_config=vision).save_pretrained(folder)
    return folder


def test_the_published_student_has_its_size(seven_billion: Path) -> None:
    found = estimate(FinetuneConfig(str(seven_billion)), 100_000)
    assert found.parameters == 8_292_166_656
    # Rank 256 on q, k, v, o, gate, up and down of 28 layers.
    per_layer = (3584 + 3584) * 2 + (3584 + 512) * 2 + (3584 + 18944) * 3
    assert found.trainable == 256 * 28 * per_layer
    # Twelve examples a row, two rows a step.
    assert found.steps == ceil(ceil(100_000 / 12) / 2)
    assert found.weights_gb == pytest.approx(8.292 * 2 + found.trainable * 4 / 1e9, rel=1e-3)
    assert found.total_gb == pytest.approx(
        found.weights_gb + found.gradients_gb + found.optimizer_gb + found.activations_gb
    )


def test_methods_and_devices_change_the_memory_as_they_should(seven_billion: Path) -> None:
    def total(processes: int = 1, **changes: Any) -> float:
        return estimate(FinetuneConfig(str(seven_billion), **changes), 1000, processes=processes).total_gb

    assert total(method="qlora") < total() < total(method="full")
    assert total(8, method="full") < total(method="full") / 4
    assert total(8, method="full", shard=False) == total(method="full")
    assert total(gradient_checkpointing=False) > total()
    # Weights, gradients and AdamW's two moments in float32 are 16 bytes a parameter, of which the tower's are frozen.
    assert 8.29 * 4 + 7.6 * 12 < total(method="full") < 8.3 * 16 + 20


@pytest.mark.parametrize("name", sorted(MAKERS))
@pytest.mark.parametrize("method", ["full", "lora", "dora"])
@pytest.mark.parametrize("freeze", [True, False])
def test_tiny_models_are_counted_as_they_are_trained(tmp_path: Path, name: str, method: Any, freeze: bool) -> None:
    MAKERS[name](tmp_path)
    config = FinetuneConfig(str(tmp_path), method, rank=3, freeze_vision=freeze, dtype="float32")
    found = estimate(config, 10)
    loaded = load(config)
    assert found.parameters == sum(weight.numel() for weight in loaded.model.parameters())
    adapt(config, loaded.model, loaded.family)
    assert found.trainable == sum(weight.numel() for weight in loaded.model.parameters() if weight.requires_grad)


def test_steps_that_are_set_are_taken(seven_billion: Path) -> None:
    assert estimate(FinetuneConfig(str(seven_billion), steps=7), 100).steps == 7


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no model"):
        estimate(FinetuneConfig(str(tmp_path)), 10)
