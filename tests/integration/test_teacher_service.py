"""The teacher over a socket: the service in this process, the real process, and the command."""

import asyncio
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from teacher_service.app import in_background
from teacher_service.cli import register
from teacher_service.photos import motorcycle
from world2vlm import convert, rpc
from world2vlm.actions import format_actions, parse_actions
from world2vlm.bundles import find_bundles, read_bundle
from world2vlm.cameras import integrate
from world2vlm.clients.teacher import TeacherClient
from world2vlm.errors import (
    GateRejectedError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)
from world2vlm.images import decode_image, decode_map, encode_png
from world2vlm.settings import TeacherSettings
from world2vlm.v1 import spatial_pb2, teacher_pb2, teacher_pb2_grpc

SCENE, ANCHOR = 7, 0
TURN = parse_actions("turn left 10 degrees")
PHOTO = encode_png(np.full((40, 60, 3), 90, dtype=np.uint8))


def settings(**changes: Any) -> TeacherSettings:
    values: dict[str, Any] = {
        "port": 0,
        "metrics_port": -1,
        "min_clearance_m": 0,
        "min_object_area": 0,
        # A flat photo proves nothing, and models of depth and of paint are others' tests.
        "with_gates": False,
        "world_options": {"geometric": {"depth_model": "none", "inpaint_model": "none"}},
    }
    return TeacherSettings(**{**values, **changes})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with in_background(settings()) as port:
        yield port


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[TeacherClient]:
    with TeacherClient(f"127.0.0.1:{port}", timeout=60) as client:
        yield client


def stub_of(port: int) -> Any:
    return teacher_pb2_grpc.TeacherServiceStub(rpc.channel(f"127.0.0.1:{port}"))


def scene_request(**changes: Any) -> teacher_pb2.ImagineRequest:
    values: dict[str, Any] = {
        "scene": teacher_pb2.SceneAnchor(scene_seed=SCENE, anchor_index=ANCHOR),
        "actions": teacher_pb2.Actions(actions=map(convert.action_to_proto, TURN)),
    }
    return teacher_pb2.ImagineRequest(**{**values, **changes})


def photo_request(**changes: Any) -> teacher_pb2.ImagineRequest:
    photo = teacher_pb2.PhotoAnchor(**{"image": spatial_pb2.Image(data=PHOTO), **changes})
    return teacher_pb2.ImagineRequest(photo=photo, actions=scene_request().actions)


def test_it_describes_its_worlds(client: TeacherClient) -> None:
    worlds = {world.name: world for world in client.describe()}
    assert set(worlds) == {"renderer", "geometric"}
    assert worlds["renderer"].takes_scenes and not worlds["renderer"].generative
    assert worlds["geometric"].takes_photos and worlds["geometric"].generative
    assert all(len(world.digest) == 64 for world in worlds.values())


def test_a_scene_comes_back_with_poses_and_objects(client: TeacherClient) -> None:
    actions = parse_actions("turn left 10 degrees; move forward 0.2 meters; turn right 5 degrees")
    frames = client.imagine_scene(SCENE, ANCHOR, actions, key_frames_only=True, with_instances=True)
    assert np.allclose([frame.c2w for frame in frames], integrate(actions), atol=1e-12)
    assert [format_actions(frame.actions_step) for frame in frames] == ["", *map(str, actions)]
    for frame in frames:
        assert decode_image(frame.png).size == frame.size == (128, 128)
        assert decode_map(frame.instances_png).shape == (128, 128)
        assert frame.intrinsics[0, 0] == pytest.approx(64)
        assert set(frame.scores) == {"clearance_m"}
    assert any(frame.objects for frame in frames)


def test_the_same_request_gives_the_same_bytes_at_any_load(client: TeacherClient, port: int) -> None:
    alone = [reply.SerializeToString(deterministic=True) for reply in stub_of(port).Imagine(scene_request())]

    async def ask(channel: grpc.aio.Channel) -> list[bytes]:
        stream = teacher_pb2_grpc.TeacherServiceStub(channel).Imagine(scene_request(), timeout=60)
        return [reply.SerializeToString(deterministic=True) async for reply in stream]

    async def crowd() -> list[list[bytes]]:
        async with rpc.aio_channel(f"127.0.0.1:{port}") as channel:
            return await asyncio.gather(*(ask(channel) for _ in range(8)))

    assert asyncio.run(crowd()) == [alone] * 8


def test_sizes_and_steps_are_as_asked(client: TeacherClient) -> None:
    frames = client.imagine_scene(SCENE, ANCHOR, TURN, width=64, height=32)
    assert len(frames) == 3
    assert [frame.key_frame for frame in frames] == [True, False, True]
    assert all(decode_image(frame.png).size == (64, 32) for frame in frames)


