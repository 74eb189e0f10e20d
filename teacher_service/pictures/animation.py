"""The frames of one trajectory as a moving picture."""

import io
from collections.abc import Sequence

from PIL import Image

from world2vlm.bundles import Frame

_STEP_MS, _KEY_MS = 120, 700
_QUALITY = 85


def encode_animation(frames: Sequence[Frame]) -> bytes:
    """Encode all frames as an endless animated WebP that rests at the end of each action."""
    first, *rest = (Image.open(io.BytesIO(frame.png)).convert("RGB") for frame in frames)
    durations = [_KEY_MS if frame.key_frame else _STEP_MS for frame in frames]
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, quality=_QUALITY)
    return buffer.getvalue()
