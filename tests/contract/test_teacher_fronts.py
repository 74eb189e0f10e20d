"""One suite for every protocol that the teacher speaks: its own gRPC, KServe v2 on the same port, and a Triton server.

The Triton server is the one that the `nvidia-pytriton` wheel carries; where that can't run, it is skipped.
"""

import json
import queue
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

import teacher_service
from student_service.triton.server import TritonServer
from teacher_service.kserve.tensors import INPUTS, MODEL, OUTPUTS, models_of
from teacher_service.worlds.renderer import RendererWorld
from tests.teacher_kit import FOREVER, STOPPED, SlowWorld, eventually, serving
from tests.triton_kit import require_triton
from world2vlm import convert, rpc
from world2vlm.actions import format_actions, parse_actions
from world2vlm.cameras import integrate, intrinsics_from_fov
from world2vlm.images import decode_image, encode_png
from world2vlm.kserve import describing
from world2vlm.v1 import spatial_pb2, teacher_pb2, teacher_pb2_grpc

REPOSITORY = Path(teacher_service.__file__).parent / "model_repository"
PATH = "turn left 10 degrees; move forward 0.2 meters"
PHOTO = encode_png(np.full((16, 24, 3), 90, dtype=np.uint8))
Asked = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """A frame as any of the protocols shows it."""

    png: bytes
    pose: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    actions: str
    index: int
    count: int
    key_frame: bool
    scores: Mapping[str, float]


class RefusedError(Exception):
    """The sentence that a request was refused with."""


class Front(ABC):
    """A protocol; `asked` has what `teacher_service.kserve.tensors` calls inputs, in small letters."""

    @abstractmethod
    def begin(self, asked: Asked) -> tuple[Iterator[Shown], Callable[[], None]]:
        """The frames as they come, and what cancels the call."""

    @abstractmethod
    def has_stopped(self) -> bool:
        """Whether the world noticed that nobody waits."""

    def imagine(self, **asked: Any) -> list[Shown]:
        frames, _cancel = self.begin(asked)
        return list(frames)


class Grpc(Front):
    def __init__(self, url: str, world: SlowWorld) -> None:
        self._stub: Any = teacher_pb2_grpc.TeacherServiceStub(rpc.channel(url))
        self._world = world

    def begin(self, asked: Asked) -> tuple[Iterator[Shown], Callable[[], None]]:
        call = self._stub.Imagine(_message(asked), timeout=60)
        return self._frames(call), call.cancel

    def has_stopped(self) -> bool:
        return self._world.stopped > 0

    def _frames(self, call: Any) -> Iterator[Shown]:
        try:
            for reply in call:
                frame = convert.frame_from_proto(reply.frame)
                yield Shown(
                    frame.png,
                    frame.c2w,
                    frame.intrinsics,
                    format_actions(frame.actions_step),
                    reply.frame.index,
                    reply.frame.count,
                    frame.key_frame,
                    frame.scores,
                )
        except grpc.RpcError as error:
            raise RefusedError(error.details()) from error


def _message(asked: Asked) -> teacher_pb2.ImagineRequest:
    request = teacher_pb2.ImagineRequest(
        world=asked.get("world", ""), seed=asked.get("seed", 0), key_frames_only=bool(asked.get("key_frames_only", 0))
    )
    if "size" in asked:
        request.width, request.height = asked["size"]
    if "scene" in asked:
        request.scene.scene_seed, request.scene.anchor_index = asked["scene"]
    if "image" in asked:
        request.photo.image.data = asked["image"]
    if "depth" in asked:
        request.photo.depth = asked["depth"].tobytes()
    if "intrinsics" in asked:
        size = decode_image(asked["image"]).size
        request.photo.intrinsics.CopyFrom(convert.intrinsics_to_proto(asked["intrinsics"], size))
    if "actions" in asked:
        for part in asked["actions"].split("; "):
            request.actions.actions.append(_action(part))
    if "poses" in asked:
        request.poses.poses.extend(map(convert.pose_to_proto, asked["poses"]))
    return request


def _action(text: str) -> spatial_pb2.Action:
    (action,) = parse_actions(text)
    return convert.action_to_proto(action)


class Streaming(Front):
    """Triton's own client, unmodified."""

    def __init__(self, url: str, has_stopped: Callable[[], bool]) -> None:
        self.url = url
        self._has_stopped = has_stopped

    def begin(self, asked: Asked) -> tuple[Iterator[Shown], Callable[[], None]]:
        client, got = triton.InferenceServerClient(self.url), queue.Queue[Any]()
        client.start_stream(lambda result, error: got.put(error or result))
        client.async_stream_infer(MODEL, [_tensor(name, value) for name, value in asked.items()], request_id="7")

        def cancel() -> None:
            client.stop_stream(cancel_requests=True)

        return self._frames(client, got), cancel

    def has_stopped(self) -> bool:
        return self._has_stopped()

    def _frames(self, client: Any, got: "queue.Queue[Any]") -> Iterator[Shown]:
        with closing(client):
            while True:
                result = got.get(timeout=60)
                if isinstance(result, InferenceServerException):
                    raise RefusedError(result.message())
                frame = _shown(result)
                response = result.get_response()
                assert response.id == "7" and response.model_name == MODEL
                is_final = response.parameters["triton_final_response"].bool_param
                assert is_final is (frame.index + 1 == frame.count)
                yield frame
                if is_final:
                    return


