"""Tiny models of every family, with tokenizers that know the tasks' words, as students of full size."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from PIL import Image

from tests.finetune_kit import MAKERS
from world2vlm.actions import Action, Primitive, format_actions
from world2vlm.tasks import TASKS
from world2vlm.vlm.fullsize.student import FamilyStudent

FAMILY_NAMES = tuple(MAKERS)


@cache
def tiny_family(name: str) -> Path:
    """A folder with a tiny model of random weights."""
    folder = Path(mkdtemp(prefix=f"tiny-{name}-"))
    MAKERS[name](folder, corpus())
    return folder


@cache
def family_student(name: str) -> FamilyStudent:
    return FamilyStudent.load(tiny_family(name))


def picture(seed: int, width: int = 32, height: int = 24) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def generate(student: FamilyStudent, images: list[Image.Image], question: str, max_new_tokens: int) -> list[int]:
    """What transformers itself makes of a prompt, by its own processor, greedily; without the end token."""
    processor, model = student.processor, student.model
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[text], images=[images], return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    answer = ids[0, inputs["input_ids"].shape[1] :].tolist()
    ends = model.generation_config.eos_token_id
    return [token for token in answer if token != ends]


def corpus() -> list[str]:
    actions = [Action(primitive, size) for primitive in Primitive for size in (0.5, 2.5, 30, 135)]
    answers = [format_actions([one, other]) for one, other in zip(actions, actions[::-1], strict=True)]
    words = ["yes no true false [12, 345, 678, 1000]", "Where is the red chair? How many tables? Is there a blue sofa?"]
    return 3 * [*answers, *words, *(task.template for task in TASKS.values())]
