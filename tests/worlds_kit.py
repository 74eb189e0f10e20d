"""Tiny pipelines with random weights, of the classes that the diffusers worlds run, written as their real ones are."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Video,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    SanaWMPipeline,
    SanaWMTransformer3DModel,
    UniPCMultistepScheduler,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaTokenizerFast,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

from world2vlm.settings import TeacherSettings

_LETTERS = [chr(code) for code in range(32, 127)]

# 64 x 64 pixels, two steps, guided: what makes a world tiny beside its weights.
TINY: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "guidance": 2.0, "device": "cpu"}


def tiny_sana(folder: Path) -> Path:
    """Write a `SanaWMPipeline` of 5.6 MB, once."""
    if folder.exists():
        return folder
    torch.manual_seed(0)
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}
    vocabulary |= {letter: index + 4 for index, letter in enumerate(_LETTERS)}
    transformer = SanaWMTransformer3DModel(
        in_channels=16,
        num_layers=2,
        hidden_size=64,
        num_attention_heads=4,
        linear_head_dim=16,
        softmax_every_n=2,
        chunk_plucker_post_attn_blocks=2,
        caption_channels=32,
        image_size=64,
        mixed_precision="fp32",
    )
    # As it comes, it does not see the camera.
    torch.nn.init.normal_(transformer.plucker_embedder.proj.weight, std=0.2)
    vae = AutoencoderKLLTX2Video(
        latent_channels=16,
        block_out_channels=(16, 16, 32, 32),
        decoder_block_out_channels=(16, 32, 64),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    encoder = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=128,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )
    SanaWMPipeline(
        tokenizer=GemmaTokenizerFast(vocab=vocabulary, merges=[]),
        text_encoder=encoder,
        vae=vae,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    ).save_pretrained(folder)
    return folder


def tiny_wan(folder: Path) -> Path:
    """Write a `WanVACEPipeline` of 0.5 MB, once."""
    if folder.exists():
        return folder
    torch.manual_seed(0)
    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", "<unk>", *_LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    encoder = UMT5EncoderModel(UMT5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4))
    vae = AutoencoderKLWan(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    transformer = WanVACETransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        vace_layers=[0],
        vace_in_channels=96,
    )
    WanVACEPipeline(
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ),
        text_encoder=encoder,
        vae=vae,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def settings(world: str, folder: Path, **options: Any) -> TeacherSettings:
    """Settings of a teacher that serves one tiny world."""
    return TeacherSettings(worlds=(world,), world_options={world: {"model": str(folder), **TINY, **options}})
