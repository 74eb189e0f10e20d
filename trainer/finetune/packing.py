"""Padding-free packing: examples one after the other in a row, each with positions of its own.

Text positions that start anew where an example begins, and the examples' bounds, keep attention within each: by flash
attention's kernels for sequences of unlike length, example by example on a CPU, or by transformers' block mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from world2vlm.vlm.fullsize.vision import Picture

# Rows that are still filled up.
_OPEN_ROWS = 8


@dataclass(frozen=True)
class Example:
    """One record as tokens.

    Attributes:
        ids: int64 (L,).
        is_answer: bool (L,), the assistant's answer and the token that ends it.
        positions: int64 (1, L) or (4, L), see `world2vlm.vlm.fullsize.families.positions`.
        images: keys of its images, in the order of the text.
    """

    ids: torch.Tensor
    is_answer: torch.Tensor
    positions: torch.Tensor
    images: tuple[str, ...]

    @property
    def answer_tokens(self) -> int:
        """Tokens that the loss counts."""
        return int(self.is_answer.sum())


@dataclass(frozen=True)
class Row:
    """Several examples as one sequence of T tokens, N of them of answers.

    Attributes:
        ids: int64 (T,).
        positions: int64 (1, T) or (4, T).
        places: int64 (N,), where the answers' tokens are.
        targets: int64 (N,), the answers' tokens.
        weights: float32 (N,), of the answers' tokens in the loss.
        pictures: the row's distinct images.
        lengths: tokens of each example.
        shown: index into `pictures` for each image in the text, in its order.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    pictures: tuple[Picture, ...]
    lengths: tuple[int, ...]
    shown: tuple[int, ...]

    def to(self, device: torch.device | str) -> "Row":
        """The row with all of its tensors on a device."""
        names = ("ids", "positions", "places", "targets", "weights")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        pictures = tuple({name: value.to(device) for name, value in picture.items()} for picture in self.pictures)
        return replace(self, **moved, pictures=pictures)


def pack(examples: Sequence[Example], weights: Sequence[float], pictures: dict[str, Picture]) -> Row:
    """Lay examples out in one row.

    Args:
        examples: at least one.
        weights: of each example's answer tokens.
        pictures: the images by key; those that no example shows are left out.
    """
    ids = torch.cat([example.ids for example in examples])
    is_answer = torch.cat([example.is_answer for example in examples])
    places = is_answer.nonzero()[:, 0]
    each = torch.tensor(weights, dtype=torch.float32)
    shown = [key for example in examples for key in example.images]
    distinct = list(dict.fromkeys(shown))
    return Row(
        ids,
        torch.cat([example.positions for example in examples], dim=1),
        places,
        ids[places],
        each.repeat_interleave(torch.tensor([example.answer_tokens for example in examples])),
        tuple(pictures[key] for key in distinct),
        tuple(len(example.ids) for example in examples),
        tuple(distinct.index(key) for key in shown),
    )


def fill_rows(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Share examples out among rows, each into the first of the last few rows that has room for it.

    Looking back at few rows only keeps the order nearly as it was drawn, so that what is in a step stays random.

    Args:
        lengths: tokens of each example, none above the budget.
        budget: tokens of a row at most.

    Returns:
        Indices of each row's examples.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index, length in enumerate(lengths):
        recent = range(max(0, len(rows) - _OPEN_ROWS), len(rows))
        place = next((row for row in recent if room[row] >= length), None)
        if place is None:
            rows.append([])
            room.append(budget)
            place = len(rows) - 1
        rows[place].append(index)
        room[place] -= length
    return rows
