import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from world2vlm.actions import Action, format_actions, parse_actions
from world2vlm.boxes import Box
from world2vlm.bundles import Bundle, Frame, ObjectView, find_bundles, read_bundle, read_observed, write_bundle
from world2vlm.cameras import integrate, intrinsics_from_fov, subdivide
from world2vlm.errors import DataCorruptedError

CHAIR = ObjectView(7, "chair", "red", Box(10, 20, 300, 400), 0.09)


def make_bundle(actions: list[Action], trajectory: str = "3") -> Bundle:
    poses = integrate(actions)
    steps: list[tuple[Action, ...]] = [(), *((action,) for action in actions)]
    frames = tuple(
        Frame(
            png=f"png {index}".encode(),
            c2w=pose,
            intrinsics=intrinsics_from_fov(90, 128, 96),
            size=(128, 96),
            actions_step=step,
            key_frame=index % 2 == 0,
            objects=(CHAIR,) if index else (),
            instances_png=b"instances" if index else b"",
            observed_png=b"observed" if index else b"",
            scores={"sharpness": 0.5},
            path=f"frames/{index:03d}.png",
        )
        for index, (pose, step) in enumerate(zip(poses, steps, strict=True))
    )
    return Bundle("12", trajectory, frames, {"world": "renderer", "seed": 5})


BUNDLE = make_bundle(parse_actions("FWD_0.5 TL_30 FWD_1"))


def test_a_bundle_reads_back_as_it_was(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, BUNDLE)
    assert folder == tmp_path / "scenes" / "12" / "traj_3"
    read = read_bundle(folder)
    assert (read.scene, read.trajectory, read.params) == (BUNDLE.scene, BUNDLE.trajectory, BUNDLE.params)
    for before, after in zip(BUNDLE.frames, read.frames, strict=True):
        assert (folder / after.path).read_bytes() == before.png
        assert np.array_equal(after.c2w, before.c2w)
        assert np.array_equal(after.intrinsics, before.intrinsics)
        for field in ("size", "actions_step", "key_frame", "objects", "scores", "path"):
            assert getattr(after, field) == getattr(before, field), field


def test_the_file_has_world2vlms_keys(tmp_path: Path) -> None:
    payload = json.loads((write_bundle(tmp_path, BUNDLE) / "traj.json").read_text())
    assert payload["actions_step"] == [[], ["FWD_0.5"], ["TL_30"], ["FWD_1"]]
    assert payload["actions_prefix"] == [[], ["FWD_0.5"], ["FWD_0.5", "TL_30"], ["FWD_0.5", "TL_30", "FWD_1"]]
    assert payload["frame_ids_kept"] == [0, 1, 2, 3]
    assert payload["key_frame_indices"] == [0, 2]
    assert payload["traj_params"] == {"world": "renderer", "seed": 5}
    frame = payload["transforms"]["frames"][1]
    assert frame["file_path"] == "./frames/001.png"
    assert [frame[key] for key in ("fl_x", "fl_y", "cx", "cy")] == pytest.approx([64, 64, 64, 48])
    assert (frame["w"], frame["h"]) == (128, 96)
    assert frame["transform_matrix"][2] == [0, 0, 1, 0.5]


def test_instance_maps_lie_beside_the_frames(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, BUNDLE)
    assert sorted(os.listdir(folder / "instances")) == ["001.png", "002.png", "003.png"]


def test_maps_of_what_was_observed_lie_beside_the_frames(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, BUNDLE)
    assert sorted(os.listdir(folder / "observed")) == ["001.png", "002.png", "003.png"]
    assert [read_observed(folder, index) for index in (0, 1)] == [b"", b"observed"]


