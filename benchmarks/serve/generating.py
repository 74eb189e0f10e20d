"""What the two comparators share: the same model and processor, answered by transformers' own `generate()`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from world2vlm.vlm import StudentModel

MAX_NEW_TOKENS = 64


class Generator:
    """A checkpoint behind `generate()`, greedy, with a key-value cache, on one thread as our service."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        student = StudentModel.load(folder)
        self._model: Any = student.model
        self._processor = student.processor

    @torch.inference_mode()
    def answer(self, views: Sequence[Sequence[Image.Image]], questions: Sequence[str]) -> list[tuple[str, int]]:
        """The answers as text, and the tokens of each, the end token included."""
        inputs = self._processor.encode_batch(views, questions)
        ids = self._model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        tokenizer = self._processor.tokenizer
        rows = ids[:, inputs["input_ids"].shape[1] :].tolist()
        return [(tokenizer.decode(row, skip_special_tokens=True), _count(row, tokenizer.eos_token_id)) for row in rows]


def _count(row: list[int], end: int) -> int:
    return row.index(end) + 1 if end in row else len(row)
