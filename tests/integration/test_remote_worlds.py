"""Worlds in processes of their own: real launcher, workers and conversions, around stand-ins for the models' packages.

The stand-ins show the photo as a painting two units ahead, so that turns and metres can be measured in the frames;
what a real model makes of the same conditions is not seen here.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from teacher_service.paths import from_actions, from_poses
from teacher_service.remote import RemoteWorld
from teacher_service.worlds import hy_worldplay, svc
from teacher_service.worlds.base import Photo, ScenePoint
from tests.remote_kit import (
    PLANE_UNITS,
    Controls,
    frames_of,
    painting,
    pixels_of,
    remote_world,
    shift_between,
    spec,
    wait_until,
)
from world2vlm.actions import format_actions, parse_actions
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats, integrate
from world2vlm.clients.teacher import TeacherClient
from world2vlm.errors import InvalidInputError, UnavailableError, World2VLMError
from world2vlm.images import decode_map

pytestmark = pytest.mark.slow

BOTH = (svc.NAME, hy_worldplay.NAME)


@pytest.fixture(params=BOTH, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(name)


@pytest.fixture(scope="module")
def world(name: str, folder: Path) -> Iterator[RemoteWorld]:
    with remote_world(name, folder) as found:
        yield found


@pytest.fixture
def controls(folder: Path) -> Iterator[Controls]:
    """The shared world's stand-in; as it was when the test is over."""
    controls = Controls(folder)
    controls.forget()
    yield controls
    controls.tell("step", "")


def yaw_of(c2w: Floats) -> float:
    return float(np.degrees(np.arctan2(c2w[0, 2], c2w[2, 2])))


@pytest.mark.parametrize(("actions", "degrees"), [("turn left 15 degrees", -15), ("turn right 15 degrees", 15)])
def test_the_camera_turns_the_way_it_was_told(world: RemoteWorld, actions: str, degrees: float) -> None:
    frames = frames_of(world, spec(actions))
    assert yaw_of(frames[-1].c2w) == pytest.approx(degrees)
    focal = frames[0].intrinsics[0, 0]
    assert shift_between(frames[0], frames[-1]) == pytest.approx(-focal * np.tan(np.radians(degrees)), abs=1.5)


def test_metres_are_the_units_that_were_asked_for(name: str, tmp_path: Path) -> None:
    units = 2.0
    with remote_world(name, tmp_path, units_per_metre=units) as world:
        # More targets than one forward pass of `svc` holds, of which none begins at the photo.
        frames = frames_of(world, spec("; ".join(["move left 0.04 meters"] * 2 + ["move left 0.08 meters"] * 4)))
        long = frames_of(world, spec("turn left 60 degrees; turn right 60 degrees; move right 0.4 meters"))
    focal = frames[0].intrinsics[0, 0]
    for frame in frames[1:]:
        expected = -frame.c2w[0, 3] * units / PLANE_UNITS * focal
        assert shift_between(frames[0], frame) == pytest.approx(expected, abs=1.5)
    assert frames[-1].c2w[0, 3] == pytest.approx(-0.4)
    assert shift_between(long[0], long[-1]) == pytest.approx(-0.4 * units / PLANE_UNITS * focal, abs=1.5)


