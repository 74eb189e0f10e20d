"""A tiny Qwen3-VL with random weights: transformers' own classes, small numbers, and two helpful initialisations."""

import math

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from world2vlm.student_config import StudentConfig
from world2vlm.vlm.processor import ClipProcessor, build_processor
from world2vlm.vlm.student import StudentModel
from world2vlm.vlm.tokenizer import build_tokenizer
from world2vlm.vlm.vocabulary import number_words

_POSITION_STD = 0.5
_POSITION_FREQUENCIES = (0.25, 0.5, 1.0, 2.0)
_NUMBER_FREQUENCIES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def build_student(config: StudentConfig | None = None, seed: int = 0) -> StudentModel:
    """Build a student with random weights; the same seed gives the same weights."""
    sizes = config or StudentConfig()
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer, sizes.frame_size, sizes.patch_size, sizes.merge_size)
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(_qwen_config(sizes, processor))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        _init_positions(model, processor.grid, generator)
        _init_numbers(model, processor, sizes.initializer_range, generator)
    return StudentModel(model.train(False), processor)


def _qwen_config(sizes: StudentConfig, processor: ClipProcessor) -> Qwen3VLConfig:
    tokenizer = processor.tokenizer
    head_dim = sizes.text_width // sizes.heads
    section = head_dim // 2 * 3 // 8
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": sizes.text_width,
        "intermediate_size": sizes.text_width * 8 // 3 // 16 * 16,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.key_value_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [head_dim // 2 - 2 * section, section, section],
            "mrope_interleaved": True,
        },
        "initializer_range": sizes.initializer_range,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    vision = {
        "depth": sizes.vision_layers,
        "hidden_size": sizes.vision_width,
        "intermediate_size": sizes.vision_width * 4,
        "num_heads": sizes.heads,
        "patch_size": sizes.patch_size,
        "spatial_merge_size": sizes.merge_size,
        "temporal_patch_size": 2,
        "out_hidden_size": sizes.text_width,
        "num_position_embeddings": processor.grid**2,
        "initializer_range": sizes.initializer_range,
        "deepstack_visual_indexes": [sizes.vision_layers // 2 - 1] if sizes.vision_layers >= 2 else [],
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=processor.vision_start_token_id,
        vision_end_token_id=processor.vision_end_token_id,
        tie_word_embeddings=True,
    )


def _fourier(values: torch.Tensor, frequencies: tuple[float, ...]) -> torch.Tensor:
    angles = 2 * math.pi * values[:, None] * torch.tensor(frequencies)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _init_positions(model: Qwen3VLForConditionalGeneration, grid: int, generator: torch.Generator) -> None:
    """Write smooth sinusoids into the position table: a patch can tell where it is from step 0."""
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    features = torch.cat(
        [_fourier((axis.flatten() + 0.5) / grid, _POSITION_FREQUENCIES) for axis in (columns, rows)], dim=-1
    )
    table = model.model.visual.pos_embed.weight
    mix = torch.randn(features.shape[1], table.shape[1], generator=generator) / math.sqrt(features.shape[1] / 2)
    table.copy_(_POSITION_STD * features @ mix)


def _init_numbers(
    model: Qwen3VLForConditionalGeneration, processor: ClipProcessor, scale: float, generator: torch.Generator
) -> None:
    """Write Fourier features of the value into the number tokens: neighbours are alike, so coordinates interpolate."""
    words = number_words()
    features = _fourier(torch.linspace(0, 1, len(words)), _NUMBER_FREQUENCIES)
    table = model.model.language_model.embed_tokens.weight
    mix = torch.randn(features.shape[1], table.shape[1], generator=generator) / math.sqrt(features.shape[1] / 2)
    noise = torch.randn(len(words), table.shape[1], generator=generator)
    table[processor.tokenizer.convert_tokens_to_ids(words)] = scale * (0.95 * features @ mix + 0.05 * noise)
