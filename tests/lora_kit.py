"""LoRA adapters for tests, written by PEFT itself."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from world2vlm.vlm import StudentModel

TARGETS = ["q_proj", "v_proj", "down_proj", "qkv"]


def make_adapter(folder: Path, parent: Path, seed: int = 3, **config: Any) -> StudentModel:
    """Write an adapter as PEFT does; returns the parent with PEFT's own merge of it."""
    student = StudentModel.load(parent)
    torch.manual_seed(seed)
    chosen = {"r": 4, "lora_alpha": 64, "target_modules": TARGETS, "init_lora_weights": False, **config}
    adapted: Any = get_peft_model(student.model, LoraConfig(**chosen))
    adapted.save_pretrained(folder)
    return StudentModel(adapted.eval().merge_and_unload(), student.processor)