def test_frames_say_what_was_really_used(name: str, world: RemoteWorld) -> None:
    asked = spec("turn left 10 degrees; move forward 0.5 meters", seed=3)
    frames = list(world.imagine(asked))
    assert len(frames) == len(asked.path)
    assert [frame.key_frame for frame in frames] == [waypoint.key_frame for waypoint in asked.path]
    # The actions between any two frames lead from the one's pose to the other's, snapped or not.
    for before, after in pairwise(frames):
        assert np.allclose(integrate(after.actions_step, before.c2w)[-1], after.c2w, atol=1e-6)
    commanded = [waypoint.c2w for waypoint in asked.path]
    exact = [np.array_equal(frame.c2w, pose) for frame, pose in zip(frames, commanded, strict=True)]
    if name == svc.NAME:
        assert all(exact)
        assert {frame.size for frame in frames} == {(128, 128)}
    else:
        assert format_actions(frames[2].actions_step) == "turn left 3 degrees"  # 6, then 3, are 9 of the 10
        assert not exact[2]
        assert {frame.size for frame in frames} == {(208, 128)}
    width, height = frames[0].size
    photo = painting()
    shown = min(photo.pixels.shape[1] / width, photo.pixels.shape[0] / height)
    for frame in frames:
        assert np.allclose(frame.intrinsics[0], (photo.intrinsics[0, 0] / shown, 0, width / 2))
        assert pixels_of(frame).shape == (height, width, 3)
    assert not frames[0].observed_png
    assert all(not decode_map(each.observed_png).any() for each in frames[1:])


def test_a_path_that_stays_gives_the_photo_itself(world: RemoteWorld) -> None:
    side = frames_of(world, spec("turn left 6 degrees"))[0].size
    rng = np.random.default_rng(1)
    photo = Photo(
        rng.integers(0, 256, (side[1], side[0], 3), dtype=np.uint8),
        np.array([[90.0, 0, side[0] / 2], [0, 90.0, side[1] / 2], [0, 0, 1]]),
    )
    still = replace(spec("turn left 6 degrees"), anchor=photo, path=from_poses([np.eye(4)] * 2))
    for frame in frames_of(world, still):
        assert np.array_equal(pixels_of(frame), photo.pixels)
        assert np.array_equal(frame.intrinsics, photo.intrinsics)


def test_the_same_request_gives_the_same_bytes_and_another_seed_does_not(world: RemoteWorld) -> None:
    asked = spec("turn right 9 degrees", seed=2**64 - 1)
    first, again, other = (frames_of(world, each) for each in (asked, asked, replace(asked, seed=8)))
    assert [frame.png for frame in first] == [frame.png for frame in again]
    assert first[-1].png != other[-1].png


def test_what_the_world_cannot_do_is_refused_with_its_own_words(name: str, world: RemoteWorld) -> None:
    asked = spec("turn left 6 degrees")
    with pytest.raises(InvalidInputError, match="photos, not scenes"):
        frames_of(world, replace(asked, anchor=ScenePoint(1, 0)))
    off = painting().intrinsics.copy()
    off[0, 2] = -4
    with pytest.raises(InvalidInputError, match="principal point"):
        frames_of(world, replace(asked, anchor=replace(painting(), intrinsics=off)))
    if name == hy_worldplay.NAME:
        up = np.eye(4)
        up[1, 3] = -0.5
        with pytest.raises(InvalidInputError, match="rises"):
            frames_of(world, replace(asked, path=from_poses([up])))
        with pytest.raises(InvalidInputError, match="at most 64"):
            frames_of(world, replace(asked, path=from_actions(parse_actions("; ".join(["turn left 90 degrees"] * 3)))))


def test_a_worker_answers_the_teacher_s_own_client(world: RemoteWorld) -> None:
    frames_of(world, spec("turn left 6 degrees"))
    with TeacherClient(world.worker.wait(lambda: False)) as client:
        (info,) = client.describe()
    assert info == world.info


def test_terms_are_those_of_the_licence(world: RemoteWorld) -> None:
    info = world.info
    assert not info.outputs_may_train
    assert not info.outputs_may_be_sold
    assert (info.lanes, info.generative, info.metric) == (1, True, False)
    assert "https://github.com/" in info.terms
    assert info.excluded_regions == (("EU", "GB", "KR") if info.name == hy_worldplay.NAME else ())


# Processes.


def assert_it_stopped(controls: Controls) -> None:
    # One step may be under way when the word comes, and it takes a while to come.
    time.sleep(0.5)
    begun = len(controls.steps)
    assert begun <= 7  # of 150 and more
    time.sleep(0.5)
    assert len(controls.steps) == begun


