"""What the tests of the student and its training share: tiny sizes, toy views with known objects, and clip frames."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.dense import patch_targets
from trainer.perception import COLOURS
from trainer.views import Views
from world2vlm.boxes import Box
from world2vlm.bundles import ObjectView
from world2vlm.vlm import StudentConfig, StudentModel, build_student

TINY = StudentConfig(
    frame_size=32, patch_size=8, merge_size=2, vision_layers=2, text_layers=2, vision_width=32, text_width=32
)
_PAINT = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 230), "yellow": (230, 220, 30)}


def student(seed: int = 0, sizes: StudentConfig = TINY) -> StudentModel:
    return build_student(sizes, seed)


def noise(seed: int, width: int = 48, height: int = 48) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def clips(count: int, size: int = TINY.frame_size, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 2, size, size, 3), dtype=np.uint8)


def seen(
    colour: str, category: str, box: tuple[int, int, int, int], instance: int = 1, area: float = 0.1
) -> ObjectView:
    return ObjectView(instance, category, colour, Box(*box), area)


def toy_view(rng: np.random.Generator, size: int = 32) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[ObjectView]]:
    """A grey frame with one painted rectangle in its left half and one in its right, the map, and the objects."""
    frame = np.full((size, size, 3), 120, dtype=np.uint8)
    instances = np.zeros((size, size), dtype=np.uint8)
    half = size // 2
    objects = []
    colours = rng.permutation(list(_PAINT))[:2]
    categories = rng.permutation(["chair", "table", "lamp"])[:2]
    for number, (colour, category) in enumerate(zip(colours.tolist(), categories.tolist(), strict=True), start=1):
        x1 = (number - 1) * half + int(rng.integers(0, half // 4))
        x2 = number * half - int(rng.integers(0, half // 4))
        y1, y2 = int(rng.integers(0, half)), int(rng.integers(half + 1, size))
        frame[y1:y2, x1:x2] = _PAINT[colour]
        instances[y1:y2, x1:x2] = number
        box = Box(*(round(1000 * edge / size) for edge in (x1, y1, x2, y2)))
        objects.append(ObjectView(number, category, colour, box, (instances == number).mean().item()))
    return frame, instances, objects


def toy_views(scenes: int, per_scene: int = 2, sizes: StudentConfig = TINY, seed: int = 0) -> Views:
    assert set(_PAINT) <= set(COLOURS)
    rng = np.random.default_rng(seed)
    drawn = [toy_view(rng, sizes.frame_size) for _ in range(scenes * per_scene)]
    grid = sizes.frame_size // sizes.patch_size
    return Views(
        np.stack([frame for frame, _, _ in drawn]),
        np.stack([patch_targets(instances, objects, grid) for _, instances, objects in drawn]),
        np.repeat(np.arange(scenes), per_scene),
        [objects for _, _, objects in drawn],
    )
