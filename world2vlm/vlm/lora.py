"""LoRA checkpoints: PEFT's adapter files on a full checkpoint's weights, merged before anything is served.

A merged adapter is a full checkpoint like any other: every engine can load it, it answers as fast as its parent, and no
answer can mix the two. The file format is PEFT's own, so an adapter trained elsewhere on the same parent can be
published as it is (Hu et al. 2021, LoRA: W' = W + alpha / r * B A).
"""

import dataclasses
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from world2vlm.errors import InvalidInputError
from world2vlm.vlm.finite import all_finite
from world2vlm.vlm.student import CALIBRATION_FILE, StudentModel

# What shapes the adapter.
_SHAPE = {
    *("r", "lora_alpha", "target_modules", "exclude_modules", "fan_in_fan_out", "bias", "lora_bias", "use_rslora"),
    *("use_dora", "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
}
# What mattered in training only, or names things that are never looked up.
_IGNORED = {
    *("peft_type", "peft_version", "task_type", "inference_mode", "base_model_name_or_path", "revision"),
    *("auto_mapping", "lora_dropout", "init_lora_weights", "ensure_weight_tying"),
}
# Beginnings that leave the parent's weights as they are; others (PiSSA, OLoRA) change them before training.
_PLAIN_BEGINNINGS = (None, True, False, "gaussian", "orthogonal")
_TIED = ("lm_head", "embed_tokens")


def write_merged(parent: Path, adapter: Path, out: Path) -> None:
    """Write the full checkpoint that an adapter makes of its parent.

    Args:
        parent: folder of a full checkpoint.
        adapter: folder with `adapter_config.json` and `adapter_model.safetensors`, and a calibration where there is one
            (the parent's says nothing about other weights).
        out: the folder to write to.

    Raises:
        InvalidInputError: the adapter is none, or does not fit the parent, or uses what cannot be merged exactly.
    """
    merge(parent, adapter).save(out)
    if (adapter / CALIBRATION_FILE).exists():
        shutil.copyfile(adapter / CALIBRATION_FILE, out / CALIBRATION_FILE)


def merge(parent: Path, adapter: Path) -> StudentModel:
    """Load a parent and merge an adapter into its weights; uncalibrated. Arguments and errors as `write_merged`."""
    student = StudentModel.load(parent)
    return StudentModel(merge_into(student.model, adapter).eval(), student.processor)


def merge_into(model: Any, adapter: Path) -> Any:
    """Merge an adapter into the weights of a loaded model of transformers, which is used up.

    Raises:
        InvalidInputError: see `write_merged`.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    settings = _read_config(adapter / "adapter_config.json")
    state = _read_weights(adapter / "adapter_model.safetensors")
    _check_tied(model, state)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = LoraConfig(**settings, inference_mode=True)
            adapted: Any = get_peft_model(model, config)
            found: Any = set_peft_model_state_dict(adapted, state)
    except Exception as error:  # PEFT raises whatever the misfit provokes
        raise InvalidInputError(f"the adapter does not fit its parent: {error}") from error
    strays = [*found.unexpected_keys, *(name for name in found.missing_keys if _is_adapters(name))]
    if strays:
        raise InvalidInputError(f"the adapter does not fit its parent: {', '.join(sorted(strays)[:5])}")
    whole = adapted.merge_and_unload()
    if not all_finite(whole.parameters()):
        raise InvalidInputError("the merged checkpoint has weights that are not finite")
    return whole


def _read_config(path: Path) -> dict[str, Any]:
    """The settings that shape a LoRA adapter; everything else must be as PEFT has it by default."""
    from peft import LoraConfig

    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path.name}: {error}") from error
    if not isinstance(content, dict) or content.get("peft_type") != "LORA":
        raise InvalidInputError(f"{path.name} describes no LoRA adapter")
    if content.get("init_lora_weights") not in _PLAIN_BEGINNINGS:
        raise InvalidInputError(f"{path.name}: init_lora_weights={content['init_lora_weights']!r} cannot be merged")
    defaults = dataclasses.asdict(LoraConfig())
    for key in sorted(set(content) - _SHAPE - _IGNORED):
        if key not in defaults or (content[key] or None) != (defaults[key] or None):
            raise InvalidInputError(f"{path.name}: {key}={content[key]!r} is not supported")
    return {key: value for key, value in content.items() if key in _SHAPE}


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InvalidInputError(f"{path.name}: {error}") from error


def _check_tied(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Merging into a matrix that is used twice would change its other use, too."""
    named = [name for name in state if any(part in name.split(".") for part in _TIED)]
    if named and model.config.tie_word_embeddings:
        raise InvalidInputError(f"the adapter changes a matrix that the parent uses twice: {named[0]}")


def _is_adapters(name: str) -> bool:
    return "lora_" in name or "modules_to_save" in name
