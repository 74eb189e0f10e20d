"""What the workers share: the window of a photo, the request, and modules that an old environment can import."""

import ast
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from teacher_service.remote.digests import world_digest
from teacher_service.workers import start
from teacher_service.workers.framing import frame_photo
from teacher_service.workers.serving import Asked, Servicer, Shot, read_request
from world2vlm import convert, rpc
from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError, UnavailableError, World2VLMError
from world2vlm.images import encode_png
from world2vlm.v1 import spatial_pb2, teacher_pb2, teacher_pb2_grpc
from world2vlm.worlds import WorldInfo

ROOT = Path(__file__).parents[2]


def dotted(columns: int, rows: int, dot: tuple[int, int]) -> "np.typing.NDArray[np.uint8]":
    """A black picture with a white square of 9 pixels around (x, y)."""
    pixels = np.zeros((rows, columns, 3), np.uint8)
    pixels[dot[1] - 4 : dot[1] + 5, dot[0] - 4 : dot[0] + 5] = 255
    return pixels


def camera(focal: float, cx: float, cy: float) -> Floats:
    return np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])


@pytest.mark.parametrize(("cx", "cy"), [(320, 240), (290, 255), (400.5, 180.25)])
@pytest.mark.parametrize("size", [(192, 192), (208, 112), (96, 160)])
def test_a_point_keeps_its_ray_through_framing(cx: float, cy: float, size: tuple[int, int]) -> None:
    dot, focal = (300, 230), 500.0
    framed, k = frame_photo(dotted(640, 480, dot), camera(focal, cx, cy), *size)
    assert framed.shape == (size[1], size[0], 3)
    assert (k[0, 2], k[1, 2]) == (size[0] / 2, size[1] / 2)
    weights = framed[..., 0].astype(float)
    v, u = (
        float((weights.sum(1 - axis) * (np.arange(n) + 0.5)).sum() / weights.sum())
        for axis, n in enumerate(weights.shape)
    )
    ray = ((dot[0] + 0.5 - cx) / focal, (dot[1] + 0.5 - cy) / focal)
    assert ((u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1]) == pytest.approx(ray, abs=2e-3)


def test_a_photo_of_the_frame_s_own_size_stays_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    framed, k = frame_photo(pixels, camera(80, 48, 48), 96, 96)
    assert np.array_equal(framed, pixels)
    assert np.array_equal(k, camera(80, 48, 48))


@pytest.mark.parametrize(("cx", "cy"), [(-3, 50), (99.9, 50), (50, 200)])
def test_a_principal_point_at_the_edge_or_outside_is_refused(cx: float, cy: float) -> None:
    with pytest.raises(InvalidInputError, match="principal point"):
        frame_photo(np.zeros((100, 100, 3), np.uint8), camera(80, cx, cy), 64, 64)


def request(**fields: object) -> teacher_pb2.ImagineRequest:
    photo = teacher_pb2.PhotoAnchor(
        image=spatial_pb2.Image(data=encode_png(np.zeros((20, 30, 3), np.uint8))),
        intrinsics=convert.intrinsics_to_proto(camera(30, 15, 10), (30, 20)),
    )
    poses = teacher_pb2.Poses(poses=[convert.pose_to_proto(np.eye(4))])
    return teacher_pb2.ImagineRequest(**{"photo": photo, "poses": poses, "seed": 2**63, **fields})  # type: ignore[arg-type]


def test_a_request_is_read_with_the_anchor_s_own_pose_first() -> None:
    asked = read_request(request())
    assert asked.pixels.shape == (20, 30, 3)
    assert asked.poses.shape == (2, 4, 4)
    assert asked.seed == 2**63
    assert np.array_equal(asked.intrinsics, camera(30, 15, 10))