def test_a_bundle_without_maps_and_gates_reads_as_all_observed(tmp_path: Path) -> None:
    older = dataclasses.replace(
        BUNDLE, frames=tuple(dataclasses.replace(f, observed_png=b"", instances_png=b"") for f in BUNDLE.frames)
    )
    folder = write_bundle(tmp_path, older)
    payload = json.loads((folder / "traj.json").read_text())
    del payload["gates"]
    (folder / "traj.json").write_text(json.dumps(payload))
    assert sorted(os.listdir(folder)) == ["frames", "traj.json"]
    assert [frame.observed_png for frame in read_bundle(folder).frames] == [b""] * 4
    assert read_observed(folder, 2) == b""


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(0, 0, ""), (0, 1, "FWD_0.5"), (1, 2, "TL_30"), (1, 3, "TL_30 FWD_1"), (0, 3, "FWD_0.5 TL_30 FWD_1")],
)
def test_actions_between_frames(first: int, last: int, expected: str) -> None:
    assert " ".join(action.short for action in BUNDLE.actions_between(first, last)) == expected


def test_small_steps_are_the_whole_motion_after_reading_back(tmp_path: Path) -> None:
    steps = [step for action in parse_actions("FWD_0.5 TL_20 LEFT_0.7") for step in subdivide(action)]
    read = read_bundle(write_bundle(tmp_path, make_bundle(steps)))
    text = format_actions(read.actions_between(0, len(steps)))
    assert text == "move forward 0.5 meters; turn left 20 degrees; move left 0.7 meters"


def test_writing_twice_keeps_the_first(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, BUNDLE)
    again = dataclasses.replace(BUNDLE, params={"world": "other"})
    assert write_bundle(tmp_path, again) == folder
    assert read_bundle(folder).params == BUNDLE.params
    assert os.listdir(folder.parent) == ["traj_3"]


def test_a_folder_without_its_last_file_is_no_bundle_and_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / BUNDLE.relative_path
    (folder / "frames").mkdir(parents=True)
    (folder / "frames" / "009.png").write_bytes(b"half")
    (folder.parent / ".traj_3.0123" / "frames").mkdir(parents=True)
    (folder.parent / ".traj_3.0123" / "traj.json").write_text("{}")
    assert list(find_bundles(tmp_path)) == []
    write_bundle(tmp_path, BUNDLE)
    assert list(find_bundles(tmp_path)) == [folder]
    assert not (folder / "frames" / "009.png").exists()


def test_bundles_are_found_in_a_fixed_order(tmp_path: Path) -> None:
    for trajectory in ("2", "0", "1"):
        write_bundle(tmp_path, make_bundle(parse_actions("FWD_1"), trajectory))
    assert [folder.name for folder in find_bundles(tmp_path)] == ["traj_0", "traj_1", "traj_2"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"key_frame_indices": [], "transforms": {"frames": [{"file_path": 1}]}}',
        '{"key_frame_indices": 5}',
    ],
)
def test_a_broken_file_is_corrupted_data(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "traj_0"
    folder.mkdir()
    (folder / "traj.json").write_text(content)
    with pytest.raises(DataCorruptedError, match="traj_0"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("file_path", 1),
        ("transform_matrix", [[1, 2], [3]]),
        ("fl_x", "wide"),
    ],
)
def test_a_broken_frame_is_corrupted_data(tmp_path: Path, key: str, value: object) -> None:
    folder = write_bundle(tmp_path, BUNDLE)
    payload = json.loads((folder / "traj.json").read_text())
    payload["transforms"]["frames"][1][key] = value
    (folder / "traj.json").write_text(json.dumps(payload))
    with pytest.raises(DataCorruptedError):
        read_bundle(folder)


def test_a_bundle_s_own_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path, BUNDLE)
    assert list(find_bundles(folder)) == [folder]
    monkeypatch.chdir(folder)
    [here] = find_bundles(Path("."))
    assert (read_bundle(here).scene, read_bundle(here).trajectory) == (folder.parent.name, "3")
    monkeypatch.chdir(folder.parent)
    [near] = find_bundles(Path(folder.name))
    assert read_bundle(near).scene == folder.parent.name


def test_a_broken_object_is_corrupted_data(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, BUNDLE)
    payload = json.loads((folder / "traj.json").read_text())
    payload["objects"][1][0]["bbox_norm"] = [300, 20, 10, 400]
    (folder / "traj.json").write_text(json.dumps(payload))
    with pytest.raises(DataCorruptedError, match="a box needs"):
        read_bundle(folder)


def test_a_missing_file_is_corrupted_data(tmp_path: Path) -> None:
    with pytest.raises(DataCorruptedError):
        read_bundle(tmp_path / "traj_0")
