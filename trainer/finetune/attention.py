"""Attention within parts of a row, on a CPU: not over the whole row under a block mask, and parts of one size together.

On GPUs flash attention does so by itself, from the same bounds.
"""

from itertools import groupby, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv

PER_EXAMPLE = "per_example"
# transformers' towers hand the bounds of their windows to attention of such a name, and call any other for each window.
_PER_WINDOW = "flash_per_window"


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


def attend_by_windows(model: Any) -> None:
    """Have the tower of a model of Qwen's look at windows of one size together; other towers have no windows."""
    if (tower := getattr(model.model, "visual", None)) is not None:
        tower.config._attn_implementation = _PER_WINDOW


def attend_within_windows(
    _module: Any,
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
    """Attention both ways within windows: query, key and value (1, heads, T, depth).

    Returns:
        (1, T, heads, depth), and no weights.
    """
    attended, start = [], 0
    for length, windows in groupby(cu_seq_lens_q.diff().tolist()):
        end = start + length * len(list(windows))
        heads, depth = query.shape[1], query.shape[3]
        parts = [states[0, :, start:end].reshape(heads, -1, length, depth) for states in (query, key, value)]
        # (windows, heads, L, depth)
        q, k, v = (part.transpose(0, 1) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        attended.append(mixed.transpose(1, 2).flatten(0, 1))
        start = end
    return torch.cat(attended)[None], None


AttentionInterface.register(PER_EXAMPLE, _attend)
AttentionInterface.register(_PER_WINDOW, attend_within_windows)