def test_a_photo_with_depth_moves_and_says_what_it_saw(client: TeacherClient, port: int) -> None:
    photo = motorcycle()
    path = integrate(parse_actions("move right 0.2 meters"))[1:]
    frames = client.imagine_photo(encode_png(photo.pixels), path, depth=photo.depth, intrinsics=photo.intrinsics)
    assert [frame.size for frame in frames] == [(370, 250)] * 2
    assert frames[0].scores["observed_share"] == 1
    assert 0.7 < frames[1].scores["observed_share"] < 0.95
    assert np.array_equal(np.asarray(decode_image(frames[0].png)), photo.pixels)
    first, *later = stub_of(port).Imagine(photo_request(), timeout=60)
    assert not first.frame.observed.data
    for reply in later:
        assert decode_map(reply.frame.observed.data).shape == (40, 60)


def test_without_intrinsics_the_field_of_view_is_54_degrees(client: TeacherClient) -> None:
    frames = client.imagine_photo(PHOTO, TURN)
    assert frames[0].intrinsics[0, 0] == pytest.approx(30 / math.tan(math.radians(27)))


def actions_of(**values: Any) -> teacher_pb2.Actions:
    return teacher_pb2.Actions(actions=[spatial_pb2.Action(**values)])


LEFT = spatial_pb2.PRIMITIVE_MOVE_LEFT
SMALL_K = spatial_pb2.Intrinsics(fx=50, fy=50, cx=30, cy=20, width=59, height=40)
BAD: dict[str, teacher_pb2.ImagineRequest] = {
    "no anchor": scene_request(scene=None),
    "no path": scene_request(actions=None),
    "empty path": scene_request(actions=teacher_pb2.Actions()),
    "zero": scene_request(actions=actions_of(primitive=LEFT, magnitude=0)),
    "negative": scene_request(actions=actions_of(primitive=LEFT, magnitude=-1)),
    "nan": scene_request(actions=actions_of(primitive=LEFT, magnitude=math.nan)),
    "infinite": scene_request(actions=actions_of(primitive=LEFT, magnitude=math.inf)),
    "endless": scene_request(actions=actions_of(primitive=LEFT, magnitude=1e300)),
    "no primitive": scene_request(actions=actions_of(magnitude=1)),
    "pose of 15 values": scene_request(actions=None, poses=teacher_pb2.Poses(poses=[spatial_pb2.Pose(c2w=[0] * 15)])),
    "pose that is not rigid": scene_request(
        actions=None, poses=teacher_pb2.Poses(poses=[spatial_pb2.Pose(c2w=[1] * 16)])
    ),
    "too small": scene_request(width=8),
    "too large": scene_request(height=513),
    "scene for a photo world": scene_request(world="geometric"),
    "no image": photo_request(image=None),
    "broken image": photo_request(image=spatial_pb2.Image(data=PHOTO[:40])),
    "depth of another size": photo_request(depth=bytes(40 * 60)),
    "intrinsics of another size": photo_request(intrinsics=SMALL_K),
    "depth missing for a move": teacher_pb2.ImagineRequest(
        photo=photo_request().photo, actions=actions_of(primitive=LEFT, magnitude=0.1)
    ),
}


@pytest.mark.parametrize("request_", BAD.values(), ids=BAD)
def test_bad_requests_are_invalid_arguments(port: int, request_: teacher_pb2.ImagineRequest) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub_of(port).Imagine(request_, timeout=60))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(caught.value.trailing_metadata())["error-code"] == "invalid_input"
    assert caught.value.details()


def test_an_unknown_world_is_not_found(client: TeacherClient) -> None:
    with pytest.raises(NotFoundError, match="renderer, geometric"):
        client.imagine_scene(SCENE, ANCHOR, TURN, world="dream")


def test_gates_reach_the_client_with_their_figures(client: TeacherClient) -> None:
    with (
        in_background(settings(min_clearance_m=0.25)) as port,
        TeacherClient(f"127.0.0.1:{port}") as strict,
        pytest.raises(GateRejectedError) as caught,
    ):
        strict.imagine_scene(SCENE, ANCHOR, parse_actions("move forward 9 meters"))
    assert caught.value.gate == "collision"
    assert caught.value.figure < 0.25
    with pytest.raises(GateRejectedError) as caught:
        client.imagine_photo(PHOTO, parse_actions("turn left 90 degrees"))
    assert caught.value.gate == "unobserved"


