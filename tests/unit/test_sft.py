"""Fine-tuning: it learns a tiny dataset by heart, and a killed run continues to the very same weights."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.vlm_kit import TINY, student, toy_view
from trainer.clip_source import ClipBatch, ClipSource
from trainer.optim_config import OptimConfig
from trainer.sft import train
from trainer.sft_config import SftConfig
from world2vlm.actions import parse_actions
from world2vlm.boxes import iou, parse_box
from world2vlm.bundles import Bundle, Frame, write_bundle
from world2vlm.errors import InvalidInputError
from world2vlm.images import encode_png
from world2vlm.records import TaskRecord
from world2vlm.tasks import Question
from world2vlm.vlm import Prompt, StudentModel

SCENES = 4
SIZE = 48
FAST = SftConfig(
    steps=7, clips=3, questions=4, imagined=0, replay=0.3,
    optim=OptimConfig(muon_lr=0.02, adam_lr=2e-3, warmup=2),
    snapshot_every=3, threads=1,
)  # fmt: skip


def frame(rng: np.random.Generator, actions: str = "") -> Frame:
    pixels, _, objects = toy_view(rng, SIZE)
    steps = tuple(parse_actions(actions)) if actions else ()
    return Frame(encode_png(pixels), np.eye(4), np.eye(3), (SIZE, SIZE), steps, objects=tuple(objects))


def scene_records(bundle: Bundle, index: int) -> list[TaskRecord]:
    folder = bundle.relative_path.as_posix()
    images = [f"{folder}/frames/{number:03d}.png" for number in range(2)]
    before, after = (view.objects[0] for view in bundle.frames)
    turn = tuple(parse_actions(f"turn left {30 + 10 * index} degrees"))
    box = Question("D1", turn, before.category, before.box)
    gone = Question("D2", turn, before.category, before.box)
    return [
        TaskRecord.create("A2", Question("A2").text, str(turn[0]), images, {"scene": bundle.scene}),
        TaskRecord.create("D1", box.text, str(after.box), images, {"scene": bundle.scene}),
        TaskRecord.create("D2", gone.text, "yes" if index % 2 else "no", images[:1], {"scene": bundle.scene}),
    ]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def records(bundles: Path) -> list[TaskRecord]:
    rng = np.random.default_rng(0)
    found = []
    for index in range(SCENES):
        frames = (frame(rng), frame(rng, f"turn left {30 + 10 * index} degrees"))
        bundle = Bundle(f"room_{index}", "000", frames)
        write_bundle(bundles, bundle)
        found += scene_records(bundle, index)
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    student(sizes=TINY).save(folder)
    return folder


def same(first: ClipBatch, second: ClipBatch) -> bool:
    return np.array_equal(first.frames, second.frames) and first.questions == second.questions


def source(config: SftConfig, records: list[TaskRecord], bundles: Path) -> ClipSource:
    return ClipSource(config, records, bundles, student().processor)


def test_a_batch_depends_on_the_seed_and_the_step_alone(records: list[TaskRecord], bundles: Path) -> None:
    first, second = source(FAST, records, bundles), source(FAST, records, bundles)
    forward = [first.batch(step) for step in range(6)]
    random.seed(123)
    np.random.seed(123)
    backward = [second.batch(step) for step in reversed(range(6))][::-1]
    assert all(map(same, forward, backward))
    assert not same(forward[0], forward[1])
    assert not same(forward[0], source(replace(FAST, seed=1), records, bundles).batch(0))


def test_a_clip_holds_the_views_that_its_questions_are_about(records: list[TaskRecord], bundles: Path) -> None:
    config = replace(FAST, replay=0.0, clips=20)
    batch = source(config, records, bundles).batch(0)
    frames, rows = batch.frames, batch.questions
    assert frames.shape == (20, 2, TINY.frame_size, TINY.frame_size, 3) and frames.dtype == np.uint8
    processor = student().processor
    by_text = {(record.question, record.assistant): record for record in records}
    for clip, examples in zip(frames, rows, strict=True):
        for example in examples:
            paths = by_text[example.question, example.answer].images
            expected = [processor.to_frame(Image.open(bundles / path)) for path in (paths[0], paths[-1])]
            assert np.array_equal(clip, np.stack(expected))


def test_boxes_are_ordinal_and_each_kind_of_answer_has_its_weight(records: list[TaskRecord], bundles: Path) -> None:
    config = replace(FAST, replay=0.0, clips=20, motion_weight=3.0, binary_weight=5.0)
    rows = source(config, records, bundles).batch(0).questions
    seen = {(example.answer.split()[0][0], example.ordinal, example.weight) for row in rows for example in row}
    assert seen == {("[", True, 1.0), ("t", False, 3.0), ("y", False, 5.0), ("n", False, 5.0)}


def test_the_recipe_chooses_the_tasks(records: list[TaskRecord], bundles: Path) -> None:
    config = replace(FAST, replay=0.0, clips=20, questions=1, tasks={"D2": 1.0, "A3": 5.0})
    rows = source(config, records, bundles).batch(0).questions
    assert {example.answer for row in rows for example in row} == {"yes", "no"}


def test_replay_asks_only_about_what_is_seen(records: list[TaskRecord], bundles: Path) -> None:
    rows = source(replace(FAST, replay=1.0, clips=30), records, bundles).batch(0).questions
    questions = [example.question for row in rows for example in row]
    assert len(questions) > 60
    assert all(question.startswith(("Where", "What", "Is ", "How many", "Which")) for question in questions)
    assert not {record.question for record in records} & set(questions)
    assert {example.weight for row in rows for example in row if example.ordinal} == {FAST.replay_weight}
    assert {"first", "second"} <= {word for question in questions for word in question.split()}


def test_where_an_object_goes_is_also_asked_without_the_second_view(records: list[TaskRecord], bundles: Path) -> None:
    config = replace(FAST, clips=20, replay=0.0, tasks={"D2": 1.0}, imagined=3)
    batch = source(config, records, bundles).batch(0)
    for frames, row in zip(batch.frames, batch.questions, strict=True):
        assert np.array_equal(frames[0], frames[1])
        assert any(example.ordinal for example in row) and any(not example.ordinal for example in row)
    assert batch.poses == [None] * 20


def test_a_clip_knows_how_the_camera_moved_where_its_records_say_it(records: list[TaskRecord], bundles: Path) -> None:
    told = [replace(record, meta={**record.meta, "actions": "turn left 90 degrees"}) for record in records]
    config = replace(FAST, clips=10, replay=0.0, tasks={"A2": 1.0})
    assert source(config, told, bundles).batch(0).poses == [pytest.approx((0, 0, -2, 0))] * 10
    assert source(config, records, bundles).batch(0).poses == [None] * 10
    assert source(replace(config, replay=1.0), told, bundles).batch(0).poses == [None] * 10


class Killed(Exception):
    pass


def kill_at(step: int) -> Callable[[int, int, dict[str, float]], None]:
    def on_progress(done: int, steps: int, means: dict[str, float]) -> None:
        if done == step:
            raise Killed

    return on_progress


def test_a_killed_run_continues_to_the_same_weights(
    records: list[TaskRecord], bundles: Path, base: Path, tmp_path: Path
) -> None:
    steps: list[int] = []
    whole = train(FAST, base, records, bundles, tmp_path / "whole", lambda step, *_: steps.append(step))
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    out = tmp_path / "killed"
    for death in (5, 6):  # after the snapshot of step 3; the second time before the next one is written
        with pytest.raises(Killed):
            train(FAST, base, records, bundles, out, kill_at(death))
    assert not (out / "model.safetensors").exists()
    later: list[int] = []
    continued = train(FAST, base, records, bundles, out, lambda step, *_: later.append(step))
    assert later == [4, 5, 6, 7]
    assert continued == whole
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())


def test_another_seed_gives_other_weights(records: list[TaskRecord], bundles: Path, base: Path, tmp_path: Path) -> None:
    weights = []
    for seed in (0, 1):
        train(replace(FAST, steps=2, seed=seed), base, records, bundles, tmp_path / str(seed))
        weights.append(load_file(tmp_path / str(seed) / "model.safetensors")["model.language_model.norm.weight"])
    assert not torch.equal(*weights)


def test_training_from_no_checkpoint_is_refused(records: list[TaskRecord], bundles: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="checkpoint"):
        train(FAST, tmp_path / "nothing", records, bundles, tmp_path / "out")


def test_a_tiny_dataset_is_learned_by_heart(
    records: list[TaskRecord], bundles: Path, base: Path, tmp_path: Path
) -> None:
    words = [record for record in records if record.task_type != "D1"]
    assert len(words) == 8
    losses: list[float] = []
    eager = OptimConfig(muon_lr=0.05, adam_lr=5e-3, warmup=10)
    config = replace(FAST, steps=250, clips=4, replay=0.0, optim=eager, snapshot_every=1000)
    train(config, base, records, bundles, tmp_path, lambda step, steps, means: losses.append(means["loss"]))
    assert losses[-1] < losses[0] / 2
    learned = StudentModel.load(tmp_path)
    assert answers(learned, words, bundles) == [record.assistant for record in words]
    assert answers(StudentModel.load(base), words, bundles) != [record.assistant for record in words]
    boxes = [record for record in records if record.task_type == "D1"]
    for said, record in zip(answers(learned, boxes, bundles), boxes, strict=True):
        assert iou(parse_box(said), parse_box(record.assistant)) > 0.9


def answers(model: StudentModel, records: list[TaskRecord], bundles: Path) -> list[str]:
    prompts = [
        Prompt(tuple(Image.open(bundles / path) for path in record.images), record.question) for record in records
    ]
    return [reply.text for reply in model.answer(prompts, max_new_tokens=12)]


def test_views_without_objects_are_trained_on_without_replay(tmp_path: Path) -> None:
    """Photographs that no detector looked at: there is nothing to replay, and nobody searches for it for ever."""
    frame = Frame(encode_png(np.zeros((16, 16, 3), np.uint8)), np.eye(4), np.eye(3), (16, 16))
    turn = tuple(parse_actions("turn left 30 degrees"))
    bundle = Bundle("photo_a", "000", (frame, replace(frame, actions_step=turn)), {})
    write_bundle(tmp_path, bundle)
    images = [f"{bundle.relative_path.as_posix()}/frames/{number:03d}.png" for number in range(2)]
    record = TaskRecord.create("A2", Question("A2").text, str(turn[0]), images, {"scene": "photo_a"})
    drawn = source(replace(FAST, replay=0.9), [record], tmp_path).batch(0)
    assert {example.question for questions in drawn.questions for example in questions} == {record.question}
