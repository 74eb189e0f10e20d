"""Sizes of the built-in student; apart from its code, so that reading a recipe needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StudentConfig:
    """Sizes of a tiny student. `frame_size` is in pixels; a merged visual token covers patch * merge pixels."""

    frame_size: int = 96
    patch_size: int = 12
    merge_size: int = 1
    vision_layers: int = 3
    vision_width: int = 128
    text_layers: int = 3
    text_width: int = 128
    heads: int = 4
    key_value_heads: int = 2
    initializer_range: float = 0.08