def test_cancelling_stops_the_model_within_a_step(world: RemoteWorld, controls: Controls) -> None:
    controls.tell("step", 0.2)
    cancelled = threading.Event()
    found: list[Frame] = []
    asked = spec("turn left 90 degrees", is_cancelled=cancelled.is_set)
    reader = threading.Thread(target=lambda: found.extend(world.imagine(asked)))
    reader.start()
    wait_until(lambda: len(controls.steps) >= 2)
    cancelled.set()
    reader.join(1)
    assert not reader.is_alive()
    assert len(found) == 1  # the photo itself
    assert_it_stopped(controls)
    controls.tell("step", "")
    assert len(frames_of(world, spec("turn left 6 degrees"))) == 3


def test_leaving_the_frames_alone_stops_the_model_too(world: RemoteWorld, controls: Controls) -> None:
    controls.tell("step", 0.2)
    frames = world.imagine(spec("turn left 90 degrees"))
    assert not next(frames).observed_png
    wait_until(lambda: len(controls.steps) >= 2)
    del frames
    assert_it_stopped(controls)


def test_one_request_at_a_time_and_waiting_ones_can_be_cancelled(world: RemoteWorld, controls: Controls) -> None:
    controls.tell("step", 0.1)
    asked = spec("turn left 9 degrees")
    found: list[int] = []
    readers = [threading.Thread(target=lambda: found.append(len(frames_of(world, asked)))) for _ in range(2)]
    for reader in readers:
        reader.start()
    wait_until(lambda: len(controls.steps) >= 1)
    gone = threading.Event()
    gone.set()
    assert frames_of(world, replace(asked, is_cancelled=gone.is_set)) == []
    for reader in readers:
        reader.join(60)
    assert found == [3, 3]
    steps = controls.steps
    assert len(steps) % 2 == 0
    assert steps[: len(steps) // 2] == steps[len(steps) // 2 :]  # one after the other, not mixed
    assert steps[:3] == [0, 1, 2]


def test_a_reader_that_rests_keeps_the_world_from_nobody(world: RemoteWorld) -> None:
    resting = world.imagine(spec("turn left 9 degrees"))
    first = next(resting)
    assert len(frames_of(world, spec("turn left 6 degrees"))) == 3
    assert [first, *resting][-1].png == frames_of(world, spec("turn left 9 degrees"))[-1].png


def test_the_inside_of_a_failure_is_in_our_log_and_not_in_the_reply(
    world: RemoteWorld, controls: Controls, caplog: pytest.LogCaptureFixture
) -> None:
    controls.tell("step", "fail")
    with caplog.at_level(logging.ERROR), pytest.raises(World2VLMError) as caught:
        frames_of(world, spec("turn left 9 degrees"))
    assert type(caught.value) is World2VLMError  # which the teacher answers with INTERNAL
    assert "secret" not in str(caught.value)
    assert "secret of the inside" in caplog.text
    process = world.worker.pid
    controls.tell("step", "")
    assert len(frames_of(world, spec("turn left 9 degrees"))) == 3
    assert world.worker.pid == process  # a request that failed does not end it


def test_a_worker_that_is_killed_fails_its_request_and_the_next_one_works(
    world: RemoteWorld, controls: Controls, caplog: pytest.LogCaptureFixture
) -> None:
    controls.tell("step", 0.2)
    frames = world.imagine(spec("turn left 90 degrees"))
    next(frames)
    wait_until(lambda: len(controls.steps) >= 1)
    first = world.worker.pid
    assert first is not None
    controls.tell("step", "")
    with caplog.at_level(logging.ERROR):
        os.kill(first, signal.SIGKILL)
        with pytest.raises(UnavailableError, match="ended while it imagined") as caught:
            next(frames)
        assert "sock" not in str(caught.value)
        assert len(frames_of(world, spec("turn left 9 degrees"))) == 3
    assert world.worker.pid != first
    assert "its process ended with exit code -9; its output ends with:" in caplog.text
