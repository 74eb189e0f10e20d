"""A student checkpoint in memory: transformers' model and processor, and answering with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen3VLForConditionalGeneration
from transformers.generation.streamers import BaseStreamer

from world2vlm.errors import InvalidInputError
from world2vlm.vlm.processor import ClipProcessor

MAX_NEW_TOKENS = 48
# transformers' annotations do not describe these calls.
_load_processor: Callable[..., Any] = AutoProcessor.from_pretrained
_load_model: Callable[..., Any] = AutoModelForImageTextToText.from_pretrained
_BINARY_WORDS = (("yes", "no"), ("true", "false"))


@dataclass(frozen=True)
class Prompt:
    """One or two views, the earlier first, and a question about them."""

    images: tuple[Image.Image, ...]
    text: str


@dataclass(frozen=True)
class Generation:
    """An answer.

    Attributes:
        text: what the student said.
        probability: product of its tokens' probabilities; for yes/no and true/false normalised over the two words.
        prompt_tokens: tokens of the prompt, the visual ones included.
        answer_tokens: tokens of the answer, the end token included.
    """

    text: str
    probability: float
    prompt_tokens: int
    answer_tokens: int


class StudentModel:
    """A loaded student. Not thread-safe: give it one calling thread."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, processor: ClipProcessor) -> None:
        self.model = model
        self.processor = processor

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "StudentModel":
        """Load a checkpoint folder (safetensors only, no remote code).

        Raises:
            InvalidInputError: the files are no fit student, or a weight is not finite.
        """
        try:
            processor = _load_processor(folder, local_files_only=True, trust_remote_code=False)
            model, info = _load_model(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises whatever the broken file provokes
            raise InvalidInputError(f"no student can be loaded from this checkpoint: {error}") from error
        _check_fit(model, processor, {*info["missing_keys"], *info["unexpected_keys"]})
        return cls(model.to(device).eval(), processor)

    def save(self, folder: Path) -> None:
        """Write model and processor as safetensors and JSON; publish them through `world2vlm.checkpoints`."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def count_tokens(self, text: str) -> int:
        """Tokens of a question, without the images.

        Raises:
            InvalidInputError: empty, or it contains a control token.
        """
        return len(self.processor.encode_question(text))

    @torch.inference_mode()
    def answer(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int = MAX_NEW_TOKENS,
        on_text: Callable[[int, str], None] | None = None,
    ) -> list[Generation]:
        """Answer a batch greedily.

        Args:
            prompts: what to answer; at least one.
            max_new_tokens: where to stop at the latest.
            on_text: called with (index of the prompt, text added) while the answers grow.

        Raises:
            InvalidInputError: a prompt has no or too many images, or a bad question.
        """
        inputs = self.processor.encode_batch([p.images for p in prompts], [p.text for p in prompts])
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        streamer = _BatchStreamer(self.processor.tokenizer, on_text) if on_text else None
        output = cast(Any, self.model).generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            streamer=streamer,
            eos_token_id=self.processor.tokenizer.eos_token_id,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )
        answers = output.sequences[:, inputs["input_ids"].shape[1] :]
        logits = torch.stack(output.logits, dim=1).float()
        sizes = inputs["attention_mask"].sum(dim=1).tolist()
        return [self._generation(*row) for row in zip(answers, logits, sizes, strict=True)]

    def _generation(self, tokens: torch.Tensor, logits: torch.Tensor, prompt_tokens: int) -> Generation:
        tokenizer = self.processor.tokenizer
        ends = (tokens == tokenizer.eos_token_id).nonzero()
        count = int(ends[0, 0]) + 1 if len(ends) else len(tokens)
        text: str = tokenizer.decode(tokens[:count], skip_special_tokens=True)
        return Generation(text, self._probability(text, tokens[:count], logits[:count]), prompt_tokens, count)

    def _probability(self, text: str, tokens: torch.Tensor, logits: torch.Tensor) -> float:
        for words in _BINARY_WORDS:
            if text in words:
                pair = logits[0, self.processor.tokenizer.convert_tokens_to_ids(list(words))]
                return float(pair.softmax(dim=-1)[words.index(text)])
        log_probabilities = logits.log_softmax(dim=-1).gather(1, tokens[:, None])
        return float(log_probabilities.sum().exp())


def _check_fit(model: object, processor: object, strays: set[str]) -> None:
    if not isinstance(processor, ClipProcessor) or not isinstance(model, Qwen3VLForConditionalGeneration):
        raise InvalidInputError("the checkpoint is no Qwen3-VL with a student's processor")
    # transformers makes up at random what the file lacks, and only warns.
    if strays:
        raise InvalidInputError(f"the checkpoint's weights do not fit its config: {', '.join(sorted(strays)[:5])}")
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise InvalidInputError("the checkpoint has weights that are not finite")


class _BatchStreamer(BaseStreamer):
    """Hands on the text that each step adds to each row (transformers' own streamer takes one row only)."""

    def __init__(self, tokenizer: Any, on_text: Callable[[int, str], None]) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._rows: list[list[int]] | None = None
        self._said: list[str] = []

    def put(self, value: torch.Tensor) -> None:
        if self._rows is None:  # the first call brings the prompts
            self._rows, self._said = [[] for _ in value], ["" for _ in value]
            return
        for index, token in enumerate(value.tolist()):
            row = self._rows[index]
            if row and row[-1] == self._tokenizer.eos_token_id:
                continue
            row.append(token)
            text = self._tokenizer.decode(row, skip_special_tokens=True)
            # A character of several bytes is held back until it is whole.
            if text != self._said[index] and not text.endswith("\N{REPLACEMENT CHARACTER}"):
                self._on_text(index, text[len(self._said[index]) :])
                self._said[index] = text

    def end(self) -> None:
        """Nothing is held back at the end."""
