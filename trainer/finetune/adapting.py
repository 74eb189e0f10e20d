"""Loading a model by name and choosing what of it is trained: all weights, or an adapter's (PEFT)."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.utils.import_utils import is_flash_attn_2_available

from trainer.finetune.attention import PER_EXAMPLE, attend_by_windows
from trainer.finetune.config import ALL_LINEAR, FinetuneConfig
from trainer.finetune.patches import patches_as_products
from world2vlm.errors import InvalidInputError, UnavailableError
from world2vlm.vlm.fullsize.families import Family, find_family, vision_modules
from world2vlm.vlm.fullsize.processing import load_processor, save_processor

_DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}
# transformers' annotations do not describe these calls.
_load_config: Callable[..., Any] = AutoConfig.from_pretrained
_load_model: Callable[..., Any] = AutoModelForImageTextToText.from_pretrained


@dataclass(frozen=True)
class Loaded:
    """A model before anything is adapted: transformers' model and processor, and its family."""

    model: Any
    processor: Any
    family: Family


def load(config: FinetuneConfig, device: torch.device | str = "cpu") -> Loaded:
    """Load model and processor (safetensors only, no remote code).

    Raises:
        InvalidInputError: there is no such model, or it is of no known family.
        UnavailableError: qlora without the package bitsandbytes.
    """
    settings, family = load_settings(config)
    try:
        processor = load_processor(config.model, settings.model_type)
        model = _load_model(
            config.model,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=weights_dtype(config),
            attn_implementation=_attention(device),
            **_quantised(config, family, device),
        )
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{config.model}: cannot be loaded: {error}") from error
    patches_as_products(model)
    if torch.device(device).type == "cpu":
        attend_by_windows(model)
    return Loaded(model if config.method == "qlora" else model.to(device), processor, family)


def load_settings(config: FinetuneConfig) -> tuple[Any, Family]:
    """The model's config and its family.

    Raises:
        InvalidInputError: there is no such model, or it is of no known family.
    """
    try:
        settings = _load_config(config.model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{config.model}: no model can be loaded: {error}") from error
    return settings, find_family(settings)


def weights_dtype(config: FinetuneConfig) -> torch.dtype:
    """What weights are loaded as: what is trained is float32, so that small updates are not rounded away."""
    return _DTYPES[config.dtype] if config.is_adapter else torch.float32


def autocast_dtype(config: FinetuneConfig) -> torch.dtype | None:
    """What matrix products are computed in, where that is not the weights' own type."""
    return torch.bfloat16 if config.dtype == "bf16" else None


def adapt(config: FinetuneConfig, model: Any, family: Family) -> Any:
    """Leave only what is trained with gradients; adapters are put into the model itself.

    Returns:
        What `save_pretrained` is to be called on: PEFT's model around the given one, or the given one.

    Raises:
        InvalidInputError: `targets` names no layer.
    """
    if config.is_adapter:
        return _with_adapter(config, model, family)
    if config.freeze_vision:
        for module in vision_modules(model.model, family):
            module.requires_grad_(False)
    return model


def target_names(config: FinetuneConfig, model: nn.Module, family: Family) -> list[str]:
    """Full names of the linear layers that get an adapter, sorted; never the head.

    Raises:
        InvalidInputError: there is none.
    """
    kept_out = tuple(f"model.{name}." for name in family.vision) if config.freeze_vision else ()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head" and not name.startswith(kept_out)
    ]
    if config.targets != ALL_LINEAR:
        names = [name for name in names if name.rsplit(".", 1)[-1] in config.targets]
    if not names:
        raise InvalidInputError(f"targets name no linear layer of {config.model}: {config.targets!r}")
    return sorted(names)


def _with_adapter(config: FinetuneConfig, model: Any, family: Family) -> Any:
    from peft import LoraConfig, get_peft_model

    from trainer.finetune.lora_layer import LoraLinear

    torch.manual_seed(config.seed)
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_dora=config.method == "dora",
        target_modules=target_names(config, model, family),
    )
    if config.method == "lora":
        settings._register_custom_module({nn.Linear: LoraLinear})
    return get_peft_model(model, settings)


def save(adapted: Any, processor: Any, config: FinetuneConfig, out: Path, state: dict[str, torch.Tensor]) -> None:
    """Write PEFT's adapter files, or a full checkpoint with its processor.

    Args:
        adapted: what `adapt` returned.
        processor: the model's.
        config: the run.
        out: the folder to write to.
        state: weights by the model's own names, whole and on the CPU: an adapter's, or all.
    """
    if config.is_adapter:
        adapted.save_pretrained(out, state_dict={f"base_model.model.{name}": value for name, value in state.items()})
        return
    dtype = _DTYPES[config.dtype]
    adapted.save_pretrained(out, state_dict={name: value.to(dtype) for name, value in state.items()})
    # It would name the type that the weights were trained in.
    adapted.config.dtype = dtype
    adapted.config.save_pretrained(out)
    save_processor(processor, config.model, out)


def _attention(device: torch.device | str) -> dict[str, str]:
    """By part of the model; what keeps attention within examples by a block mask is the slow way out."""
    if torch.device(device).type == "cpu":
        return {"": "sdpa", "text_config": PER_EXAMPLE}
    return {"": "flash_attention_2" if is_flash_attn_2_available() else "sdpa"}


def _quantised(config: FinetuneConfig, family: Family, device: torch.device | str) -> dict[str, Any]:
    if config.method != "qlora":
        return {}
    if find_spec("bitsandbytes") is None:
        raise UnavailableError("qlora needs the package bitsandbytes, which is not installed; use lora, or install it")
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        # Head and tower stay as they are: what they make is not corrected by an adapter behind them.
        llm_int8_skip_modules=["lm_head", *(f"model.{name}" for name in family.vision)],
    )
    return {"quantization_config": settings, "device_map": {"": device}}
