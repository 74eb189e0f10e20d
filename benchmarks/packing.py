"""Packing: a training step with many questions on one clip, against transformers' with one question a row.

A third side, `one a row`, runs the trainer's own forward pass without sharing clips: between it and `packed` lies what
sharing saves, between `transformers` and it what the trainer saves elsewhere (vision tower, logits).
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.rooms import find_trajectories, imagine
from benchmarks.timing import Result, interleave
from teacher_service.worlds.renderer import RendererWorld
from trainer.clip_source import ClipSource
from trainer.labelling import label
from trainer.packing import IGNORE, Example, PackedStudent
from trainer.sft_config import SftConfig
from world2vlm.base_student import BASE_STUDENT
from world2vlm.bundles import Bundle, read_bundle, write_bundle
from world2vlm.vlm import StudentModel

TOLERANCE = 1e-3

Clips = NDArray[np.uint8]
Rows = list[list[Example]]
Loss = Callable[[], torch.Tensor]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    clips: Annotated[int, typer.Option(min=1, help="Clips a step.")] = SftConfig.clips,
    questions: Annotated[int, typer.Option(min=1, help="Questions a clip at most.")] = SftConfig.questions,
    scenes: Annotated[int, typer.Option(min=1, help="Rooms that the clips come from.")] = 8,
    repetitions: Annotated[int, typer.Option(min=1, help="Steps that each side takes.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Also write the result to this file.")] = None,
) -> None:
    """Time one training step (forward and backward, answers only) of the base student, packed and not."""
    student = StudentModel.load(BASE_STUDENT)
    student.model.train()
    frames, rows = make_batch(student, clips, questions, scenes)
    inputs = lay_out(student, frames, rows)
    packed = PackedStudent(student)
    batch, single = packed.pack(rows), packed.pack([[example] for row in rows for example in row])
    repeated = repeat_clips(frames, rows)
    losses: dict[str, Loss] = {
        "transformers": lambda: transformers_loss(student, inputs),
        "one a row": lambda: packed.loss(single, packed.see(repeated)),
        "packed": lambda: packed.loss(batch, packed.see(frames)),
    }
    check_equal(student, losses)
    sides = {name: _stepper(student, loss) for name, loss in losses.items()}
    sizes = {
        "clips": clips,
        "tokens a row (transformers)": inputs["input_ids"].shape[1],
        "tokens a row (packed)": batch.input_ids.shape[1],
        "answer tokens": int((batch.labels != IGNORE).sum()),
        "parameters": sum(weight.numel() for weight in student.model.parameters()),
        "threads": torch.get_num_threads(),
        "repetitions": repetitions,
    }
    Result("packing", "questions", sum(map(len, rows)), sizes, interleave(sides, repetitions)).publish(json)


def make_batch(student: StudentModel, clips: int, questions: int, scenes: int) -> tuple[Clips, Rows]:
    """The first batch of a round's training on a few rooms: uint8 (clips, 2, S, S, 3), and each clip's questions.

    Every answer token counts the same and coordinates are plain classes: that is the loss transformers has.
    """
    world = RendererWorld(cache=scenes)
    config = SftConfig(clips=clips, questions=questions, row_tokens=10_000)
    with tempfile.TemporaryDirectory() as folder:
        root, records = Path(folder), []
        for found in find_trajectories(world, scenes, each=2):
            shown = tuple(imagine(world, found.scene, found.candidate))
            bundle = Bundle(f"room_{found.scene}", f"{found.number:03d}", shown)
            records += label(read_bundle(write_bundle(root, bundle)), seed=0)
        batch = ClipSource(config, records, root, student.processor).batch(0)
        frames, rows = batch.frames, batch.questions
    return frames, [[replace(example, weight=1.0, ordinal=False) for example in row] for row in rows]


def repeat_clips(frames: Clips, rows: Sequence[Sequence[Example]]) -> Clips:
    """Each question's clip: uint8 (questions, 2, S, S, 3)."""
    return np.repeat(frames, [len(row) for row in rows], axis=0)


def lay_out(student: StudentModel, frames: Clips, rows: Sequence[Sequence[Example]]) -> dict[str, torch.Tensor]:
    """One question a row, padded on the right, each with its clip; labels outside the answers are IGNORE."""
    processor = student.processor
    prompts = [processor.prompt_ids(example.question) for row in rows for example in row]
    end = processor.tokenizer.eos_token_id
    answers = [[*processor.encode_question(example.answer), end] for row in rows for example in row]
    length = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    ids = torch.full((len(prompts), length), processor.tokenizer.pad_token_id)
    labels, mask = torch.full_like(ids, IGNORE), torch.zeros_like(ids)
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        start, stop = len(prompt), len(prompt) + len(answer)
        ids[index, :stop] = torch.tensor(prompt + answer)
        labels[index, start:stop] = ids[index, start:stop]
        mask[index, :stop] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "mm_token_type_ids": (ids == processor.image_token_id).long(),
        "pixel_values": processor.clip_patches(repeat_clips(frames, rows)).flatten(0, 1),
        "image_grid_thw": torch.tensor([[1, processor.grid, processor.grid]] * len(prompts)),
    }


def transformers_loss(student: StudentModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss as transformers' own forward pass gives it."""
    model: Any = student.model
    loss: torch.Tensor = model(**inputs, use_cache=False).loss
    return loss


def check_equal(student: StudentModel, losses: dict[str, Loss]) -> None:
    """Leave the program unless all sides have the first one's loss and gradient: else their times mean nothing."""
    (first, expected), *others = [_loss_and_gradient(student, loss) for loss in losses.values()]
    for name, (value, gradient) in zip(list(losses)[1:], others, strict=True):
        apart = float((gradient - expected).norm() / expected.norm())
        print(f"{name}: loss {value:.6f} against {first:.6f}, gradients {apart:.1e} apart (relative)")
        if not (abs(value - first) < TOLERANCE and apart < TOLERANCE):
            raise SystemExit(f"{name} does not compute the same step")


def _loss_and_gradient(student: StudentModel, loss: Loss) -> tuple[float, torch.Tensor]:
    value = _stepper(student, loss)()
    gradients = (weight.grad for weight in student.model.parameters())
    return value, torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def _stepper(student: StudentModel, loss: Loss) -> Callable[[], float]:
    def step() -> float:
        student.model.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value.item()

    return step


if __name__ == "__main__":
    app()
