"""Attention within each example of a row, on a CPU: example by example, not over the whole row under a block mask.

On GPUs flash attention does so by itself, from the same bounds.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv

PER_EXAMPLE = "per_example"


def bounds(lengths: tuple[int, ...], device: torch.device) -> dict[str, Any]:
    """Where a row's examples begin and end, as transformers passes it to attention (its `FlashAttentionKwargs`)."""
    ends = torch.tensor((0, *lengths), dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": max(lengths), "max_length_k": max(lengths)}


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention: query (1, heads, T, depth), key and value with as many heads or a divisor of them.

    Returns:
        (1, T, heads, depth), and no weights.
    """
    key, value = (repeat_kv(states, module.num_key_value_groups) for states in (key, value))
    ends = cu_seq_lens_q.tolist()
    attended = [
        F.scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end],
            dropout_p=dropout, is_causal=True, scale=scaling,
        )
        for start, end in pairwise(ends)
    ]  # fmt: skip
    return torch.cat(attended, dim=2).transpose(1, 2), None


AttentionInterface.register(PER_EXAMPLE, _attend)
