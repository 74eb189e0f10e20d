"""A model's own processor without what is for videos: that part of transformers' needs torchvision."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoProcessor, ProcessorMixin, Qwen2_5_VLProcessor, Qwen3VLProcessor
from transformers.utils.hub import cached_file

_VIDEO_FILE = "video_preprocessor_config.json"
_load_any: Callable[..., Any] = AutoProcessor.from_pretrained


class _Still:
    """A Qwen processor's beginning without a video processor."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any
    ) -> None:
        for name, default in (("image", "<|image_pad|>"), ("video", "<|video_pad|>")):
            token = getattr(tokenizer, f"{name}_token", default)
            setattr(self, f"{name}_token", token)
            setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
        begin: Callable[..., None] = ProcessorMixin.__init__
        begin(self, image_processor, tokenizer, chat_template=chat_template)


class _StillQwen25(_Still, Qwen2_5_VLProcessor):
    pass


class _StillQwen3(_Still, Qwen3VLProcessor):
    pass


_STILL: dict[str, Any] = {"qwen2_5_vl": _StillQwen25, "qwen3_vl": _StillQwen3}
# What is written names transformers' own classes.
for _still in _STILL.values():
    _still.__name__ = _still.__bases__[1].__name__


def without_video(model_type: str) -> Any:
    """The class of a Qwen family's processor that needs no video processor."""
    return _STILL[model_type]


def load_processor(model: str, model_type: str) -> Any:
    """Load the processor of a model by folder or hub name."""
    load = _STILL[model_type].from_pretrained if model_type in _STILL else _load_any
    return load(model, trust_remote_code=False)


def save_processor(processor: Any, model: str, out: Path) -> None:
    """Write a processor beside fine-tuned weights, and the settings for videos as they were, where there are some."""
    processor.save_pretrained(out)
    found = cached_file(model, _VIDEO_FILE, _raise_exceptions_for_missing_entries=False)
    if found is not None:
        shutil.copyfile(found, out / _VIDEO_FILE)
