from world2vlm.v1 import spatial_pb2 as _spatial_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeTeacherRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeTeacherResponse(_message.Message):
    __slots__ = ("worlds",)
    WORLDS_FIELD_NUMBER: _ClassVar[int]
    worlds: _containers.RepeatedCompositeFieldContainer[World]
    def __init__(self, worlds: _Optional[_Iterable[_Union[World, _Mapping]]] = ...) -> None: ...

class World(_message.Message):
    __slots__ = ("name", "description", "metric", "generative", "takes_scenes", "takes_photos", "licence", "outputs_may_train", "digest", "outputs_may_be_sold", "excluded_regions", "terms", "lanes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    GENERATIVE_FIELD_NUMBER: _ClassVar[int]
    TAKES_SCENES_FIELD_NUMBER: _ClassVar[int]
    TAKES_PHOTOS_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_MAY_TRAIN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_MAY_BE_SOLD_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_REGIONS_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    metric: bool
    generative: bool
    takes_scenes: bool
    takes_photos: bool
    licence: str
    outputs_may_train: bool
    digest: str
    outputs_may_be_sold: bool
    excluded_regions: _containers.RepeatedScalarFieldContainer[str]
    terms: str
    lanes: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., metric: _Optional[bool] = ..., generative: _Optional[bool] = ..., takes_scenes: _Optional[bool] = ..., takes_photos: _Optional[bool] = ..., licence: _Optional[str] = ..., outputs_may_train: _Optional[bool] = ..., digest: _Optional[str] = ..., outputs_may_be_sold: _Optional[bool] = ..., excluded_regions: _Optional[_Iterable[str]] = ..., terms: _Optional[str] = ..., lanes: _Optional[int] = ...) -> None: ...

class PhotoAnchor(_message.Message):
    __slots__ = ("image", "intrinsics", "depth")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    INTRINSICS_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    image: _spatial_pb2.Image
    intrinsics: _spatial_pb2.Intrinsics
    depth: bytes
    def __init__(self, image: _Optional[_Union[_spatial_pb2.Image, _Mapping]] = ..., intrinsics: _Optional[_Union[_spatial_pb2.Intrinsics, _Mapping]] = ..., depth: _Optional[bytes] = ...) -> None: ...

class SceneAnchor(_message.Message):
    __slots__ = ("scene_seed", "anchor_index")
    SCENE_SEED_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    scene_seed: int
    anchor_index: int
    def __init__(self, scene_seed: _Optional[int] = ..., anchor_index: _Optional[int] = ...) -> None: ...

class Actions(_message.Message):
    __slots__ = ("actions",)
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    actions: _containers.RepeatedCompositeFieldContainer[_spatial_pb2.Action]
    def __init__(self, actions: _Optional[_Iterable[_Union[_spatial_pb2.Action, _Mapping]]] = ...) -> None: ...

class Poses(_message.Message):
    __slots__ = ("poses",)
    POSES_FIELD_NUMBER: _ClassVar[int]
    poses: _containers.RepeatedCompositeFieldContainer[_spatial_pb2.Pose]
    def __init__(self, poses: _Optional[_Iterable[_Union[_spatial_pb2.Pose, _Mapping]]] = ...) -> None: ...

class ImagineRequest(_message.Message):
    __slots__ = ("world", "photo", "scene", "actions", "poses", "seed", "width", "height", "key_frames_only", "with_instances", "keep_rejected", "with_progress")
    WORLD_FIELD_NUMBER: _ClassVar[int]
    PHOTO_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    POSES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAMES_ONLY_FIELD_NUMBER: _ClassVar[int]
    WITH_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    KEEP_REJECTED_FIELD_NUMBER: _ClassVar[int]
    WITH_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    world: str
    photo: PhotoAnchor
    scene: SceneAnchor
    actions: Actions
    poses: Poses
    seed: int
    width: int
    height: int
    key_frames_only: bool
    with_instances: bool
    keep_rejected: bool
    with_progress: bool
    def __init__(self, world: _Optional[str] = ..., photo: _Optional[_Union[PhotoAnchor, _Mapping]] = ..., scene: _Optional[_Union[SceneAnchor, _Mapping]] = ..., actions: _Optional[_Union[Actions, _Mapping]] = ..., poses: _Optional[_Union[Poses, _Mapping]] = ..., seed: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., key_frames_only: _Optional[bool] = ..., with_instances: _Optional[bool] = ..., keep_rejected: _Optional[bool] = ..., with_progress: _Optional[bool] = ...) -> None: ...

class ImagineResponse(_message.Message):
    __slots__ = ("frame", "progress")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    progress: Progress
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("done", "total")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class GateVerdict(_message.Message):
    __slots__ = ("name", "figure", "passed", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIGURE_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    figure: float
    passed: bool
    reason: str
    def __init__(self, name: _Optional[str] = ..., figure: _Optional[float] = ..., passed: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("index", "count", "image", "pose", "intrinsics", "actions_step", "key_frame", "observed", "objects", "instances", "scores", "gates")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    INDEX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    POSE_FIELD_NUMBER: _ClassVar[int]
    INTRINSICS_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_STEP_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAME_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    index: int
    count: int
    image: _spatial_pb2.Image
    pose: _spatial_pb2.Pose
    intrinsics: _spatial_pb2.Intrinsics
    actions_step: _containers.RepeatedCompositeFieldContainer[_spatial_pb2.Action]
    key_frame: bool
    observed: _spatial_pb2.Image
    objects: _containers.RepeatedCompositeFieldContainer[_spatial_pb2.ObjectView]
    instances: _spatial_pb2.Image
    scores: _containers.ScalarMap[str, float]
    gates: _containers.RepeatedCompositeFieldContainer[GateVerdict]
    def __init__(self, index: _Optional[int] = ..., count: _Optional[int] = ..., image: _Optional[_Union[_spatial_pb2.Image, _Mapping]] = ..., pose: _Optional[_Union[_spatial_pb2.Pose, _Mapping]] = ..., intrinsics: _Optional[_Union[_spatial_pb2.Intrinsics, _Mapping]] = ..., actions_step: _Optional[_Iterable[_Union[_spatial_pb2.Action, _Mapping]]] = ..., key_frame: _Optional[bool] = ..., observed: _Optional[_Union[_spatial_pb2.Image, _Mapping]] = ..., objects: _Optional[_Iterable[_Union[_spatial_pb2.ObjectView, _Mapping]]] = ..., instances: _Optional[_Union[_spatial_pb2.Image, _Mapping]] = ..., scores: _Optional[_Mapping[str, float]] = ..., gates: _Optional[_Iterable[_Union[GateVerdict, _Mapping]]] = ...) -> None: ...
