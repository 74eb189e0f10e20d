"""The processor: transformers' own patches for one view, both views of a pair in their slots, and what it rejects."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2VLImageProcessorPil

from tests.vlm_kit import TINY, clips, noise, student
from world2vlm.errors import InvalidInputError
from world2vlm.vlm.processor import ClipProcessor, build_processor
from world2vlm.vlm.tokenizer import SPECIAL_TOKENS, build_tokenizer

PROCESSOR = student().processor


def reference(processor: ClipProcessor, image: Image.Image) -> torch.Tensor:
    """What transformers' image processor makes of an image."""
    made = processor.image_processor(images=[image], return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [[1, processor.grid, processor.grid]]
    return made["pixel_values"]


def to_pixels(patches: torch.Tensor) -> torch.Tensor:
    return ((patches + 1) * 127.5).round().to(torch.uint8)


@pytest.mark.parametrize(("size", "patch", "merge"), [(32, 8, 2), (96, 12, 1), (64, 16, 1), (64, 8, 2)])
def test_a_single_view_gives_transformers_own_patches(size: int, patch: int, merge: int) -> None:
    processor = build_processor(build_tokenizer(), size, patch, merge)
    assert (processor.frame_size, processor.grid, processor.image_tokens) == (
        size, size // patch, (size // patch // merge) ** 2,
    )  # fmt: skip
    image = noise(0, 80, 80)
    patches = processor.encode_batch([[image]], ["Where?"])["pixel_values"]
    expected = reference(processor, image)
    assert patches.dtype == expected.dtype == torch.float32
    assert torch.equal(to_pixels(patches), to_pixels(expected))
    # Scaled in one operation here and in three there: the last bit may differ.
    torch.testing.assert_close(patches, expected, rtol=0, atol=5e-7)


def test_two_views_lie_in_their_temporal_slots() -> None:
    first, second = noise(1), noise(2)
    both = PROCESSOR.encode_batch([[first, second]], ["Where?"])["pixel_values"].view(16, 3, 2, 8, 8)
    alone = [
        PROCESSOR.encode_batch([[image]], ["Where?"])["pixel_values"].view(16, 3, 2, 8, 8) for image in (first, second)
    ]
    assert torch.equal(both[:, :, 0], alone[0][:, :, 0])
    assert torch.equal(both[:, :, 1], alone[1][:, :, 1])
    assert torch.equal(alone[0][:, :, 0], alone[0][:, :, 1])
    assert not torch.equal(both[:, :, 0], both[:, :, 1])


def test_patches_that_are_merged_lie_together() -> None:
    clip = np.zeros((1, 2, 32, 32, 3), dtype=np.uint8)
    clip[:, :, :16, 16:] = 255  # the upper right quarter: one merged token of 2 x 2 patches
    patches = PROCESSOR.clip_patches(clip)[0]
    assert [bool((patch == 1).all()) for patch in patches] == [4 <= index < 8 for index in range(16)]
    assert bool((patches[:4] == -1).all())


@pytest.mark.parametrize(("width", "height"), [(200, 50), (31, 97), (1, 1)])
def test_an_image_of_any_shape_becomes_a_square_frame(width: int, height: int) -> None:
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, width // 2, height))
    frame = PROCESSOR.to_frame(image)
    assert frame.shape == (32, 32, 3) and frame.dtype == np.uint8
    if width > 2:  # squeezed, not cropped: both halves are there
        assert frame[5, 2].tolist() == [0, 0, 255] and frame[5, 29].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = Image.new("RGB", (40, 40), (255, 0, 0))
    expected = image.convert(mode).convert("RGB").getpixel((0, 0))
    assert tuple(PROCESSOR.to_frame(image.convert(mode))[0, 0].tolist()) == expected


def test_a_batch_is_padded_on_the_left() -> None:
    texts = ["Where is the red chair?", "Is the red chair left of the blue lamp?"]
    batch = PROCESSOR.encode_batch([[noise(0)], [noise(1), noise(2)]], texts)
    short, long = map(PROCESSOR.prompt_ids, texts)
    pad = len(long) - len(short)
    assert pad > 0
    assert batch["input_ids"].tolist() == [[PROCESSOR.tokenizer.pad_token_id] * pad + short, long]
    assert batch["attention_mask"].tolist() == [[0] * pad + [1] * len(short), [1] * len(long)]
    assert batch["mm_token_type_ids"].sum(dim=1).tolist() == [PROCESSOR.image_tokens] * 2
    assert batch["image_grid_thw"].tolist() == [[1, 4, 4]] * 2


def test_a_prompt_is_what_the_chat_template_writes() -> None:
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where is the red chair?"}]}
    text = PROCESSOR.apply_chat_template([message], add_generation_prompt=True)
    text = text.replace("<|image_pad|>", "<|image_pad|>" * PROCESSOR.image_tokens)
    assert PROCESSOR.tokenizer.decode(PROCESSOR.prompt_ids("Where is the red chair?")) == text


@pytest.mark.parametrize("count", [0, 3])
def test_another_number_of_images_is_rejected(count: int) -> None:
    with pytest.raises(InvalidInputError, match=f"one or two images, not {count}"):
        PROCESSOR.encode_batch([[noise(0)] * count], ["Where?"])


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_control_tokens_are_rejected(token: str) -> None:
    with pytest.raises(InvalidInputError, match="control token"):
        PROCESSOR.encode_batch([[noise(0)]], [f"Where is {token} the chair?"])


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_question_is_rejected(text: str) -> None:
    with pytest.raises(InvalidInputError, match="empty"):
        PROCESSOR.encode_question(text)


def test_auto_processor_saves_and_loads_it(tmp_path: Path) -> None:
    PROCESSOR.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(student_config(tmp_path), local_files_only=True)
    assert type(loaded) is ClipProcessor
    assert isinstance(loaded.image_processor, Qwen2VLImageProcessorPil)
    assert (loaded.frame_size, loaded.grid, loaded.image_tokens) == (32, 4, 4)
    assert loaded.tokenizer.get_vocab() == PROCESSOR.tokenizer.get_vocab()
    assert loaded.tokenizer.padding_side == "left"
    frames = clips(2)
    assert torch.equal(loaded.clip_patches(frames), PROCESSOR.clip_patches(frames))
    assert loaded.prompt_ids("Where is the red chair?") == PROCESSOR.prompt_ids("Where is the red chair?")
    assert loaded.chat_template == PROCESSOR.chat_template


def student_config(folder: Path) -> Path:
    """Add the model's config, by which `AutoProcessor` tells the processor's class."""
    student(sizes=TINY).model.config.save_pretrained(folder)
    return folder
