"""What GRPO begins with: the model as its fine-tuning left it, whole on the process's device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from trainer.finetune.adapting import adapt, autocast_dtype, load
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.loss import RowLoss
from trainer.finetune.processes import Processes
from trainer.finetune.state import trained
from world2vlm.errors import InvalidInputError
from world2vlm.vlm.fullsize.families import Family, vision_modules

_ADAPTER = "adapter_model.safetensors"
# The decoder's masks are no sequences' bounds, which is what attention in training goes by.
_DECODING = {"text_config": "sdpa"}


@dataclass(frozen=True)
class Begun:
    """A fine-tuned model.

    Attributes:
        config: its settings; `model` is what the weights were loaded from. Nothing is dropped out: answers are learned
            from as they were drawn.
        adapted: see `adapt`.
        processor: the model's own.
        family: its family.
        module: the model in training mode; what is trained has gradients.
        written: all parameters of the adapter by name, those in the vision tower included, which are trained no more.
    """

    config: FinetuneConfig
    adapted: Any
    processor: Any
    family: Family
    module: RowLoss
    written: dict[str, torch.nn.Parameter]

    @property
    def model(self) -> Any:
        """The model, transformers' own."""
        return self.module.model

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Let the model decode for the length of the block, in the types in which it is trained.

        Weights that are trained themselves are float32, and answer as such.
        """
        attention = {"text_config": self.model.config.get_text_config()._attn_implementation}
        device, autocast = self.model.device.type, autocast_dtype(self.config) if self.config.is_adapter else None
        self.module.eval()
        self.model.set_attn_implementation(_DECODING)
        try:
            with torch.autocast(device, autocast, enabled=autocast is not None):
                yield
        finally:
            self.model.set_attn_implementation(attention)
            self.module.train()


def begin(config: FinetuneConfig, base: Path, device: torch.device) -> Begun:
    """Load what a fine-tuning has written.

    Args:
        config: the fine-tuning's.
        base: its folder: PEFT's adapter files, or a full checkpoint.
        device: where the model goes.

    Raises:
        InvalidInputError: the folder does not hold what such a fine-tuning writes.
        UnavailableError: qlora without the package bitsandbytes.
    """
    config = replace(config, dropout=0.0)
    if not config.is_adapter:
        config = replace(config, model=str(base), freeze_vision=True)
    loaded = load(config, device)
    adapted = adapt(config, loaded.model, loaded.family)
    if config.is_adapter:
        _load_adapter(adapted, base / _ADAPTER)
    if config.gradient_checkpointing:
        loaded.model.activation_checkpointing_enable({"use_reentrant": False})
    module = RowLoss(loaded.model, loaded.family, config.loss_chunk, autocast_dtype(config)).train()
    written = dict(trained(module))
    for tower in vision_modules(loaded.model.model, loaded.family):
        tower.requires_grad_(False)
    return Begun(config, adapted, loaded.processor, loaded.family, module, written)


def check_held_whole(config: FinetuneConfig, processes: Processes) -> None:
    """Check that every process may hold the whole model, as GRPO wants it.

    Raises:
        InvalidInputError: all weights are trained, and are to be shared out among several processes.
    """
    if processes.world > 1 and config.shard and not config.is_adapter:
        raise InvalidInputError(
            "GRPO does not share out all weights (FSDP2) among several processes: train an adapter, or start one "
            "process, or set shard to false where each device can hold weights, gradients and the optimiser's state"
        )


class Reference:
    """A frozen copy of what is trained, as it is when this is made."""

    def __init__(self, module: RowLoss) -> None:
        self._weights = [weight for _, weight in trained(module)]
        self._kept = [weight.detach().clone() for weight in self._weights]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the copy in the place of what is trained for the length of the block; nothing is copied for that."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for index, weight in enumerate(self._weights):
            weight.data, self._kept[index] = self._kept[index], weight.data


def _load_adapter(adapted: Any, path: Path) -> None:
    from peft import set_peft_model_state_dict

    try:
        found: Any = set_peft_model_state_dict(adapted, load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InvalidInputError(f"{path}: no adapter of such a fine-tuning: {error}") from error
    strays = [*found.unexpected_keys, *(name for name in found.missing_keys if "lora_" in name)]
    if strays:
        raise InvalidInputError(f"{path}: the adapter is another fine-tuning's: {', '.join(sorted(strays)[:5])}")
