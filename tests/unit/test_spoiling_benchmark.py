"""The dataset of a teacher that is wrong now and then, and what the gates leave of it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.rooms import find_trajectories, imagine
from benchmarks.train import spoiling
from benchmarks.train.spoiling import make_sets, spoil
from teacher_service.worlds.renderer import RendererWorld
from trainer.labelling import label
from world2vlm.actions import format_actions
from world2vlm.bundles import Bundle, read_bundle, write_bundle
from world2vlm.records import TaskRecord


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, world = tmp_path_factory.mktemp("clean"), RendererWorld(cache=4)
    for found in find_trajectories(world, 4, 3):
        candidate = found.candidate
        actions = format_actions(candidate.actions)
        params = {"scene_seed": found.scene, "anchor": candidate.anchor, "actions": actions}
        frames = tuple(imagine(world, found.scene, candidate))
        write_bundle(root, Bundle(f"room_{found.scene}", f"{found.number:03d}", frames, params))
    return root


@pytest.fixture(scope="module")
def names(clean: Path) -> list[str]:
    return [str(path.parent.relative_to(clean)) for path in sorted(clean.glob("scenes/*/*/traj.json"))]


def told(records: Sequence[TaskRecord]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(record.user, record.assistant, record.images) for record in records]


def test_where_nothing_is_wrong_everything_is_as_it_was(
    clean: Path, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spoiling, "SHARE", 0.0)
    for name in names[:3]:
        found = spoil(clean, tmp_path, True, name)
        assert found.accepted and not found.wrong
        for path in (clean / name).glob("frames/*.png"):
            assert (tmp_path / name / "frames" / path.name).read_bytes() == path.read_bytes()
        assert told(label(read_bundle(tmp_path / name), 0)) == told(label(read_bundle(clean / name), 0))


def test_wrong_frames_alone_differ_and_are_seen(clean: Path, names: list[str], tmp_path: Path) -> None:
    found = [spoil(clean, tmp_path, True, name) for name in names]
    wrong = [each for each in found if each.wrong]
    assert 0.1 < sum(len(each.wrong) for each in found) / (3 * len(found)) < 0.6
    assert not any(each.accepted for each in wrong)
    assert sum(each.accepted for each in found) >= 0.8 * (len(found) - len(wrong)) > 0
    for each in found:
        for path in (clean / each.name).glob("frames/*.png"):
            same = (tmp_path / each.name / "frames" / path.name).read_bytes() == path.read_bytes()
            assert same == (int(path.stem) not in each.wrong)
        poses = [[frame.c2w.tolist() for frame in read_bundle(root / each.name).frames] for root in (clean, tmp_path)]
        assert poses[0] == poses[1]  # what it claims
    assert [spoil(clean, tmp_path, True, name) for name in names] == found  # read, not made again


def test_the_sets_are_of_one_size_and_know_what_is_wrong_in_them(clean: Path, names: list[str], tmp_path: Path) -> None:
    sets = make_sets(clean, tmp_path, names, 120, with_depth=True)
    assert [len(sets.clean) > 60, len(sets.spoiled) > 60, len(sets.gated) > 60] == [True] * 3
    assert sets.wrong["clean"] == 0 == sets.wrong["gated"] < sets.wrong["spoiled"] < len(sets.spoiled)
    walked, accepted = sets.trajectories
    assert 0 < accepted < walked <= len(names)
    with pytest.raises(ValueError, match=f"{len(names)} trajectories give"):
        make_sets(clean, tmp_path, names, 1_000_000, with_depth=True)
