"""Tiny random models of every family that can be fine-tuned, with processors made from nothing, and records."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from trainer.finetune.config import FinetuneConfig
from trainer.finetune.training import train
from world2vlm.records import TaskRecord
from world2vlm.vlm.fullsize.processing import without_video

_QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_IDEFICS_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}:{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>{% else %} {{ p['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
# As LLaVA 1.5's: nothing ends the answer.
_LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | upper }}: {% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>\n{% else %}{{ p['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def make_qwen25(folder: Path, corpus: Sequence[str] = ()) -> None:
    tokenizer = _tokenizer(_QWEN_TOKENS, _QWEN_TEMPLATE, corpus, eos="<|im_end|>")
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    vision = {
        "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
        "spatial_merge_size": 2, "out_hidden_size": 32, "window_size": 16, "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={**_text(tokenizer), "rope_parameters": _rope([1, 1, 2])}, vision_config=vision, **_ids(tokenizer)
    )
    _save(folder, Qwen2_5_VLForConditionalGeneration, config, _still("qwen2_5_vl", image_processor, tokenizer))


def make_qwen3(folder: Path, corpus: Sequence[str] = ()) -> None:
    tokenizer = _tokenizer(_QWEN_TOKENS, _QWEN_TEMPLATE, corpus, eos="<|im_end|>")
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    vision = {
        "depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
        "spatial_merge_size": 2, "out_hidden_size": 32, "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    text = {**_text(tokenizer), "head_dim": 8, "rope_parameters": {**_rope([2, 1, 1]), "mrope_interleaved": True}}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **_ids(tokenizer), tie_word_embeddings=True)
    _save(folder, Qwen3VLForConditionalGeneration, config, _still("qwen3_vl", image_processor, tokenizer))


def make_idefics3(folder: Path, corpus: Sequence[str] = ()) -> None:
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    special = ["<|im_start|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *rows]
    tokenizer = _tokenizer(special, _IDEFICS_TEMPLATE, corpus, eos="<end_of_utterance>")
    image_processor = Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    processor = Idefics3Processor(image_processor, tokenizer, image_seq_len=4, chat_template=_IDEFICS_TEMPLATE)
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 16, "patch_size": 4,
    }  # fmt: skip
    text = {"model_type": "llama", **_text(tokenizer)}
    config = Idefics3Config(
        text_config=text,
        vision_config=vision,
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    _save(folder, Idefics3ForConditionalGeneration, config, processor)


def make_llava(folder: Path, corpus: Sequence[str] = ()) -> None:
    tokenizer = _tokenizer(["<s>", "</s>", "<image>"], _LLAVA_TEMPLATE, corpus, eos="</s>", bos="<s>")
    image_processor = LlavaImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_LLAVA_TEMPLATE,
    )
    vision = {
        "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 2, "image_size": 16, "patch_size": 4, "projection_dim": 16,
    }  # fmt: skip
    config = LlavaConfig(
        text_config={"model_type": "llama", **_text(tokenizer)},
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    _save(folder, LlavaForConditionalGeneration, config, processor)


MAKERS: dict[str, Callable[..., None]] = {
    "qwen2_5_vl": make_qwen25,
    "qwen3_vl": make_qwen3,
    "idefics3": make_idefics3,
    "llava": make_llava,
}


class Models:
    """Folders of the families' models, each made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, name: str) -> Path:
        folder = self._root / name
        if not folder.exists():
            MAKERS[name](folder)
        return folder


class Killed(Exception):
    """In the place of a kill."""


def settings(folder: Path, **changes: Any) -> FinetuneConfig:
    """Of a short run on one thread."""
    base = FinetuneConfig(
        str(folder), rank=4, alpha=8, learning_rate=1e-2, steps=6, row_tokens=160, dtype="float32", snapshot_every=2
    )
    return replace(base, **changes)


def run(
    config: FinetuneConfig, records: Sequence[TaskRecord], images: Path, out: Path, kill_after: int = 0, **more: Any
) -> list[float]:
    """Losses of the steps that were done; `kill_after` ends the run as a kill would, after so many steps."""
    losses: list[float] = []

    def watch(step: int, _steps: int, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])
        if step == kill_after:
            raise Killed

    train(config, records, images, out, watch, **more)
    return losses


def make_records(root: Path, count: int = 7, seed: int = 0) -> list[TaskRecord]:
    """Records over images of several sizes; some share images, they show two, one or none."""
    rng = np.random.default_rng(seed)
    for number, (width, height) in enumerate([(32, 24), (24, 32), (16, 16)]):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        root.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"{number}.png")
    questions: Sequence[tuple[str, str, str, list[str]]] = [
        ("A2", "how far did it turn?", "turn left 30 degrees", ["0.png", "1.png"]),
        ("D2", "will it leave?", "yes", ["0.png"]),
        ("D1", "where?", "[100, 20, 300, 400]", ["2.png"]),
        ("A4", "is it so?", "no", ["1.png", "0.png"]),
        ("D2", "will the red chair leave the view?", "no", ["2.png"]),
        ("A1", "how far?", "move forward 0.4 meters", ["2.png", "2.png"]),
        ("say", "say so", "so", []),
    ]
    return [TaskRecord.create(*questions[number % len(questions)]) for number in range(count)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def records(images: Path) -> list[TaskRecord]:
    return make_records(images, 12)


_QWEN_TOKENS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def _tokenizer(special: Sequence[str], template: str, corpus: Sequence[str], eos: str, bos: str | None = None) -> Any:
    """Of bytes; with a corpus also of its words, as larger models have them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=bool(corpus))
    if corpus:
        tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", *special])
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=tokenizer, pad_token="<pad>", eos_token=eos, bos_token=bos, chat_template=template)


def _text(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
        "initializer_range": 0.2,
    }  # fmt: skip


def _rope(section: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section}


def _ids(tokenizer: Any) -> dict[str, int]:
    names = {"image_token_id": 4, "video_token_id": 5, "vision_start_token_id": 2, "vision_end_token_id": 3}
    return {name: tokenizer.convert_tokens_to_ids(_QWEN_TOKENS[index]) for name, index in names.items()}


def _still(kind: str, image_processor: Any, tokenizer: Any) -> Any:
    return without_video(kind)(image_processor, tokenizer, chat_template=_QWEN_TEMPLATE)


def _save(folder: Path, model: Any, config: Any, processor: Any) -> None:
    torch.manual_seed(0)
    model(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == config.model_type
