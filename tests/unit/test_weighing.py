"""Records weigh as much as their world can be trusted, and both trainers multiply their loss by that."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.dataset_kit import toy_records
from tests.vlm_kit import TINY
from trainer.clip_source import ClipSource
from trainer.label_files import label_folders
from trainer.labelling.weighing import weighted_by_world
from trainer.sft_config import SftConfig
from world2vlm.actions import parse_actions
from world2vlm.bundles import REJECTED, Bundle, Frame, GateVerdict, write_bundle
from world2vlm.cameras import integrate
from world2vlm.errors import InvalidInputError
from world2vlm.images import encode_png
from world2vlm.licences import STRICT, stamp
from world2vlm.records import TaskRecord
from world2vlm.reliability import wilson
from world2vlm.vlm import build_student
from world2vlm.worlds import WorldInfo

FREE = WorldInfo("free", "A world", True, True, False, True, "Apache-2.0", True, "d" * 64)
PNG = encode_png(np.zeros((16, 16, 3), np.uint8))


def bundle(name: str, passed: bool | None, **params: object) -> Bundle:
    """A turn to the left; `passed` is what the gate said, None = nobody judged."""
    turn = tuple(parse_actions("turn left 30 degrees"))
    gates = () if passed is None else (GateVerdict("yaw", 0.0, passed, "" if passed else "wrong"),)
    frames = [Frame(PNG, pose, np.eye(3), (16, 16)) for pose in integrate(turn)]
    frames[1] = replace(frames[1], actions_step=turn, gates=gates)
    return Bundle(f"photo-{name}", "0", tuple(frames), {**stamp(FREE), **params})


def weights(root: Path) -> set[object]:
    return {record.meta.get("weight") for record in label_folders([root], root, 0, STRICT).records}


def test_what_a_gate_rejected_makes_the_rest_of_its_world_weigh_less(tmp_path: Path) -> None:
    for index in range(8):
        write_bundle(tmp_path / "good", bundle(str(index), True))
    assert weights(tmp_path / "good") == {round(wilson(8, 8)[0], 4)}
    for index in range(8, 12):
        write_bundle(tmp_path / "good", bundle(str(index), False, **{REJECTED: {"gate": "yaw"}}))
    assert weights(tmp_path / "good") == {round(wilson(8, 12)[0], 4)}


def test_who_labels_is_told_what_was_left_out(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, bundle("0", True))
    for index, gate in enumerate(("direction", "yaw", "yaw"), start=1):
        write_bundle(tmp_path, bundle(str(index), False, **{REJECTED: {"gate": gate}}))
    assert label_folders([tmp_path], tmp_path, 0, STRICT).source == (
        "from 1 bundle; 3 rejected (direction, yaw 2) gave none"
    )
    alone = label_folders([folder], tmp_path, 0, STRICT)
    assert alone.source == "from 1 bundle" and alone.records
    with pytest.raises(InvalidInputError, match=r"no bundles in .*photo-1; 1 rejected \(direction\)"):
        label_folders([tmp_path / "scenes/photo-1"], tmp_path, 0, STRICT)


def test_exact_worlds_and_those_that_nobody_judged_weigh_one(tmp_path: Path) -> None:
    write_bundle(tmp_path / "unjudged", bundle("0", None))
    write_bundle(tmp_path / "exact", bundle("0", True, generative=False))
    assert weights(tmp_path / "unjudged") == weights(tmp_path / "exact") == {None}


def test_records_of_a_round_weigh_what_their_own_worlds_do() -> None:
    made = {f"scenes/photo-{index}/traj_0": bundle(str(index), True) for index in range(8)}
    made["scenes/room_1/traj_0"] = bundle("room", True, world="renderer", generative=False)
    rejected = {f"scenes/photo-{index}/traj_1": bundle(str(index), False) for index in range(4)}
    asked = [TaskRecord.create("A2", "?", "x", [f"{path}/frames/000.png"], {}) for path in made]
    weighed, known = weighted_by_world(asked, made, rejected)
    assert known == {"free": round(wilson(8, 12)[0], 4), "renderer": 1.0}
    assert [record.weight for record in weighed] == [known["free"]] * 8 + [1.0]
    assert weighed[-1] == asked[-1]


def test_the_built_in_trainer_multiplies_by_it(tmp_path: Path) -> None:
    records = toy_records(tmp_path)
    processor = build_student(TINY).processor
    drawn = []
    for weight in (1.0, 0.25):
        heavy = [replace(record, meta={**record.meta, "weight": weight}) for record in records]
        batch = ClipSource(SftConfig(clips=4, replay=0), heavy, tmp_path, processor).batch(0)
        drawn.append([example.weight for questions in batch.questions for example in questions])
    assert drawn[0] and drawn[1] == pytest.approx([weight / 4 for weight in drawn[0]])


@pytest.mark.parametrize("weight", [-1, float("nan"), "much", True])
def test_a_weight_that_is_none_is_refused(weight: object) -> None:
    with pytest.raises(InvalidInputError, match="weight"):
        _ = TaskRecord.create("D2", "?", "no", [], {"weight": weight}).weight
