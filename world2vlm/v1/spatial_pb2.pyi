from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Primitive(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIMITIVE_UNSPECIFIED: _ClassVar[Primitive]
    PRIMITIVE_MOVE_FORWARD: _ClassVar[Primitive]
    PRIMITIVE_MOVE_BACKWARD: _ClassVar[Primitive]
    PRIMITIVE_MOVE_LEFT: _ClassVar[Primitive]
    PRIMITIVE_MOVE_RIGHT: _ClassVar[Primitive]
    PRIMITIVE_TURN_LEFT: _ClassVar[Primitive]
    PRIMITIVE_TURN_RIGHT: _ClassVar[Primitive]
PRIMITIVE_UNSPECIFIED: Primitive
PRIMITIVE_MOVE_FORWARD: Primitive
PRIMITIVE_MOVE_BACKWARD: Primitive
PRIMITIVE_MOVE_LEFT: Primitive
PRIMITIVE_MOVE_RIGHT: Primitive
PRIMITIVE_TURN_LEFT: Primitive
PRIMITIVE_TURN_RIGHT: Primitive

class Image(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class Intrinsics(_message.Message):
    __slots__ = ("fx", "fy", "cx", "cy", "width", "height")
    FX_FIELD_NUMBER: _ClassVar[int]
    FY_FIELD_NUMBER: _ClassVar[int]
    CX_FIELD_NUMBER: _ClassVar[int]
    CY_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    def __init__(self, fx: _Optional[float] = ..., fy: _Optional[float] = ..., cx: _Optional[float] = ..., cy: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Pose(_message.Message):
    __slots__ = ("c2w",)
    C2W_FIELD_NUMBER: _ClassVar[int]
    c2w: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, c2w: _Optional[_Iterable[float]] = ...) -> None: ...

class Action(_message.Message):
    __slots__ = ("primitive", "magnitude")
    PRIMITIVE_FIELD_NUMBER: _ClassVar[int]
    MAGNITUDE_FIELD_NUMBER: _ClassVar[int]
    primitive: Primitive
    magnitude: float
    def __init__(self, primitive: _Optional[_Union[Primitive, str]] = ..., magnitude: _Optional[float] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x1", "y1", "x2", "y2")
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    X2_FIELD_NUMBER: _ClassVar[int]
    Y2_FIELD_NUMBER: _ClassVar[int]
    x1: int
    y1: int
    x2: int
    y2: int
    def __init__(self, x1: _Optional[int] = ..., y1: _Optional[int] = ..., x2: _Optional[int] = ..., y2: _Optional[int] = ...) -> None: ...

class ObjectView(_message.Message):
    __slots__ = ("instance_id", "category", "colour", "box", "area")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    COLOUR_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    instance_id: int
    category: str
    colour: str
    box: Box
    area: float
    def __init__(self, instance_id: _Optional[int] = ..., category: _Optional[str] = ..., colour: _Optional[str] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., area: _Optional[float] = ...) -> None: ...