_BYTES_OF = {"world": str.encode, "actions": str.encode, "image": bytes}
_DTYPES = {tensor.name: tensor.datatype for tensor in INPUTS}


def _tensor(name: str, value: Any) -> Any:
    datatype = _DTYPES[name.upper()]
    if datatype == "UINT8":
        values = np.frombuffer(_BYTES_OF[name](value), np.uint8)
    else:
        values = np.asarray(value, {"INT32": "i4", "INT64": "i8", "FP32": "f4", "FP64": "f8"}[datatype])
    values = np.atleast_1d(values)
    return triton.InferInput(name.upper(), values.shape, datatype).set_data_from_numpy(values)


def _shown(result: Any) -> Shown:
    def text(name: str) -> str:
        return bytes(result.as_numpy(name).tobytes()).decode()

    assert json.loads(text("GATES")) == []
    return Shown(
        result.as_numpy("FRAME").tobytes(),
        result.as_numpy("POSE"),
        result.as_numpy("INTRINSICS"),
        text("ACTIONS"),
        int(result.as_numpy("INDEX").item()),
        int(result.as_numpy("COUNT").item()),
        bool(result.as_numpy("KEY_FRAME").item()),
        json.loads(text("SCORES")),
    )


def in_process(running: ExitStack) -> tuple[str, SlowWorld]:
    world = SlowWorld()
    return running.enter_context(serving(RendererWorld(0, 0), world, with_gates=False, max_workers=4)), world


def in_triton(running: ExitStack, work: Path) -> TritonServer:
    """A Triton server whose teacher has a world of another package, found by its entry point."""
    require_triton()
    shutil.copytree(REPOSITORY, work / "models", ignore=shutil.ignore_patterns("__pycache__"))
    # The stub takes no PYTHONPATH; a model's own folder is where it looks for packages.
    packages = work / "models" / MODEL / "1"
    about = packages / "steps-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: steps\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[world2vlm.worlds]\nsteps = steps_world:make\n")
    root = str(Path(__file__).parents[2])
    (packages / "steps_world.py").write_text(
        f"import sys\nsys.path.append({root!r})\nfrom tests.teacher_kit import make\n"
    )
    own = {
        "WORLDS": '["renderer", "steps"]', "WITH_GATES": "false", "MIN_CLEARANCE_M": "0", "MIN_OBJECT_AREA": "0",
        "MAX_WORKERS": "4",
    }  # fmt: skip
    environment = {"OMP_NUM_THREADS": "1", **{f"WORLD2VLM_{name}": value for name, value in own.items()}}
    return running.enter_context(TritonServer(work / "models", work / "work", environment=environment))


