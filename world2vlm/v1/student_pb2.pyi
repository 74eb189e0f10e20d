from world2vlm.v1 import spatial_pb2 as _spatial_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_TYPE_UNSPECIFIED: _ClassVar[TaskType]
    TASK_TYPE_A1: _ClassVar[TaskType]
    TASK_TYPE_A2: _ClassVar[TaskType]
    TASK_TYPE_A3: _ClassVar[TaskType]
    TASK_TYPE_A4: _ClassVar[TaskType]
    TASK_TYPE_D1: _ClassVar[TaskType]
    TASK_TYPE_D2: _ClassVar[TaskType]
    TASK_TYPE_D3: _ClassVar[TaskType]
    TASK_TYPE_D4: _ClassVar[TaskType]
TASK_TYPE_UNSPECIFIED: TaskType
TASK_TYPE_A1: TaskType
TASK_TYPE_A2: TaskType
TASK_TYPE_A3: TaskType
TASK_TYPE_A4: TaskType
TASK_TYPE_D1: TaskType
TASK_TYPE_D2: TaskType
TASK_TYPE_D3: TaskType
TASK_TYPE_D4: TaskType

class TaskQuestion(_message.Message):
    __slots__ = ("task", "actions", "object", "box", "second_box")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    SECOND_BOX_FIELD_NUMBER: _ClassVar[int]
    task: TaskType
    actions: _containers.RepeatedCompositeFieldContainer[_spatial_pb2.Action]
    object: str
    box: _spatial_pb2.Box
    second_box: _spatial_pb2.Box
    def __init__(self, task: _Optional[_Union[TaskType, str]] = ..., actions: _Optional[_Iterable[_Union[_spatial_pb2.Action, _Mapping]]] = ..., object: _Optional[str] = ..., box: _Optional[_Union[_spatial_pb2.Box, _Mapping]] = ..., second_box: _Optional[_Union[_spatial_pb2.Box, _Mapping]] = ...) -> None: ...

class ReasonRequest(_message.Message):
    __slots__ = ("images", "task", "text", "max_new_tokens")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_spatial_pb2.Image]
    task: TaskQuestion
    text: str
    max_new_tokens: int
    def __init__(self, images: _Optional[_Iterable[_Union[_spatial_pb2.Image, _Mapping]]] = ..., task: _Optional[_Union[TaskQuestion, _Mapping]] = ..., text: _Optional[str] = ..., max_new_tokens: _Optional[int] = ...) -> None: ...

class ReasonResponse(_message.Message):
    __slots__ = ("text", "motions", "box", "yes", "probability", "checkpoint_version", "prompt_tokens", "answer_tokens", "queue_ms", "generate_ms")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MOTIONS_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    YES_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    GENERATE_MS_FIELD_NUMBER: _ClassVar[int]
    text: str
    motions: Motions
    box: _spatial_pb2.Box
    yes: bool
    probability: float
    checkpoint_version: str
    prompt_tokens: int
    answer_tokens: int
    queue_ms: float
    generate_ms: float
    def __init__(self, text: _Optional[str] = ..., motions: _Optional[_Union[Motions, _Mapping]] = ..., box: _Optional[_Union[_spatial_pb2.Box, _Mapping]] = ..., yes: _Optional[bool] = ..., probability: _Optional[float] = ..., checkpoint_version: _Optional[str] = ..., prompt_tokens: _Optional[int] = ..., answer_tokens: _Optional[int] = ..., queue_ms: _Optional[float] = ..., generate_ms: _Optional[float] = ...) -> None: ...

class AskedQuestion(_message.Message):
    __slots__ = ("task", "text")
    TASK_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    task: TaskQuestion
    text: str
    def __init__(self, task: _Optional[_Union[TaskQuestion, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class ReasonManyRequest(_message.Message):
    __slots__ = ("images", "questions", "max_new_tokens")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_spatial_pb2.Image]
    questions: _containers.RepeatedCompositeFieldContainer[AskedQuestion]
    max_new_tokens: int
    def __init__(self, images: _Optional[_Iterable[_Union[_spatial_pb2.Image, _Mapping]]] = ..., questions: _Optional[_Iterable[_Union[AskedQuestion, _Mapping]]] = ..., max_new_tokens: _Optional[int] = ...) -> None: ...

class ReasonManyResponse(_message.Message):
    __slots__ = ("replies",)
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    replies: _containers.RepeatedCompositeFieldContainer[ReasonResponse]
    def __init__(self, replies: _Optional[_Iterable[_Union[ReasonResponse, _Mapping]]] = ...) -> None: ...

class Motions(_message.Message):
    __slots__ = ("actions",)
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    actions: _containers.RepeatedCompositeFieldContainer[_spatial_pb2.Action]
    def __init__(self, actions: _Optional[_Iterable[_Union[_spatial_pb2.Action, _Mapping]]] = ...) -> None: ...

class ReasonStreamResponse(_message.Message):
    __slots__ = ("delta", "reply")
    DELTA_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    delta: str
    reply: ReasonResponse
    def __init__(self, delta: _Optional[str] = ..., reply: _Optional[_Union[ReasonResponse, _Mapping]] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("name", "version", "digest", "parent_version", "kind", "recipe", "dataset_digest", "metrics", "created")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    digest: str
    parent_version: int
    kind: str
    recipe: str
    dataset_digest: str
    metrics: _containers.ScalarMap[str, float]
    created: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., parent_version: _Optional[int] = ..., kind: _Optional[str] = ..., recipe: _Optional[str] = ..., dataset_digest: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ..., created: _Optional[str] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ...) -> None: ...

class GetServingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServingResponse(_message.Message):
    __slots__ = ("checkpoint",)
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    checkpoint: Checkpoint
    def __init__(self, checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ...) -> None: ...

class SwapCheckpointRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class SwapCheckpointResponse(_message.Message):
    __slots__ = ("from_version", "to_version", "phases_ms")
    class PhasesMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    TO_VERSION_FIELD_NUMBER: _ClassVar[int]
    PHASES_MS_FIELD_NUMBER: _ClassVar[int]
    from_version: int
    to_version: int
    phases_ms: _containers.ScalarMap[str, float]
    def __init__(self, from_version: _Optional[int] = ..., to_version: _Optional[int] = ..., phases_ms: _Optional[_Mapping[str, float]] = ...) -> None: ...

class RollBackCheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RollBackCheckpointResponse(_message.Message):
    __slots__ = ("from_version", "to_version")
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    TO_VERSION_FIELD_NUMBER: _ClassVar[int]
    from_version: int
    to_version: int
    def __init__(self, from_version: _Optional[int] = ..., to_version: _Optional[int] = ...) -> None: ...