@pytest.mark.parametrize(
    "fields",
    [
        {"photo": None, "scene": teacher_pb2.SceneAnchor(scene_seed=1)},
        {"poses": None, "actions": teacher_pb2.Actions()},
        {"photo": teacher_pb2.PhotoAnchor(image=spatial_pb2.Image(data=b"x"))},
    ],
)
def test_what_no_teacher_sends_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        read_request(request(**fields))


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class Failing:
    """A backend that fails as it was made to."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def imagine(self, asked: Asked, cancelled: threading.Event) -> Iterator[Shot]:
        yield Shot(asked.pixels, asked.poses[0], asked.intrinsics, imagined=False)
        raise self._error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (InvalidInputError("too long a path"), InvalidInputError, "too long a path"),
        (OutOfMemoryError("tried to allocate"), UnavailableError, "not enough free memory"),
        (RuntimeError("secret"), World2VLMError, "its process's log says why"),
    ],
)
def test_errors_travel_as_those_of_the_catalogue(
    error: Exception, kind: type[World2VLMError], text: str, tmp_path: Path
) -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    info = WorldInfo("w", "d", False, True, False, True, "x", False, "0")
    teacher_pb2_grpc.add_TeacherServiceServicer_to_server(Servicer(Failing(error), info), server)
    server.add_insecure_port(f"unix:{tmp_path / 's'}")
    server.start()
    with rpc.channel(f"unix:{tmp_path / 's'}") as channel:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        for _ in range(2):  # the turn is free again after a failure
            frames = stub.Imagine(request())
            assert next(frames).frame.count == 2
            with pytest.raises(kind, match=text) as caught:
                try:
                    next(frames)
                except grpc.RpcError as failed:
                    rpc.raise_domain_error(failed)
            assert type(caught.value) is kind
            assert "secret" not in str(caught.value)
    server.stop(0)


def shared_modules() -> list[Path]:
    """The files of ours that a worker imports, from a process that imports them as a worker does."""
    code = (
        "import importlib, sys; sys.path.insert(0, sys.argv[1]); import start; start.share(); del sys.path[0]\n"
        "for name in ('svc', 'hy_worldplay'): importlib.import_module(f'teacher_service.workers.{name}.worker')\n"
        "print(*(m.__file__ for n, m in sys.modules.items()"
        " if n.split('.')[0] in ('world2vlm', 'teacher_service') and getattr(m, '__file__', None)), sep='\\n')\n"
        "assert 'pydantic' not in sys.modules and 'torch' not in sys.modules and 'prometheus_client' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(Path(start.__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines()]


# What Python 3.11 added to modules that 3.10 has, and that is easily used without a thought.
_NEWER = {"Self", "Never", "LiteralString", "assert_never", "StrEnum", "UTC", "tomllib", "file_digest", "reveal_type"}


def test_workers_import_little_of_ours_and_nothing_that_python_3_10_lacks() -> None:
    files = shared_modules()
    assert {path.name for path in files} >= {"serving.py", "framing.py", "statuses.py", "teacher_pb2.py"}
    assert len(files) < 40
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not imported & _NEWER, path


def test_requirements_fit_the_committed_stubs() -> None:
    stub = (ROOT / "world2vlm" / "v1" / "teacher_pb2_grpc.py").read_text(encoding="utf-8")
    generated = stub.split("GRPC_GENERATED_VERSION = '")[1].split("'")[0]
    for world in ("svc", "hy_worldplay"):
        folder = ROOT / "teacher_service" / "workers" / world
        pins = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
        assert f"grpcio=={generated}" in pins
        assert f"grpcio-health-checking=={generated}" in pins
        assert any(pin.startswith("protobuf==6.33.") for pin in pins)


def test_framing_does_not_read_more_than_the_photo() -> None:
    # A principal point that is off the centre by a fraction of a pixel makes a window that ends on the edge.
    pixels = np.full((77, 133, 3), 200, np.uint8)
    framed, _ = frame_photo(pixels, camera(100, 66.3, 38.4), 128, 64)
    assert np.array_equal(np.asarray(Image.fromarray(framed)), np.full((64, 128, 3), 200))


def test_a_digest_is_of_options_weights_and_source(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"one")
    folder = Path(start.__file__).parent / "svc"
    first = world_digest({"steps": 3}, (str(tmp_path), "name/on-a-hub"), folder)
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert world_digest({"steps": 3}, (str(tmp_path), "name/on-a-hub"), folder) == first
    others = [
        world_digest({"steps": 4}, (str(tmp_path), "name/on-a-hub"), folder),
        world_digest({"steps": 3}, (str(tmp_path), "name/of-another"), folder),
        world_digest({"steps": 3}, (str(tmp_path), "name/on-a-hub"), folder.with_name("hy_worldplay")),
    ]
    (tmp_path / "a.safetensors").write_bytes(b"two")
    others += [world_digest({"steps": 3}, (str(tmp_path), "name/on-a-hub"), folder)]
    others += [world_digest({"steps": 3}, (str(tmp_path / "a.safetensors"), "name/on-a-hub"), folder)]
    assert len({first, *others}) == 6