def test_one_stream_too_many_is_refused_and_a_cancelled_one_makes_room() -> None:
    long = scene_request(actions=actions_of(primitive=spatial_pb2.PRIMITIVE_TURN_LEFT, magnitude=2000))
    with in_background(settings(max_workers=1, max_queue=0)) as port, TeacherClient(f"127.0.0.1:{port}") as client:
        held = stub_of(port).Imagine(long, timeout=60)
        next(held)
        with pytest.raises(OverloadedError):
            client.imagine_scene(SCENE, ANCHOR, TURN)
        held.cancel()
        assert eventually(lambda: client.imagine_scene(SCENE, ANCHOR, TURN), but=OverloadedError)


def eventually(attempt: Callable[[], Any], but: type[Exception], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except but:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_a_deadline_ends_the_call(port: int) -> None:
    long = scene_request(
        actions=actions_of(primitive=spatial_pb2.PRIMITIVE_TURN_LEFT, magnitude=2000), width=512, height=512
    )
    with pytest.raises(grpc.RpcError) as caught:
        list(stub_of(port).Imagine(long, timeout=0.5))
    with pytest.raises(UnavailableError):
        rpc.raise_domain_error(caught.value)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    environment = {
        **os.environ,
        "WORLD2VLM_PORT": "0",
        "WORLD2VLM_METRICS_PORT": "-1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "teacher_service"]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert running.stderr
    found = (re.search(r"TeacherService on port (\d+)", line) for line in running.stderr)
    yield running, int(next(match[1] for match in found if match))
    running.kill()
    running.communicate()


def test_sigterm_lets_a_stream_finish(process: tuple[subprocess.Popen[str], int]) -> None:
    running, port = process
    turn = actions_of(primitive=spatial_pb2.PRIMITIVE_TURN_LEFT, magnitude=60)
    stream = stub_of(port).Imagine(scene_request(actions=turn, width=32, height=32), timeout=60)
    first = next(stream)
    running.send_signal(signal.SIGTERM)
    assert first.frame.count == 13
    assert len(list(stream)) == 12
    assert running.wait(30) == 0


def test_an_unknown_setting_stops_the_process(tmp_path: Path) -> None:
    environment = {**os.environ, "WORLD2VLM_PROT": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "teacher_service"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "WORLD2VLM_PROT" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.chdir(tmp_path)
    app, serve = typer.Typer(), typer.Typer()
    register(app, serve)
    app.add_typer(serve, name="serve")
    return app


def test_imagine_writes_a_bundle_and_a_strip(
    app: typer.Typer, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = '{"geometric": {"depth_model": "none", "inpaint_model": "none"}}'
    monkeypatch.setenv("WORLD2VLM_WORLD_OPTIONS", options)
    actions = "move forward 0.2 meters; turn left 5 degrees"
    arguments = ["imagine", "motorcycle", "--actions", actions, "--out", str(tmp_path)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    (folder,) = find_bundles(tmp_path)
    assert result.stdout.strip() == str(folder)
    bundle = read_bundle(folder)
    assert format_actions(bundle.actions_between(0, len(bundle.frames) - 1)) == actions
    assert bundle.params["world"] == "geometric"
    assert decode_image((folder / "strip.png").read_bytes()).width == 3 * 370
    again = CliRunner().invoke(app, [*arguments, "--url", f"127.0.0.1:{port}"], catch_exceptions=False)
    assert again.stdout == result.stdout


def test_imagine_says_what_a_photo_lacks(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD2VLM_WITH_GATES", "false")
    monkeypatch.setenv("WORLD2VLM_WORLD_OPTIONS", '{"geometric": {"depth_model": "none"}}')
    (tmp_path / "photo.png").write_bytes(PHOTO)
    arguments = ["imagine", "photo.png", "--out", "out", "--actions"]
    with pytest.raises(InvalidInputError, match="depth"):
        CliRunner().invoke(app, [*arguments, "move left 0.1 meters"], catch_exceptions=False)
    with pytest.raises(NotFoundError, match=r"dream.*set `worlds`; see docs/worlds\.md"):
        CliRunner().invoke(app, [*arguments, "turn left 5 degrees", "--world", "dream"], catch_exceptions=False)
    result = CliRunner().invoke(app, [*arguments, "turn left 5 degrees"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr.startswith("1 photograph(s) say nothing of their lens: 54 degrees from left to right")
    told = CliRunner().invoke(app, [*arguments, "turn left 5 degrees", "--fov", "60"], catch_exceptions=False)
    assert told.exit_code == 0 and "lens" not in told.stderr
