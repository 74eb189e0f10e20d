"""The teacher's requests and frames as tensors, for KServe v2 and for Triton.

Bytes are UINT8: Triton's python backend reads and writes BYTES through numpy's binary interface, which changed with
numpy 2. Text is UTF-8. Inputs: an anchor, either `IMAGE` (an encoded picture, with `DEPTH` in metres and `INTRINSICS` K
in pixels where they are known) or `SCENE` (seed and anchor index); a path, either `ACTIONS` ("move forward 0.5 meters;
turn left 30 degrees") or `POSES` (c2w relative to the anchor camera); `WORLD`, `SEED`, `SIZE` (width and height of a
scene's frames), and 1 for yes in `KEY_FRAMES_ONLY` and `KEEP_REJECTED`.

One response is one frame, the last has the final flag: `FRAME` (PNG), `OBSERVED` (PNG, 255 = seen in the anchor; empty
where all is), `POSE`, `INTRINSICS`, `ACTIONS` since the frame before, `INDEX`, `COUNT`, `KEY_FRAME` (1 = yes), and as
JSON `SCORES` by name and `GATES`, a list of objects with name, figure, passed and reason.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from world2vlm import convert
from world2vlm.actions import format_actions, parse_actions
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image
from world2vlm.kserve.tensors import Model, Tensor, Value
from world2vlm.v1 import spatial_pb2, teacher_pb2
from world2vlm.worlds import WorldInfo

MODEL = "teacher"
"""The model whose requests name their world; each world is a model by its own name, too."""

VERSION = 1
_MOST_BYTES = 64 << 20
_MOST_TEXT = 1 << 16
_MOST_POSES = 1 << 16


def _optional(name: str, datatype: str, shape: tuple[int, ...] = (1,), most: int = 64) -> Tensor:
    return Tensor(name, datatype, shape, optional=True, most=most)


INPUTS = (
    _optional("WORLD", "UINT8", (-1,)),
    _optional("IMAGE", "UINT8", (-1,), _MOST_BYTES),
    _optional("DEPTH", "FP32", (-1, -1), _MOST_BYTES // 4),
    _optional("INTRINSICS", "FP64", (3, 3)),
    _optional("SCENE", "INT64", (2,)),
    _optional("ACTIONS", "UINT8", (-1,), _MOST_TEXT),
    _optional("POSES", "FP64", (-1, 4, 4), 16 * _MOST_POSES),
    _optional("SEED", "INT64"),
    _optional("SIZE", "INT32", (2,)),
    _optional("KEY_FRAMES_ONLY", "INT32"),
    _optional("KEEP_REJECTED", "INT32"),
)
OUTPUTS = (
    Tensor("FRAME", "UINT8", (-1,)),
    Tensor("OBSERVED", "UINT8", (-1,)),
    Tensor("POSE", "FP64", (4, 4)),
    Tensor("INTRINSICS", "FP64", (3, 3)),
    Tensor("ACTIONS", "UINT8", (-1,)),
    Tensor("INDEX", "INT32"),
    Tensor("COUNT", "INT32"),
    Tensor("KEY_FRAME", "INT32"),
    Tensor("SCORES", "UINT8", (-1,)),
    Tensor("GATES", "UINT8", (-1,)),
)


def models_of(worlds: list[WorldInfo]) -> dict[str, Model]:
    """The models of a teacher, by name."""
    return {name: Model(name, True, INPUTS, OUTPUTS) for name in (MODEL, *(world.name for world in worlds))}


def read_request(model: str, values: Mapping[str, Any]) -> teacher_pb2.ImagineRequest:
    """Read a request from its inputs, arrays by name.

    Raises:
        InvalidInputError: an input's values are wrong. What else is wrong shows when the request is planned.
    """
    request = teacher_pb2.ImagineRequest(
        world=_text("WORLD", values) if model == MODEL else model,
        seed=_unsigned("SEED", values),
        key_frames_only=_flag("KEY_FRAMES_ONLY", values),
        keep_rejected=keeps_rejected(values),
    )
    if "WORLD" in values and model != MODEL:
        raise InvalidInputError(f"the model {model!r} is a world; {MODEL!r} takes the name of one")
    if ("IMAGE" in values) is ("SCENE" in values):
        raise InvalidInputError("send an anchor: either IMAGE or SCENE")
    if ("ACTIONS" in values) is ("POSES" in values):
        raise InvalidInputError("send a path: either ACTIONS or POSES")
    if "SIZE" in values:
        width, height = map(int, values["SIZE"])
        if min(width, height) < 0:
            raise InvalidInputError(f"SIZE must be positive, not {width} x {height}")
        request.width, request.height = width, height
    if "SCENE" in values:
        seed, anchor = map(int, values["SCENE"])
        if seed < 0 or not 0 <= anchor < 1 << 32:
            raise InvalidInputError(f"SCENE must be a seed and an anchor's index, from 0 on, not {seed} and {anchor}")
        request.scene.scene_seed, request.scene.anchor_index = seed, anchor
    else:
        request.photo.CopyFrom(_photo(values))
    if "ACTIONS" in values:
        request.actions.actions.extend(map(convert.action_to_proto, parse_actions(_text("ACTIONS", values))))
    else:
        request.poses.poses.extend(map(convert.pose_to_proto, values["POSES"]))
    return request


def keeps_rejected(values: Mapping[str, Any]) -> bool:
    """Whether frames that a gate fails are wanted, too.

    Raises:
        InvalidInputError: the input is neither 0 nor 1.
    """
    return _flag("KEEP_REJECTED", values)


def frame_values(frame: teacher_pb2.Frame) -> dict[str, Value]:
    """The outputs that say what a frame says."""
    intrinsics, _size = convert.intrinsics_from_proto(frame.intrinsics)
    gates = [
        {"name": verdict.name, "figure": verdict.figure, "passed": verdict.passed, "reason": verdict.reason}
        for verdict in frame.gates
    ]
    return {
        "FRAME": frame.image.data,
        "OBSERVED": frame.observed.data,
        "POSE": np.array(frame.pose.c2w).reshape(4, 4),
        "INTRINSICS": intrinsics,
        "ACTIONS": format_actions(convert.actions_from_proto(frame.actions_step)).encode(),
        "INDEX": [frame.index],
        "COUNT": [frame.count],
        "KEY_FRAME": [int(frame.key_frame)],
        "SCORES": json.dumps(dict(sorted(frame.scores.items()))).encode(),
        "GATES": json.dumps(gates).encode(),
    }


def is_last(frame: teacher_pb2.Frame) -> bool:
    """Whether no frame comes after this one."""
    return frame.index + 1 == frame.count


def _photo(values: Mapping[str, Any]) -> teacher_pb2.PhotoAnchor:
    photo = teacher_pb2.PhotoAnchor(image=spatial_pb2.Image(data=np.asarray(values["IMAGE"]).tobytes()))
    if "INTRINSICS" in values:
        intrinsics: NDArray[np.float64] = np.asarray(values["INTRINSICS"])
        size = decode_image(photo.image.data).size
        photo.intrinsics.CopyFrom(convert.intrinsics_to_proto(intrinsics, size))
    if "DEPTH" in values:
        photo.depth = np.ascontiguousarray(values["DEPTH"], "<f4").tobytes()
    return photo


def _text(name: str, values: Mapping[str, Any]) -> str:
    try:
        return np.asarray(values.get(name, ()), np.uint8).tobytes().decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is no UTF-8") from error


def _unsigned(name: str, values: Mapping[str, Any]) -> int:
    (value,) = map(int, values.get(name, (0,)))
    if value < 0:
        raise InvalidInputError(f"{name} must be 0 or more, not {value}")
    return value


def _flag(name: str, values: Mapping[str, Any]) -> bool:
    (value,) = map(int, values.get(name, (0,)))
    if value not in (0, 1):
        raise InvalidInputError(f"{name} must be 0 or 1, not {value}")
    return value == 1