@pytest.fixture(scope="module", params=["grpc", "kserve", "triton"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with ExitStack() as running:
        if request.param == "triton":
            server = in_triton(running, tmp_path_factory.mktemp("triton"))
            yield Streaming(server.url, lambda: STOPPED in server.log.read_text(errors="replace"))
            return
        url, world = in_process(running)
        yield Grpc(url, world) if request.param == "grpc" else Streaming(url, lambda: world.stopped > 0)


@pytest.fixture(scope="module")
def reference() -> Iterator[Front]:
    with ExitStack() as running:
        yield Grpc(*in_process(running))


def same(one: Shown, other: Shown) -> bool:
    arrays = np.allclose(one.pose, other.pose, atol=1e-12) and np.array_equal(one.intrinsics, other.intrinsics)
    rest = ("png", "actions", "index", "count", "key_frame", "scores")
    return bool(arrays and all(getattr(one, name) == getattr(other, name) for name in rest))


REQUESTS: dict[str, dict[str, Any]] = {
    "a scene by actions": {"scene": (7, 0), "actions": PATH, "size": (64, 48), "key_frames_only": 1},
    "a scene with its steps": {"scene": (7, 0), "actions": "turn left 10 degrees", "size": (32, 32)},
    "another anchor by poses": {"scene": (7, 1), "poses": integrate(parse_actions(PATH))[1:], "size": (32, 32)},
    "a world by name": {"scene": (7, 0), "actions": PATH, "world": "steps", "seed": 5},
    "a photo": {"image": PHOTO, "actions": PATH, "key_frames_only": 1},
    "a photo with all that is known": {
        "image": PHOTO,
        "depth": np.ones((16, 24), np.float32),
        "intrinsics": intrinsics_from_fov(70, 24, 16),
        "poses": integrate(parse_actions(PATH))[1:],
        "seed": 9,
    },
}


@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
def test_every_protocol_shows_the_same_frames(front: Front, reference: Front, asked: dict[str, Any]) -> None:
    got, expected = front.imagine(**asked), reference.imagine(**asked)
    assert len(got) == len(expected) == got[0].count
    assert [frame.index for frame in got] == list(range(len(got)))
    assert all(same(one, other) for one, other in zip(got, expected, strict=True))
    assert np.array_equal(got[0].pose, np.eye(4))
    assert decode_image(got[0].png).size == asked.get("size", (24, 16) if "image" in asked else (128, 128))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown world": ({"scene": (7, 0), "actions": PATH, "world": "svc"}, "no world 'svc' is served here"),
    "no photo": ({"image": PHOTO, "actions": PATH, "world": "renderer"}, "the world 'renderer' takes no photo"),
    "broken photo": ({"image": PHOTO[:30], "actions": PATH}, "image"),
    "too small": ({"scene": (7, 0), "actions": PATH, "size": (8, 8)}, "16 to 512"),
    "endless": ({"scene": (7, 0), "actions": "turn left 9000 degrees"}, "at most 512 are allowed"),
    "too many poses": ({"scene": (7, 0), "poses": np.tile(np.eye(4), (10_000, 1, 1))}, "10001 frames"),
    "not rigid": ({"scene": (7, 0), "poses": np.full((1, 4, 4), 2.0)}, "pose"),
    "depth of another size": ({"image": PHOTO, "depth": np.ones((3, 3), np.float32), "actions": PATH}, "depth must be"),
}


@pytest.mark.parametrize(("asked", "sentence"), REFUSED.values(), ids=REFUSED)
def test_every_protocol_refuses_with_the_same_sentence(
    front: Front, reference: Front, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RefusedError, match=sentence) as expected:
        reference.imagine(**asked)
    with pytest.raises(RefusedError, match=sentence) as caught:
        front.imagine(**asked)
    assert str(expected.value) in str(caught.value)


def test_leaving_stops_the_work(front: Front) -> None:
    frames, cancel = front.begin({"scene": (7, 0), "actions": PATH, "world": "steps", "seed": FOREVER})
    assert not front.has_stopped()
    # Begun, as far as can be seen from outside.
    front.imagine(scene=(7, 0), actions="turn left 5 degrees", size=(16, 16))
    cancel()
    eventually(front.has_stopped, 30)
    with pytest.raises((RefusedError, queue.Empty)):
        next(frames)


def test_an_unmodified_client_finds_its_way(front: Front) -> None:
    if not isinstance(front, Streaming):
        pytest.skip("gRPC has its own contract")
    with triton.InferenceServerClient(front.url) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
        assert not client.is_model_ready("nobody") and not client.is_model_ready(MODEL, "9")
        metadata = client.get_model_metadata(MODEL)
        assert {tensor.name: tensor.datatype for tensor in metadata.inputs} == _DTYPES
        assert [tensor.name for tensor in metadata.outputs] == [tensor.name for tensor in OUTPUTS]
        config = client.get_model_config(MODEL).config
        assert config.model_transaction_policy.decoupled and config.max_batch_size == 0
        with pytest.raises(InferenceServerException, match="decoupled"):
            client.infer(MODEL, [_tensor("scene", (7, 0)), _tensor("actions", PATH)])


def test_each_world_is_a_model_by_its_name() -> None:
    with ExitStack() as running:
        url, _world = in_process(running)
        with triton.InferenceServerClient(url) as client:
            assert all(client.is_model_ready(name) for name in ("renderer", "steps"))
            got: queue.Queue[Any] = queue.Queue()
            client.start_stream(lambda result, error: got.put(error or result))
            client.async_stream_infer("steps", [_tensor("scene", (7, 0)), _tensor("actions", "turn left 5 degrees")])
            client.async_stream_infer("renderer", [_tensor("image", PHOTO), _tensor("actions", PATH)])
            said = [got.get(timeout=60) for _ in range(3)]
    refused = [str(each) for each in said if isinstance(each, InferenceServerException)]
    assert len(refused) == 1 and "'renderer' takes no photo" in refused[0]


def test_triton_s_file_says_what_the_tensors_are() -> None:
    written = text_format.Parse((REPOSITORY / MODEL / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    ours = describing.config(models_of([])[MODEL]).config
    assert list(written.input) == list(ours.input) and list(written.output) == list(ours.output)
    assert written.model_transaction_policy == ours.model_transaction_policy and written.max_batch_size == 0
