"""What a run would take, from the model's config alone: no weights are loaded, nothing is trained."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from trainer.finetune.adapting import load_settings, target_names, weights_dtype
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.grpo.config import FinetuneGrpoConfig
from world2vlm.vlm.fullsize.families import Family, vision_modules

_from_config: Callable[..., Any] = AutoModelForImageTextToText.from_config
# Two images of 448 x 448 pixels in Qwen2.5-VL, 256 tokens each, with a question and its answer.
EXAMPLE_TOKENS = 640
_FLOAT32, _GB = 4, 1e9
# Bytes of a weight in NF4, with its share of the blocks' doubly quantised scales (Dettmers et al. 2023, section 3).
_NF4 = 0.516
# Tensors of a layer that the backward pass needs, in widths of the hidden states and of the feed-forward part.
_OF_HIDDEN, _OF_FEED_FORWARD = 10, 4


@dataclass(frozen=True)
class Estimate:
    """What a run takes. Gigabytes are those of one device, activations roughly so.

    Attributes:
        parameters: of the model, shared ones once, without an adapter's.
        trainable: parameters that are trained.
        steps: optimiser steps; exact only where the run sets them, since it depends on how long the examples are. Those
            of GRPO, where it follows, included.
        weights_gb, gradients_gb, optimizer_gb, activations_gb: what each takes.
        reference_gb: what GRPO, where it follows, keeps of the weights that it began with.
        total_gb: their sum. GRPO runs on one device; what its decoding takes comes on top, but then there are no
            activations to keep.
    """

    parameters: int
    trainable: int
    steps: int
    weights_gb: float
    gradients_gb: float
    optimizer_gb: float
    activations_gb: float
    reference_gb: float
    total_gb: float


def estimate(
    config: FinetuneConfig, records: int, *, example_tokens: int = EXAMPLE_TOKENS, processes: int = 1
) -> Estimate:
    """Estimate a run.

    Args:
        config: the run; of a hub name only `config.json` is fetched.
        records: how many there are to train on.
        example_tokens: tokens of an example, on average.
        processes: devices.

    Raises:
        InvalidInputError: there is no such model, or it is of no known family, or `targets` names no layer.
    """
    settings, family = load_settings(config)
    with torch.device("meta"):
        model = _from_config(settings, trust_remote_code=False)
    parameters = _count(model)
    trained = _trained(config, model, family)
    held = processes if config.shard else 1
    weights = _weight_bytes(config, model, family, trained) / held / _GB
    gradients = trained * _FLOAT32 / held / _GB
    activations = _activation_bytes(config, settings.get_text_config()) / _GB
    return Estimate(
        parameters,
        trained,
        _steps(config, records, example_tokens, processes),
        weights_gb=weights,
        gradients_gb=gradients,
        optimizer_gb=2 * gradients,
        activations_gb=activations,
        reference_gb=0.0,
        total_gb=weights + 3 * gradients + activations,
    )


def with_grpo(found: Estimate, config: FinetuneGrpoConfig) -> Estimate:
    """A fine-tuning's estimate, on one device, with that of GRPO after it."""
    reference = found.trainable * _FLOAT32 / _GB
    return replace(
        found,
        steps=found.steps + config.steps,
        reference_gb=reference,
        total_gb=found.total_gb + reference,
    )


def _trained(config: FinetuneConfig, model: Any, family: Family) -> int:
    if config.is_adapter:
        layers = [model.get_submodule(name) for name in target_names(config, model, family)]
        magnitudes = sum(layer.out_features for layer in layers) if config.method == "dora" else 0
        return int(sum(config.rank * (layer.in_features + layer.out_features) for layer in layers) + magnitudes)
    kept_out = vision_modules(model.model, family) if config.freeze_vision else []
    return _count(model) - sum(map(_count, kept_out))


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _weight_bytes(config: FinetuneConfig, model: Any, family: Family, trained: int) -> float:
    each = weights_dtype(config).itemsize
    parameters = _count(model)
    if not config.is_adapter:
        return parameters * each
    language = model.model.get_submodule(family.language)
    small: int = sum(
        module.weight.numel()
        for module in language.modules()
        if config.method == "qlora" and isinstance(module, nn.Linear)
    )
    return (parameters - small) * each + small * _NF4 + trained * _FLOAT32


def _activation_bytes(config: FinetuneConfig, text: Any) -> float:
    """Of one row: what is kept of every layer, what one layer needs while it is recomputed, and a chunk of logits."""
    each = 2 if config.dtype == "bf16" else _FLOAT32
    layer = _OF_HIDDEN * text.hidden_size + _OF_FEED_FORWARD * text.intermediate_size
    kept = text.hidden_size if config.gradient_checkpointing else layer
    of_layers = config.row_tokens * each * (text.num_hidden_layers * kept + layer * config.gradient_checkpointing)
    # Logits, their float32 copy and its gradient.
    of_logits = min(config.loss_chunk, config.row_tokens) * text.vocab_size * (each + 2 * _FLOAT32)
    return float(of_layers + of_logits)


def _steps(config: FinetuneConfig, records: int, example_tokens: int, processes: int) -> int:
    if config.steps is not None:
        return config.steps
    examples = records / (1 - config.replay)
    rows = math.ceil(examples / max(1, config.row_tokens // example_tokens))
    return config.epochs * math.ceil(rows / (config.accumulation * processes))
