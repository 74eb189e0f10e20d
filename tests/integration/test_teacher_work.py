"""What the teacher does with its time, over a socket: nothing for who has left, nothing twice, one thing at a time."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client import REGISTRY

from teacher_service.gates.settings import GateSettings
from teacher_service.gating import judged_by, read_gate_settings
from teacher_service.photos import motorcycle
from teacher_service.worlds.base import ImagineSpec
from teacher_service.worlds.geometric import GeometricWorld
from teacher_service.worlds.renderer import RendererWorld
from tests.round_kit import free_port
from tests.teacher_kit import INFO, StepWorld, WarmWorld, eventually, named, seeds, serving
from world2vlm import convert, rpc
from world2vlm.actions import parse_actions
from world2vlm.bundles import Frame, GateVerdict
from world2vlm.cameras import integrate
from world2vlm.clients.teacher import TeacherClient
from world2vlm.errors import (
    GateRejectedError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
    World2VLMError,
)
from world2vlm.health import is_serving
from world2vlm.images import encode_png
from world2vlm.v1 import spatial_pb2, teacher_pb2, teacher_pb2_grpc
from world2vlm.worlds import WorldInfo

TURN = parse_actions("turn left 10 degrees")
PHOTO = encode_png(np.full((16, 24, 3), 90, dtype=np.uint8))
NAME = "world2vlm.v1.TeacherService"


def ask(url: str, timeout: float = 60, **changes: Any) -> Any:
    request = teacher_pb2.ImagineRequest(
        **{
            "scene": teacher_pb2.SceneAnchor(scene_seed=7),
            "actions": teacher_pb2.Actions(actions=map(convert.action_to_proto, TURN)),
            **changes,
        }
    )
    return teacher_pb2_grpc.TeacherServiceStub(rpc.channel(url)).Imagine(request, timeout=timeout)


# Leaving


def test_a_cancelled_call_stops_the_world_within_one_step() -> None:
    world = StepWorld(steps=10_000, pause_s=0.02)
    with serving(world) as url:
        call = ask(url)
        assert world.began.wait(20)
        call.cancel()
        eventually(lambda: world.stopped == 1)
        assert world.done < 500
        # Its lane is free again.
        world.steps = 2
        assert len(list(ask(url, seed=1))) == 3


def test_a_deadline_stops_the_work() -> None:
    world = StepWorld(steps=10_000, pause_s=0.02)
    with serving(world) as url:
        with pytest.raises(grpc.RpcError) as caught:
            list(ask(url, timeout=0.5))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: world.stopped == 1)
        assert world.done < 500


def test_a_client_that_vanishes_stops_the_work() -> None:
    world = StepWorld(steps=10_000, pause_s=0.02)
    with serving(world) as url:
        channel = rpc.channel(url)
        request = teacher_pb2.ImagineRequest(
            scene=teacher_pb2.SceneAnchor(), actions=teacher_pb2.Actions(actions=map(convert.action_to_proto, TURN))
        )
        # Without a name it would be cancelled right here.
        _call = teacher_pb2_grpc.TeacherServiceStub(channel).Imagine(request)
        assert world.began.wait(20)
        channel.close()
        eventually(lambda: world.stopped == 1)


# Progress


def test_steps_are_told_to_who_asks() -> None:
    world = StepWorld(steps=4, pause_s=0.01)
    with serving(world) as url:
        messages = list(ask(url, with_progress=True))
        progress = [
            (message.progress.done, message.progress.total) for message in messages if not message.HasField("frame")
        ]
        assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert [message.frame.index for message in messages[4:]] == [0, 1, 2]
        assert all(message.HasField("frame") for message in ask(url, seed=1))
        told: list[tuple[int, int]] = []
        with TeacherClient(url) as client:
            frames = client.imagine_photo(PHOTO, TURN, on_progress=lambda done, total: told.append((done, total)))
        assert len(frames) == 3
        assert told == [(1, 4), (2, 4), (3, 4), (4, 4), (1, 3), (2, 3), (3, 3)]


# Nothing twice


def test_what_is_asked_for_at_once_is_made_once() -> None:
    world = StepWorld(steps=5, pause_s=0.02)
    with serving(world) as url, ThreadPoolExecutor(8) as threads:
        everything = list(threads.map(lambda _: [m.SerializeToString() for m in ask(url)], range(8)))
    assert len(world.calls) == 1
    assert all(got == everything[0] for got in everything) and len(everything[0]) == 3


def test_the_cache_answers_after_a_restart_and_corrupt_entries_are_made_again(tmp_path: Path) -> None:
    world = StepWorld()
    got = []
    for _ in range(2):
        with serving(world, cache_dir=tmp_path) as url:
            got += [[m.SerializeToString() for m in ask(url)] for _ in range(2)]
    assert len(world.calls) == 1 and got == [got[0]] * 4
    (entry,) = tmp_path.glob("*/*")
    entry.write_bytes(entry.read_bytes()[:-3])
    with serving(world, cache_dir=tmp_path) as url:
        assert [m.SerializeToString() for m in ask(url)] == got[0]
    assert len(world.calls) == 2


def photo_of(**changes: Any) -> dict[str, Any]:
    photo = {"image": spatial_pb2.Image(data=PHOTO), **changes}
    return {"scene": None, "photo": teacher_pb2.PhotoAnchor(**photo)}


OTHERS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "scene": {"scene": teacher_pb2.SceneAnchor(scene_seed=8)},
    "anchor": {"scene": teacher_pb2.SceneAnchor(scene_seed=7, anchor_index=1)},
    "size": {"width": 64},
    "instances": {"with_instances": True},
    "key frames": {"key_frames_only": True},
    "path": {
        "actions": teacher_pb2.Actions(actions=map(convert.action_to_proto, parse_actions("turn left 9 degrees")))
    },
    "poses": {
        "actions": None,
        "poses": teacher_pb2.Poses(poses=[convert.pose_to_proto(pose) for pose in integrate(TURN)[1:]]),
    },
    "photo": photo_of(),
    "other photo": photo_of(image=spatial_pb2.Image(data=encode_png(np.zeros((16, 24, 3), np.uint8)))),
    "depth": photo_of(depth=np.ones((16, 24), "<f4").tobytes()),
    "other depth": photo_of(depth=np.full((16, 24), 2, "<f4").tobytes()),
    "intrinsics": photo_of(intrinsics=spatial_pb2.Intrinsics(fx=20, fy=20, cx=12, cy=8, width=24, height=16)),
}


def test_whatever_frames_depend_on_makes_another_entry(tmp_path: Path) -> None:
    world = StepWorld()
    with serving(world, cache_dir=tmp_path) as url:
        for _ in range(2):
            for changes in ({}, *OTHERS.values()):
                list(ask(url, **changes))
    assert len(world.calls) == 1 + len(OTHERS)
    again = StepWorld()
    with serving(named(again, digest="cd" * 32), cache_dir=tmp_path) as url:
        list(ask(url))
    with serving(again, made_with="other options", cache_dir=tmp_path) as url:
        list(ask(url))
    assert len(again.calls) == 2


# One thing at a time


def test_a_world_with_one_lane_makes_one_trajectory_at_a_time_and_others_go_on() -> None:
    gpu, cpu = StepWorld(steps=2, pause_s=0.01), named(StepWorld(steps=2, pause_s=0.01), name="cpu", lanes=0)
    with serving(gpu, cpu, max_workers=3) as url, ThreadPoolExecutor(12) as threads:
        wanted = [("steps", seed) for seed in range(6)] + [("cpu", seed) for seed in range(6)]
        got = list(threads.map(lambda each: len(list(ask(url, world=each[0], seed=each[1]))), wanted))
    assert got == [3] * 12
    assert (gpu.most_at_once, cpu.most_at_once > 1) == (1, True)
    assert sorted(seeds(gpu.calls)) == sorted(seeds(cpu.calls)) == list(range(6))


def test_a_full_queue_refuses_with_a_hint() -> None:
    world = StepWorld(steps=10_000, pause_s=0.02)
    with serving(world, max_workers=1, max_queue=1) as url:
        held = [ask(url, seed=seed) for seed in range(2)]
        assert world.began.wait(20)
        with pytest.raises(grpc.RpcError) as caught:
            eventually(lambda: not list(ask(url, seed=9, timeout=5)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(caught.value.trailing_metadata())
        assert trailers["error-code"] == "overloaded" and int(trailers["retry-after-ms"]) >= 100
        with pytest.raises(OverloadedError), TeacherClient(url) as client:
            client.imagine_scene(7, 0, TURN)
        for call in held:
            call.cancel()


# Warm start


def test_it_says_that_it_serves_once_its_worlds_are_warm() -> None:
    world, free = WarmWorld(), free_port()
    addresses: list[str] = []
    over = threading.Event()

    def serve() -> None:
        with serving(world, port=free) as url:
            addresses.append(url)
            over.wait(60)

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"127.0.0.1:{free}"
    try:
        with TeacherClient(url) as client:
            eventually(lambda: said(client) == "the service is warming up; try again in a moment")
        assert not is_serving(url) and not is_serving(url, service=NAME) and not addresses
        world.go.set()
        eventually(lambda: is_serving(url) and is_serving(url, service=NAME))
        assert len(list(ask(url))) == 3
    finally:
        world.go.set()
        over.set()
        thread.join()


def said(client: TeacherClient) -> str:
    try:
        client.describe()
    except UnavailableError as error:
        return str(error)
    return ""


def test_a_world_that_cannot_be_warmed_ends_the_service() -> None:
    world = WarmWorld(NotFoundError("the weights are gone"))
    world.go.set()
    with pytest.raises(NotFoundError, match="weights are gone"), serving(world):
        pass


# Gates


def strict(info: WorldInfo, spec: ImagineSpec, frames: Iterator[Frame]) -> Iterator[Frame]:
    """Fails the second frame."""
    for index, frame in enumerate(frames):
        verdicts = (
            GateVerdict("sharpness", 0.9, True),
            GateVerdict("yaw", 4.0, index != 1, "" if index != 1 else "it turns right"),
        )
        yield replace(frame, gates=verdicts, scores={"yaw_deg": 4.0})


def test_a_failed_gate_ends_the_stream_unless_rejected_frames_are_wanted(tmp_path: Path) -> None:
    world = StepWorld()
    with serving(world, gating=strict, cache_dir=tmp_path) as url, TeacherClient(url) as client:
        for _ in range(2):
            call = ask(url)
            assert next(call).frame.index == 0
            with pytest.raises(grpc.RpcError) as caught:
                next(call)
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            trailers = dict(caught.value.trailing_metadata())
            assert (trailers["gate"], trailers["figure"]) == ("yaw", "4.0")
        with pytest.raises(GateRejectedError, match="it turns right"):
            client.imagine_scene(7, 0, TURN)
        frames = client.imagine_scene(7, 0, TURN, keep_rejected=True)
    assert [[verdict.passed for verdict in frame.gates] for frame in frames] == [[True] * 2, [True, False], [True] * 2]
    assert frames[1].gates[1] == GateVerdict("yaw", 4.0, False, "it turns right")
    assert frames[0].scores == {"yaw_deg": 4.0}


class Flipped:
    """The geometric world with the sign of its turns wrong, as a published teacher has it."""

    def __init__(self) -> None:
        self._world = GeometricWorld()
        self.info = self._world.info

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        mirrored = tuple(replace(waypoint, c2w=np.linalg.inv(waypoint.c2w)) for waypoint in spec.path)
        for waypoint, frame in zip(spec.path, self._world.imagine(replace(spec, path=mirrored)), strict=True):
            yield replace(frame, c2w=waypoint.c2w)


def test_a_world_that_turns_the_wrong_way_is_caught_and_the_right_one_is_not() -> None:
    photo, path = motorcycle(), parse_actions("turn left 15 degrees")
    asked: dict[str, Any] = {"depth": photo.depth, "intrinsics": photo.intrinsics, "key_frames_only": True}
    for world, is_right in ((GeometricWorld(), True), (Flipped(), False)):
        with serving(world, gating=judged_by(GateSettings())) as url, TeacherClient(url) as client:
            frames = client.imagine_photo(encode_png(photo.pixels), path, keep_rejected=True, **asked)
            verdicts = {verdict.name: verdict for verdict in frames[1].gates}
            assert verdicts["yaw"].passed is is_right
            assert {"gate_yaw_error_deg", "gate_sharpness"} <= set(frames[1].scores)
            if not is_right:
                with pytest.raises(GateRejectedError) as caught:
                    client.imagine_photo(encode_png(photo.pixels), path, **asked)
                assert caught.value.gate == "yaw" and str(caught.value) == verdicts["yaw"].reason


@pytest.mark.parametrize("gates", [{"turn_error": 3}, {"turn_error_deg": "much"}])
def test_a_gate_s_limit_that_is_none_is_refused(gates: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"gates: .*turn_error"):
        read_gate_settings(gates)


# Figures


def test_prometheus_is_told(tmp_path: Path) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"world2vlm_teacher_{name}", labels) or 0.0

    names: dict[str, tuple[str, dict[str, str]]] = {
        "hit": ("cache_total", {"outcome": "hit"}),
        "shared": ("cache_total", {"outcome": "shared"}),
        "miss": ("cache_total", {"outcome": "miss"}),
        "made": ("trajectories_total", {"world": "steps", "outcome": "made"}),
        "refused": ("trajectories_total", {"world": "steps", "outcome": "gate_rejected"}),
        "rejected": ("rejected_total", {"world": "steps", "gate": "yaw"}),
        "frames": ("frame_seconds_count", {"world": "steps"}),
    }

    def rejecting(info: WorldInfo, spec: ImagineSpec, frames: Iterator[Frame]) -> Iterator[Frame]:
        if spec.seed:
            raise GateRejectedError("yaw", 1.0, "it turns right")
        yield from frames

    before = {name: value(metric, **labels) for name, (metric, labels) in names.items()}
    with serving(StepWorld(), gating=rejecting, cache_dir=tmp_path) as url:
        for _ in range(3):
            list(ask(url))
        with pytest.raises(grpc.RpcError):
            list(ask(url, seed=1))
        eventually(lambda: value("open_streams") == 0)
        assert value("queue_length") == 0
        assert value("cache_bytes") == sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    after = {name: value(metric, **labels) - before[name] for name, (metric, labels) in names.items()}
    # Who asks while the first is being written down gets it from memory.
    assert after.pop("hit") + after.pop("shared") == 2
    assert after == {"miss": 2, "made": 1, "refused": 1, "rejected": 1, "frames": 1}


# Bad input


def test_ten_thousand_poses_are_refused_at_once() -> None:
    world = StepWorld()
    poses = [convert.pose_to_proto(np.eye(4))] * 10_000
    with serving(world) as url:
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            list(ask(url, actions=None, poses=teacher_pb2.Poses(poses=poses)))
        assert time.monotonic() - started < 5
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "the path has 10001 frames; at most 512 are allowed"
        steps = [spatial_pb2.Action(primitive=spatial_pb2.PRIMITIVE_TURN_LEFT, magnitude=1)] * 10_000
        with pytest.raises(grpc.RpcError) as caught:
            list(ask(url, actions=teacher_pb2.Actions(actions=steps)))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not world.calls


def test_a_path_through_a_wall_says_so() -> None:
    with serving(RendererWorld()) as url, TeacherClient(url) as client:
        with pytest.raises(GateRejectedError, match="goes through a wall or a piece of furniture") as caught:
            client.imagine_scene(7, 0, parse_actions("move forward 9 meters"))
        assert caught.value.gate == "collision" and caught.value.figure < 0
        with pytest.raises(grpc.RpcError) as status:
            far = teacher_pb2.Actions(actions=map(convert.action_to_proto, parse_actions("move forward 9 meters")))
            list(ask(url, actions=far))
        assert status.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_world_that_is_not_served_says_how_to_get_it() -> None:
    with serving(StepWorld()) as url, TeacherClient(url) as client, pytest.raises(NotFoundError) as caught:
        client.imagine_scene(7, 0, TURN, world="svc")
    said = str(caught.value)
    assert (
        said.startswith("no world 'svc' is served here; the worlds are steps. Install") and "WORLD2VLM_WORLDS" in said
    )


def test_a_world_that_stops_early_is_an_error_of_ours() -> None:
    class Lazy(StepWorld):
        def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
            yield from list(super().imagine(spec))[:-1]

    with (
        serving(Lazy()) as url,
        TeacherClient(url) as client,
        pytest.raises(World2VLMError, match="made 2 of 3 frames"),
    ):
        client.imagine_scene(7, 0, TURN)


def test_terms_are_described() -> None:
    restricted = replace(
        INFO, outputs_may_train=False, outputs_may_be_sold=False, excluded_regions=("EU",), terms="No."
    )
    with serving(StepWorld(info=restricted)) as url, TeacherClient(url) as client:
        assert client.describe() == [restricted]


def test_frames_of_another_size_than_the_limits_are_refused() -> None:
    with serving(StepWorld()) as url, TeacherClient(url) as client, pytest.raises(InvalidInputError, match="16 to 512"):
        client.imagine_scene(7, 0, TURN, width=8)
