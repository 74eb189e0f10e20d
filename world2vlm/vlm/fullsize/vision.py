"""Images as the language model sees them: the tower's output for each image, computed once for each distinct image."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from world2vlm.vlm.fullsize.families import Family

# What is known of one image, by name: the image processor's tensors, or the tower's output in their place.
Picture = Mapping[str, torch.Tensor]
FEATURES, DEEPSTACK = "features", "deepstack."
GRID = "image_grid_thw"


def look(processor: Any, family: Family, image: Image.Image) -> tuple[Picture, str]:
    """What an image processor makes of an image, and the text that stands for the image in a conversation."""
    found = processor.image_processor(images=[image], return_tensors="pt", **dict.fromkeys(family.options, True))
    text: str = processor.replace_image_token(found, 0)
    return {name: found[name] for name in family.inputs if name in found}, text


def see(base: Any, family: Family, pictures: Sequence[Picture]) -> list[Picture]:
    """Run vision tower and projector over images, those of like shape at once.

    Args:
        base: the model without its head.
        family: its family.
        pictures: the image processor's tensors of each image; where there are features already, they are returned.

    Returns:
        For each image `features` (T, width), and `deepstack.<n>` of the same shape for each layer that takes one
        (Qwen3-VL).
    """
    seen = list(pictures)
    alike: dict[tuple[torch.Size, ...], list[int]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        if FEATURES not in picture:
            alike[tuple(picture[name].shape[1:] for name in family.inputs if name in picture)].append(index)
    for indices in alike.values():
        names = [name for name in family.inputs if name in pictures[indices[0]]]
        inputs = {name: torch.cat([pictures[index][name] for index in indices]) for name in names}
        output = base.get_image_features(**inputs, return_dict=True)
        layers = getattr(output, "deepstack_features", None) or []
        for place, index in enumerate(indices):
            deep = {f"{DEEPSTACK}{number}": layer[place] for number, layer in enumerate(layers)}
            seen[index] = {FEATURES: output.pooler_output[place], **deep}
    return seen


def as_encoder_output(seen: Sequence[Picture]) -> dict[str, Any]:
    """What transformers' models take as `mm_encoder_outputs`, in the order of the images in the text."""
    layers = sum(name.startswith(DEEPSTACK) for name in seen[0])
    deep = [[picture[f"{DEEPSTACK}{number}"] for picture in seen] for number in range(layers)]
    return {"image": SimpleNamespace(pooler_output=[picture[FEATURES] for picture in seen], deepstack_features=deep)}
