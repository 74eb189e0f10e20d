"""What differs between families of vision-language models, in one table; another family is another line."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from world2vlm.errors import InvalidInputError


@dataclass(frozen=True)
class Family:
    """One family of transformers' models.

    Attributes:
        vision: submodules of the base model that see: the tower, and the projector where it is not part of the tower.
        language: submodule of the base model that holds the layers of the language model.
        inputs: what the image processor makes of an image for the model. The first axis of each counts images, or
            patches of images one after the other, so that images of like shape can be concatenated.
        options: what the image processor must be asked for, to know how many tokens an image takes.
        grid_positions: positions are Qwen's, of time, row and column, and come from the model's `get_rope_index`.
    """

    vision: tuple[str, ...]
    language: str
    inputs: tuple[str, ...]
    options: tuple[str, ...] = ()
    grid_positions: bool = False


_QWEN = Family(("visual",), "language_model", ("pixel_values", "image_grid_thw"), grid_positions=True)
# By transformers' `model_type`.
FAMILIES = {
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "idefics3": Family(
        ("vision_model", "connector"),
        "text_model",
        ("pixel_values", "pixel_attention_mask"),
        options=("return_row_col_info",),
    ),
    "llava": Family(("vision_tower", "multi_modal_projector"), "language_model", ("pixel_values",)),
}


def find_family(config: Any) -> Family:
    """The family of a transformers config.

    Raises:
        InvalidInputError: it is none of the known ones.
    """
    name = getattr(config, "model_type", None)
    if name not in FAMILIES:
        raise InvalidInputError(
            f"models of type {name!r} cannot be fine-tuned or served; known are {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def vision_modules(base: nn.Module, family: Family) -> list[nn.Module]:
    """Tower and projector of a base model (the model without its head)."""
    return [base.get_submodule(name) for name in family.vision]


def positions(base: Any, family: Family, ids: torch.Tensor, grids: torch.Tensor | None) -> torch.Tensor:
    """Positions of one example's tokens, from 0 on.

    Args:
        base: the model without its head; only its config is read, so it may be on the meta device.
        family: its family.
        ids: int64 (L,).
        grids: int64 (images, 3), patches in time, rows and columns; None in a family without grids.

    Returns:
        int64 (1, L): text positions; in a family of grid positions (4, L): text, time, row and column.
    """
    text = torch.arange(len(ids))[None]
    if not family.grid_positions:
        return text
    if grids is None or not len(grids):
        return text.expand(4, -1).clone()
    is_image = (ids == base.config.image_token_id).int()
    found, _ = base.get_rope_index(ids[None], mm_token_type_ids=is_image[None], image_grid_thw=grids)
    return torch.cat([text, found[:, 0]])
