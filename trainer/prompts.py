"""Questions about a bundle's frames, as a student reads them."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from world2vlm.vlm import Prompt


def read_prompt(bundles: Path, images: Sequence[str], text: str, task: str = "") -> Prompt:
    """A prompt with its images, whose paths are relative to `bundles`."""
    return Prompt(tuple(Image.open(bundles / path).convert("RGB") for path in images), text, task)
