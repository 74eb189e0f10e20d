"""The loss on answers alone, with logits of answer positions only, and never of all of them at once."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainer.finetune.attention import bounds
from trainer.finetune.packing import Row
from world2vlm.vlm.fullsize.families import Family
from world2vlm.vlm.fullsize.vision import as_encoder_output, see


def answer_loss(
    head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, chunk: int
) -> torch.Tensor:
    """Weighted sum of the cross entropies of answer tokens.

    The logits of a chunk are thrown away after use and computed again in the backward pass: with a vocabulary of
    152,064 they take 600 KB a token in float32, more than everything else.

    Args:
        head: from hidden states to logits.
        hidden: (N, width), of the positions before the answer tokens.
        targets: int64 (N,), the answer tokens.
        weights: float32 (N,).
        chunk: tokens whose logits are in memory at once.

    Returns:
        float32, a scalar.
    """

    def part(hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        losses = F.cross_entropy(head(hidden).float(), targets, reduction="none")
        return (losses * weights).sum()

    # Even a row without answers must reach the head, or processes would wait for each other's gradients.
    total = part(hidden[:0], targets[:0], weights[:0])
    for start in range(0, len(targets), chunk):
        taken = slice(start, start + chunk)
        pieces = hidden[taken], targets[taken], weights[taken]
        total = total + checkpoint(part, *pieces, use_reentrant=False, preserve_rng_state=False)
    return total


class RowLoss(nn.Module):
    """A model as one forward pass from a row to its loss, which is what FSDP2 and DDP need.

    Args:
        model: transformers' model with its head, adapters inside.
        family: its family.
        chunk: answer tokens whose logits are in memory at once.
        autocast: what matrix products are computed in, where that is not the weights' own type.
    """

    def __init__(self, model: Any, family: Family, chunk: int, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model
        self._family = family
        self._chunk = chunk
        self._autocast = autocast

    def forward(self, row: Row) -> torch.Tensor:
        """The weighted sum of the row's losses: float32, a scalar."""
        with torch.autocast(row.ids.device.type, self._autocast, enabled=self._autocast is not None):
            hidden = self.hidden_states(row)
            return answer_loss(self.model.lm_head, hidden[row.places - 1], row.targets, row.weights, self._chunk)

    def hidden_states(self, row: Row) -> torch.Tensor:
        """Last hidden states of a row's T tokens: (T, width)."""
        base = self.model.model
        pictures = see(base, self._family, row.pictures)
        shown = [pictures[index] for index in row.shown]
        # Without a mask, transformers keeps attention within what starts anew in positions and bounds.
        output = base(
            input_ids=row.ids[None],
            position_ids=row.positions[:, None] if self._family.grid_positions else row.positions,
            mm_encoder_outputs=as_encoder_output(shown) if shown else None,
            use_cache=False,
            **bounds(row.lengths, row.ids.device),
        )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden
