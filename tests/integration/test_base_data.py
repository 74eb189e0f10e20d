"""Views for base pre-training, from a real teacher over a socket: what its rooms' anchors see, and no motion."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from teacher_service import scenes
from teacher_service.app import in_background
from trainer import cli_training
from trainer.base_config import Rooms
from trainer.base_data import RENDER_SIZE, collect_views
from trainer.dense import patch_targets
from trainer.views import Views
from world2vlm.boxes import Box
from world2vlm.bundles import Frame, ObjectView
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.clients.teacher import TeacherClient
from world2vlm.errors import InvalidInputError, UnavailableError
from world2vlm.files import sha256_file
from world2vlm.settings import TeacherSettings
from world2vlm.vlm import StudentConfig, StudentModel, build_student

FIRST, SIZE, GRID = 1_000_000, 96, 8


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with in_background(TeacherSettings(port=0, metrics_port=-1)) as port:
        yield f"127.0.0.1:{port}"


class Recorder:
    """A real client that remembers what was asked for and what came back."""

    def __init__(self, url: str, fail_after: int = 10**9) -> None:
        self._client = TeacherClient(url)
        self._fail_after = fail_after
        self.asked: list[tuple[int, int, Any, dict[str, Any]]] = []
        self.frames: list[Frame] = []

    def imagine_scene(self, scene: int, anchor: int, path: Any, /, **rest: Any) -> list[Frame]:
        if len(self.asked) >= self._fail_after:
            raise InvalidInputError("the cable was pulled")
        self.asked.append((scene, anchor, path, rest))
        frames = self._client.imagine_scene(scene, anchor, path, **rest)
        self.frames += frames
        return frames


def render_directly(seeds: range, anchors: int) -> Views:
    frames, targets, rooms, objects = [], [], [], []
    intrinsics = intrinsics_from_fov(90, RENDER_SIZE, RENDER_SIZE)
    for seed in seeds:
        room = scenes.build_room(seed)
        renderer = scenes.SceneRenderer(room)
        for anchor in range(anchors):
            view = renderer.render(scenes.anchor_pose(room, anchor), intrinsics, RENDER_SIZE, RENDER_SIZE)
            seen = [
                ObjectView(item.instance_id, item.category, item.colour, Box(*corners), area)
                for item, corners, area in scenes.object_boxes(view, room)
            ]
            frames.append(np.asarray(Image.fromarray(view.rgb).resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
            instances = Image.fromarray(view.instances).resize((SIZE, SIZE), Image.Resampling.NEAREST)
            targets.append(patch_targets(np.asarray(instances), seen, GRID))
            rooms.append(seed)
            objects.append(seen)
    return Views(np.stack(frames), np.stack(targets), np.array(rooms), objects)


def assert_same(first: Views, second: Views) -> None:
    for name in ("frames", "targets", "scenes"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert list(map(list, first.objects)) == list(map(list, second.objects))


def test_views_equal_direct_rendering(url: str, tmp_path: Path) -> None:
    done: list[int] = []
    views = collect_views(TeacherClient(url), FIRST, 2, 3, SIZE, GRID, tmp_path, done.append)
    assert_same(views, render_directly(range(FIRST, FIRST + 2), 3))
    assert views.frames.shape == (6, SIZE, SIZE, 3) and views.targets.shape == (6, GRID * GRID, 6)
    assert views.scenes.tolist() == [FIRST] * 3 + [FIRST + 1] * 3
    assert sum(done) == 2
    # The frames are what the student's own processor would make of the teacher's images.
    frame = TeacherClient(url).imagine_scene(FIRST, 0, np.eye(4)[None])[0]
    processor = build_student(StudentConfig()).processor
    (tmp_path / "frame.png").write_bytes(frame.png)
    assert np.array_equal(processor.to_frame(Image.open(tmp_path / "frame.png")), views.frames[0])


def test_the_teacher_is_never_asked_for_motion(url: str, tmp_path: Path) -> None:
    teacher = Recorder(url)
    collect_views(teacher, FIRST, 2, 2, SIZE, GRID, tmp_path)
    assert sorted((scene, anchor) for scene, anchor, *_ in teacher.asked) == [
        (FIRST, 0), (FIRST, 1), (FIRST + 1, 0), (FIRST + 1, 1),
    ]  # fmt: skip
    for _scene, _anchor, path, rest in teacher.asked:
        assert np.array_equal(path, np.eye(4)[None])
        assert not set(rest) & {"actions", "poses"}
    # And no frame that came back was seen from anywhere but its anchor.
    assert all(np.array_equal(frame.c2w, np.eye(4)) and not frame.actions_step for frame in teacher.frames)


def test_a_collection_continues_where_it_ended(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.base_data.ROOMS_PER_SHARD", 2)
    monkeypatch.setattr("trainer.base_data._WORKERS", 1)
    with pytest.raises(InvalidInputError, match="cable"):
        collect_views(Recorder(url, fail_after=5), FIRST, 6, 2, SIZE, GRID, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1  # the first shard and nothing half done
    second = Recorder(url)
    views = collect_views(second, FIRST, 6, 2, SIZE, GRID, tmp_path)
    assert {scene for scene, *_ in second.asked} == set(range(FIRST + 2, FIRST + 6))
    assert_same(views, render_directly(range(FIRST, FIRST + 6), 2))
    nobody = Recorder(url, fail_after=0)
    assert_same(collect_views(nobody, FIRST, 6, 2, SIZE, GRID, tmp_path), views)
    assert nobody.asked == []


def test_other_sizes_are_other_shards(url: str, tmp_path: Path) -> None:
    collect_views(TeacherClient(url), FIRST, 1, 1, SIZE, GRID, tmp_path)
    views = collect_views(TeacherClient(url), FIRST, 1, 1, 64, 4, tmp_path)
    assert views.frames.shape == (1, 64, 64, 3) and views.targets.shape == (1, 16, 6)


def test_rejected_anchors_are_left_out(tmp_path: Path) -> None:
    lenient = render_directly(range(FIRST, FIRST + 4), 3)
    largest = [max(view.area for view in seen) for seen in lenient.objects]
    least = sorted(largest)[5]
    kept = [index for index, area in enumerate(largest) if area >= least]
    assert 0 < len(kept) < len(largest)
    strict = TeacherSettings(port=0, metrics_port=-1, min_object_area=least)
    with in_background(strict) as port:
        views = collect_views(TeacherClient(f"127.0.0.1:{port}"), FIRST, 4, 3, SIZE, GRID, tmp_path / "some")
        assert np.array_equal(views.frames, lenient.frames[kept])
        assert views.scenes.tolist() == lenient.scenes[kept].tolist()
    impossible = TeacherSettings(port=0, metrics_port=-1, min_object_area=0.99)
    with (
        in_background(impossible) as port,
        pytest.raises(InvalidInputError, match="no anchor"),
    ):
        collect_views(TeacherClient(f"127.0.0.1:{port}"), FIRST, 2, 2, SIZE, GRID, tmp_path / "none")


def test_a_teacher_that_is_away_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.base_data._PATIENCE_S", 0.3)
    with pytest.raises(UnavailableError):
        collect_views(TeacherClient("127.0.0.1:1", timeout=5), FIRST, 1, 1, SIZE, GRID, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_overlapping_rooms_are_noticed() -> None:
    assert Rooms(0, 10, 1).overlap(Rooms(9, 1, 1)) and Rooms(9, 1, 1).overlap(Rooms(0, 10, 1))
    assert not Rooms(0, 10, 1).overlap(Rooms(10, 5, 1)) and not Rooms(10, 5, 1).overlap(Rooms(0, 10, 1))


RECIPE = f"""
description = "A small one."
[base]
steps = 2
probes = 8
training = {{first_seed = {FIRST}, rooms = 2, anchors = 2}}
held_out = {{first_seed = 2000000, rooms = 2, anchors = 2}}
"""


def train(url: str, folder: Path, *options: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WORLD2VLM_TEACHER_URL", url)
    (folder / "small.toml").write_text(RECIPE, encoding="utf-8")
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("train")(cli_training.train)
    return CliRunner().invoke(app, ["train", "--recipe", "small.toml", *options])


def test_the_recipe_makes_a_student_with_its_card(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = train(url, tmp_path, "--out", "student", monkeypatch=monkeypatch)
    assert result.exit_code == 0, result.output
    assert "where" in result.output and "baselines" in result.output
    out = tmp_path / "student"
    card = json.loads((out / "card.json").read_text())
    assert card["weights"]["sha256"] == sha256_file(out / "model.safetensors")
    assert card["data"]["training"] == {"first_seed": FIRST, "rooms": 2, "anchors": 2, "views": 4}
    assert card["data"]["held_out"]["first_seed"] == 2_000_000
    assert card["data"]["world"]["name"] == "renderer"
    assert card["recipe"]["steps"] == 2 and json.loads((out / "recipe.json").read_text())["base"]["steps"] == 2
    assert card["probes"]["kinds"]["where"]["n"] == 8
    assert StudentModel.load(out).processor.frame_size == SIZE


def test_a_dry_run_of_it_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = train("127.0.0.1:1", tmp_path, "--dry-run", monkeypatch=monkeypatch)
    assert result.exit_code == 0, result.output
    estimate = json.loads(result.output)["estimate"]
    assert estimate["parameters"] == 1_498_688 and estimate["steps"] == 2


@pytest.mark.parametrize("options", [(), ("--out", "student", "--parent", "1"), ("--out", "student", "--dataset", "x")])
def test_it_takes_a_folder_and_no_more(tmp_path: Path, options: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    result = train("127.0.0.1:1", tmp_path, *options, monkeypatch=monkeypatch)
    assert isinstance(result.exception, InvalidInputError)
    assert not (tmp_path / "student").exists()
