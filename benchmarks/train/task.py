"""What both sides train: a tiny Qwen2.5-VL with random weights, and questions about rendered rooms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from benchmarks.rooms import find_trajectories, imagine
from teacher_service.worlds.renderer import RendererWorld
from trainer.finetune.config import FinetuneConfig
from trainer.labelling import label
from world2vlm.bundles import Bundle, read_bundle, write_bundle
from world2vlm.records import TaskRecord
from world2vlm.vlm.fullsize.processing import without_video
from world2vlm.vlm.tokenizer import build_tokenizer

# Of an image: 64 tokens.
_PIXELS = 224 * 224
# Nothing follows the token that ends the answer: else one side would learn that, too.
TEMPLATE = (
    "{% for m in messages %}{% if not loop.first %}\n{% endif %}<|im_start|>{{ m['role'] }}\n"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Task:
    """One training task.

    Attributes:
        images: what the records' image paths are relative to.
        records: in the order in which both sides take them.
        batch: examples of an optimiser step.
        config: of our side; the other gets the same figures.
    """

    images: Path
    records: Sequence[TaskRecord]
    batch: int
    config: FinetuneConfig

    @property
    def steps(self) -> int:
        """Optimiser steps of a run."""
        return len(self.records) // self.batch


def make_records(root: Path, count: int, scenes: int, seed: int = 0) -> list[TaskRecord]:
    """Questions of all tasks about rendered rooms, in random order; many are about the same pair of views."""
    world = RendererWorld(cache=scenes)
    found: list[TaskRecord] = []
    for trajectory in find_trajectories(world, scenes, each=4):
        shown = tuple(imagine(world, trajectory.scene, trajectory.candidate))
        bundle = Bundle(f"room_{trajectory.scene}", f"{trajectory.number:03d}", shown)
        found += label(read_bundle(write_bundle(root, bundle)), seed=seed)
    Random(seed).shuffle(found)
    if len(found) < count:
        raise SystemExit(f"{scenes} rooms give {len(found)} questions, not {count}: ask for more rooms")
    return found[:count]


def make_model(folder: Path, width: int, layers: int) -> int:
    """Write a random model with its processor; returns how many parameters it has."""
    tokenizer = build_tokenizer()
    ids: dict[str, Any] = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(getattr(tokenizer, f"{name}_token"))
        for name in ("image", "video", "vision_start", "vision_end")
    }
    half = width // 4 // 2
    # So that an image token costs the tower some 0.37 of what it costs the language model, as in Qwen2.5-VL-7B.
    seen = width * 3 // 8
    text = {
        "vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 4 * width,
        "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8]
        },
    }  # fmt: skip
    vision = {
        "depth": layers, "hidden_size": seen, "intermediate_size": 2 * seen, "num_heads": 4, "patch_size": 14,
        "out_hidden_size": width, "window_size": 112, "fullatt_block_indexes": [layers - 1],
    }  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    model.save_pretrained(folder)
    image_processor = Qwen2VLImageProcessorPil(size={"shortest_edge": _PIXELS, "longest_edge": _PIXELS})
    without_video("qwen2_5_vl")(image_processor, tokenizer, chat_template=TEMPLATE).save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())
