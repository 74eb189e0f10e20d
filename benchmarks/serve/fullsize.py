"""A full-size model of random weights: answers a second at so many clients beside `generate()`, one after the other.

In one process, without the service: what is measured is the decoder, its cache and the vision tower. Every question has
pictures of its own, and every answer as many tokens. On a GPU in bfloat16, else in float32.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen2VLImageProcessorPil

from benchmarks.train.task import TEMPLATE
from world2vlm.files import write_atomically
from world2vlm.report.machine import describe_machine, describe_versions
from world2vlm.vlm import Prompt
from world2vlm.vlm.fullsize.processing import without_video
from world2vlm.vlm.fullsize.student import FamilyStudent
from world2vlm.vlm.tokenizer import build_tokenizer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_from_config: Callable[..., Any] = AutoModelForImageTextToText.from_config
_QUESTION = "How many degrees did the camera turn to get the second image? Answer as: turn left/right X degrees."
_COPIED = 256 << 20
_AIM = 0.7


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2.5-VL, and of a picture's side in pixels."""

    text: dict[str, Any]
    vision: dict[str, Any]
    side: int


SHAPES = {
    "tiny": Shape(
        {
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        {
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "window_size": 112, "fullatt_block_indexes": [1],
        },
        56,
    ),
    # As Qwen/Qwen2.5-VL-7B-Instruct's config.json says.
    "qwen2.5-vl-7b": Shape(
        {
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vocab_size": 152064,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
            "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        },
        448,
    ),
}  # fmt: skip


@app.command()
def main(
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")] = "tiny",
    clients: Annotated[str, typer.Option(help="Numbers of clients, with commas between.")] = "1,8,32,128",
    requests: Annotated[int, typer.Option(min=1, help="Questions of each load; as many as clients at least.")] = 64,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of each answer.")] = 16,
    path: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Measure, print, and write down."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    student = random_student(SHAPES[shape], device)
    figures = measure(student, SHAPES[shape].side, list(map(int, clients.split(","))), requests, tokens)
    where = {"machine": describe_machine(), "versions": describe_versions(), "device": _device(device)}
    content: dict[str, Any] = {**where, "shape": shape, "tokens": tokens, **figures}
    for name, value in figures.items():
        print(f"{name:<40}{value:>14.4g}")
    print(f"aim: {_AIM:.0%} of the memory's bandwidth at one client")
    if path is not None:
        write_atomically(path, json.dumps(content, indent=2).encode())


def measure(student: FamilyStudent, side: int, clients: Sequence[int], requests: int, tokens: int) -> dict[str, float]:
    """All figures, by name."""
    prompts = _prompts(side, max(requests, *clients))
    alone = prompts[: min(requests, 16)]
    generate(student, alone[0], tokens)
    seconds, truth = _timed(lambda: [generate(student, prompt, tokens) for prompt in alone])
    figures = {"generate(), requests/s": len(alone) / seconds}
    for count in clients:
        asked = prompts[: max(requests, count)]
        answer(student, asked[:count], count, tokens)  # every shape once
        fresh = FamilyStudent(student.model, student.processor)
        seconds, answers = _timed(partial(answer, fresh, asked, count, tokens))
        figures[f"ours, {count} clients, requests/s"] = len(asked) / seconds
        figures[f"ours, {count} clients, the same answers"] = float(
            np.mean([given == expected for given, expected in zip(answers, truth, strict=False)])
        )
    speed = _decoding_speed(student, prompts[0], max(tokens, 32))
    limit = _bandwidth(student.model.device) / _bytes_per_token(student.model)
    return {**figures, "one answer, tokens/s": speed, "limit, tokens/s": limit, "share of the limit": speed / limit}


def random_student(shape: Shape, device: str) -> FamilyStudent:
    """A model of random weights on a device, with a processor; nothing is written down."""
    tokenizer = build_tokenizer()
    ids: dict[str, Any] = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(getattr(tokenizer, f"{name}_token"))
        for name in ("image", "video", "vision_start", "vision_end")
    }
    # No token ends an answer: all are equally long.
    text = {"max_position_embeddings": 32768, "eos_token_id": None, "bos_token_id": None, **shape.text}
    config = Qwen2_5_VLConfig(text_config=text, vision_config={"patch_size": 14, **shape.vision}, **ids)
    torch.manual_seed(0)
    with torch.device(device):
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        model = _from_config(config, dtype=dtype, attn_implementation="sdpa").eval().requires_grad_(False)
    pixels = shape.side**2
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": pixels, "longest_edge": pixels})
    return FamilyStudent(model, without_video("qwen2_5_vl")(images, tokenizer, chat_template=TEMPLATE))


@torch.inference_mode()
def generate(student: FamilyStudent, prompt: Prompt, tokens: int) -> tuple[int, ...]:
    """transformers' own answer, by its own processor."""
    content = [*({"type": "image"} for _ in prompt.images), {"type": "text", "text": prompt.text}]
    processor, model = student.processor, student.model
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[text], images=[list(prompt.images)], return_tensors="pt").to(model.device)
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=tokens)
    return tuple(ids[0, inputs["input_ids"].shape[1] :].tolist())


def answer(student: FamilyStudent, prompts: Sequence[Prompt], clients: int, tokens: int) -> list[tuple[int, ...]]:
    """Ours, in a closed loop: each client asks again once it is answered."""
    decoder = student.decoder(clients, 256, tokens)
    waiting = list(enumerate(prompts))[::-1]
    found: dict[int, tuple[int, ...]] = {}
    while len(found) < len(prompts):
        while waiting and decoder.active < clients:
            key, prompt = waiting.pop()
            decoder.admit(key, student.inputs(prompt).job(tokens))
        found.update({each.key: each.decoded.ids for each in decoder.step() if each.decoded is not None})
    return [found[key] for key in range(len(prompts))]


def _decoding_speed(student: FamilyStudent, prompt: Prompt, tokens: int) -> float:
    """Tokens a second of one answer, once its prompt is read."""
    decoder = student.decoder(1, 256, 2 * tokens)
    decoder.admit(0, student.inputs(prompt).job(2 * tokens))
    for _ in range(tokens // 2):
        decoder.step()
    seconds, _ = _timed(lambda: [decoder.step() for _ in range(tokens)])
    return tokens / seconds


def _bytes_per_token(model: Any) -> int:
    """What has to be read for one token: the language model's layers and the head."""
    layers = model.model.language_model.layers
    return sum(weight.nbytes for part in (layers, model.lm_head) for weight in part.parameters())


def _bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy in the device's memory reads and writes, at its best of ten."""
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return max(2 * _COPIED / _timed(lambda: target.copy_(source))[0] for _ in range(10))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    _wait()
    start = perf_counter()
    found = work()
    _wait()
    return perf_counter() - start, found


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _prompts(side: int, count: int) -> list[Prompt]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2 * count, side, side, 3), dtype=np.uint8)
    images = [Image.fromarray(each) for each in pixels]
    return [Prompt(pair, _QUESTION) for pair in zip(images[::2], images[1::2], strict=True)]


def _device(name: str) -> str:
    return torch.cuda.get_device_name() if name == "cuda" else name


if __name__ == "__main__":
    app()
