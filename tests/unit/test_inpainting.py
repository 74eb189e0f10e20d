"""Holes painted by diffusion: the model in the package on rooms that it never saw, and pipelines by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from teacher_service.inpainting import TinyInpainter, make_inpainter, paint_holes
from teacher_service.inpainting.tiny import MODEL, WEIGHTS
from teacher_service.training.inpaint import collect
from teacher_service.training.views import FIRST_HELD_OUT_ROOM, Rooms
from world2vlm.errors import InvalidInputError


def never() -> bool:
    return False


def picture(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    filled = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    seen = np.ones((height, width), dtype=bool)
    seen[:, : width // 3] = False
    return filled, seen


def test_the_model_in_the_package_beats_a_smooth_fill_and_a_mean_in_rooms_that_it_never_saw() -> None:
    views = collect(Rooms(FIRST_HELD_OUT_ROOM + 1000, 8, 4), "held-out views")
    errors: dict[str, list[float]] = {"painted": [], "smooth": [], "mean": []}
    for filled, seen, truth in zip(views.filled, views.seen, views.truth, strict=True):
        known, given, right = seen[0].numpy() > 0, *(each.permute(1, 2, 0).numpy() for each in (filled, truth))
        painted = paint_holes(TinyInpainter(), given, known, 0, never)
        assert painted is not None
        for name, guess in (("painted", painted), ("smooth", given), ("mean", given[known].mean(0) + 0 * given)):
            errors[name].append(-10 * np.log10(np.square(guess[~known].astype(float) - right[~known]).mean()))
    assert len(errors["mean"]) > 10
    assert np.mean(errors["painted"]) > np.mean(errors["mean"]) + 2
    assert np.mean(errors["painted"]) > np.mean(errors["smooth"])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (16, 40), (97, 224), (480, 300)])
def test_seen_pixels_stay_and_the_seed_decides_the_rest(height: int, width: int) -> None:
    filled, seen = picture(height, width)
    painter = TinyInpainter()
    painted = [paint_holes(painter, filled, seen, seed, never) for seed in (0, 0, 1, 2**63)]
    for each in painted:
        assert each is not None and each.shape == filled.shape and each.dtype == np.uint8
        assert np.array_equal(each[seen], filled[seen])
    assert np.array_equal(painted[0], painted[1])
    assert not np.array_equal(painted[0], painted[2])


def test_without_holes_nothing_is_painted() -> None:
    filled, seen = picture(64, 64)
    assert np.array_equal(paint_holes(TinyInpainter(), filled, np.ones_like(seen), 0, never), filled)


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_it_stops_between_two_steps(calls: int) -> None:
    asked = []

    def is_cancelled() -> bool:
        asked.append(None)
        return len(asked) >= calls

    assert paint_holes(TinyInpainter(), *picture(32, 32), 0, is_cancelled) is None
    assert len(asked) == calls


def test_its_weights_are_small() -> None:
    assert (WEIGHTS / MODEL).stat().st_size < 5_000_000


def tiny_pipeline(folder: Path) -> str:
    torch.manual_seed(0)
    characters = [chr(code) for code in range(97, 123)]
    words = ["<|startoftext|>", "<|endoftext|>", *characters, *(f"{each}</w>" for each in characters)]
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=9,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    )
    StableDiffusionInpaintPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer({word: index for index, word in enumerate(words)}, [], model_max_length=77),
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return str(folder)


def test_any_inpainting_pipeline_of_diffusers_paints_by_folder(tmp_path: Path) -> None:
    name = tiny_pipeline(tmp_path / "pipeline")
    painter = make_inpainter(name, "a room", side=64, steps=3, device="cpu")
    assert painter is not None
    filled, seen = picture(48, 80)
    painted = [paint_holes(painter, filled, seen, seed, never) for seed in (0, 0, 1)]
    assert painted[0] is not None
    assert np.array_equal(painted[0][seen], filled[seen])
    assert np.array_equal(painted[0], painted[1])
    assert not np.array_equal(painted[0], painted[2])
    asked = iter([False, False, True])
    assert paint_holes(painter, filled, seen, 0, lambda: next(asked)) is None
    same, other = (make_inpainter(name, prompt, side=64, steps=3, device="cpu") for prompt in ("a room", "a beach"))
    assert same is not None and other is not None
    assert (same.digest == painter.digest, other.digest == painter.digest) == (True, False)


def test_what_is_no_inpainting_pipeline_is_named(tmp_path: Path) -> None:
    assert make_inpainter("none") is None
    with pytest.raises(InvalidInputError, match="can't be loaded"):
        make_inpainter(str(WEIGHTS), device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="no safetensors"):
        make_inpainter(str(tmp_path / "empty"), device="cpu")
