"""Inputs of the student: one or two views become one two-frame clip, and a question becomes tokens.

Qwen3-VL's patch embedding spans two frames (`temporal_patch_size` 2). Feeding the two views as one clip lets it see
both at once, which is what makes camera motion learnable for a tiny model; a single view is repeated, as Qwen does.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoProcessor, ProcessorMixin, Qwen2VLImageProcessorPil, Qwen3VLConfig, Qwen3VLProcessor

from world2vlm.errors import InvalidInputError
from world2vlm.vlm.tokenizer import ASSISTANT_TURN, END, IMAGE, SPECIAL_TOKENS, USER_TURN, VISION_END, VISION_START


class ClipProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor without a video processor (that one needs torchvision), with views as clips."""

    def __init__(
        self,
        image_processor: Qwen2VLImageProcessorPil | None = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **_: Any,
    ) -> None:
        for name in ("image", "video", "vision_start", "vision_end"):
            token = getattr(tokenizer, f"{name}_token")
            setattr(self, f"{name}_token", token)
            setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
        ProcessorMixin.__init__(  # type: ignore[no-untyped-call]
            self, image_processor, tokenizer, chat_template=chat_template
        )

    @property
    def frame_size(self) -> int:
        """Side of the square frames the student sees, in pixels."""
        return math.isqrt(int(self.image_processor.size["shortest_edge"]))

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.frame_size // int(self.image_processor.patch_size)

    @property
    def image_tokens(self) -> int:
        """Visual tokens of a clip after merging."""
        return (self.grid // int(self.image_processor.merge_size)) ** 2

    def to_frame(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize to the student's square frame: uint8 (frame_size, frame_size, 3)."""
        size = (self.frame_size, self.frame_size)
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return np.asarray(rgb.resize(size, Image.Resampling.BICUBIC))

    def clip_patches(self, clips: NDArray[np.uint8]) -> torch.Tensor:
        """Cut clips into normalised patches in Qwen's order.

        Args:
            clips: uint8 (N, 2, frame_size, frame_size, 3).

        Returns:
            float32 (N, grid * grid, 3 * 2 * patch * patch); patches that are merged lie together.
        """
        merge, patch = int(self.image_processor.merge_size), int(self.image_processor.patch_size)
        blocks = self.grid // merge
        pixels = clips.reshape(len(clips), 2, blocks, merge, patch, blocks, merge, patch, 3)
        # In numpy, and before the bytes become floats: the same values, cut in two thirds of the time.
        cut = pixels.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(len(clips), self.grid**2, -1)
        return torch.from_numpy(cut).float().div_(127.5).sub_(1.0)

    def encode_question(self, text: str) -> list[int]:
        """Token ids of a question.

        Raises:
            InvalidInputError: empty, or it contains a control token.
        """
        if not text.strip():
            raise InvalidInputError("the question is empty")
        for token in SPECIAL_TOKENS:
            if token in text:
                raise InvalidInputError(f"a question must not contain the control token {token}")
        return self._encode(text)

    def prompt_ids(self, question: str) -> list[int]:
        """Token ids of a whole prompt: the clip, the question, and the start of the answer."""
        return [*self.clip_ids(), *self.encode_question(question), *self.turn_ids()]

    def clip_ids(self) -> list[int]:
        """Token ids up to the question: the user's turn and the clip's placeholders."""
        return self._encode(USER_TURN + VISION_START + IMAGE * self.image_tokens + VISION_END)

    def clip_positions(self) -> tuple[NDArray[np.int64], int]:
        """Qwen's (time, row, column) positions of `clip_ids`, int64 (P, 3), and the position of what follows."""
        ids = self.clip_ids()
        start = ids.index(self.image_token_id)
        side = math.isqrt(self.image_tokens)
        cells = [(start, start + row, start + column) for row in range(side) for column in range(side)]
        after = start + side
        tail = len(ids) - start - len(cells)
        positions = [(i, i, i) for i in range(start)] + cells + [(after + i,) * 3 for i in range(tail)]
        return np.array(positions), after + tail

    def patch_order(self) -> torch.Tensor:
        """Raster index of each patch in Qwen's order, in which the patches of one visual token are neighbours."""
        merge = int(self.image_processor.merge_size)
        blocks = self.grid // merge
        raster = torch.arange(self.grid**2).view(blocks, merge, blocks, merge)
        return raster.permute(0, 2, 1, 3).reshape(-1)

    def turn_ids(self) -> list[int]:
        """Token ids between the question and the answer."""
        return self._encode(f"{END}\n{ASSISTANT_TURN}")

    def encode_batch(self, views: Sequence[Sequence[Image.Image]], questions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Encode prompts for transformers' own `generate`, padded on the left.

        Args:
            views: for each prompt one or two images, the earlier first.
            questions: one for each prompt.

        Returns:
            input_ids, attention_mask, mm_token_type_ids (N, L) int64; pixel_values (N * grid^2, D) float32;
            image_grid_thw (N, 3) int64.

        Raises:
            InvalidInputError: no or more than two images, or a bad question.
        """
        clips = [self.to_clip([self.to_frame(image) for image in images]) for images in views]
        rows = [self.prompt_ids(question) for question in questions]
        length = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        input_ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "mm_token_type_ids": (input_ids == self.image_token_id).long(),
            "pixel_values": self.clip_patches(np.stack(clips)).flatten(0, 1),
            "image_grid_thw": torch.tensor([[1, self.grid, self.grid]] * len(rows)),
        }

    def to_clip(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """One or two frames, the earlier first, as a clip: uint8 (2, frame_size, frame_size, 3).

        Raises:
            InvalidInputError: no or more than two frames.
        """
        if not 1 <= len(frames) <= 2:
            raise InvalidInputError(f"a question takes one or two images, not {len(frames)}")
        return np.stack([frames[0], frames[-1]])

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def build_processor(tokenizer: Any, frame_size: int, patch_size: int, merge_size: int) -> ClipProcessor:
    """Build the processor of a new student; saved and loaded by transformers' own `AutoProcessor`."""
    pixels = frame_size * frame_size
    image_processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": pixels, "longest_edge": pixels},
        patch_size=patch_size,
        merge_size=merge_size,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return ClipProcessor(image_processor, tokenizer, chat_template=tokenizer.chat_template)


AutoProcessor.register(Qwen3VLConfig, ClipProcessor, exist_ok=True)  # type: ignore[no-untyped-call]
