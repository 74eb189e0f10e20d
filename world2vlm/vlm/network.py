"""The student's forward passes, batched: clips become cached prefixes, and tokens extend rows of a key-value cache.

A prompt is a prefix (the user's turn and the clip), the question, and the answer. The prefix is the same for every
question about a clip, so its keys and values are computed once and copied; everything after it is plain text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import Cache, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionAttention, apply_rotary_pos_emb_vision

from world2vlm.vlm.processor import ClipProcessor

# Lengths are rounded up to this: few distinct shapes, so that kernels and memory are found again.
_ROUND = 32
# Of the built-in student's prefixes that are kept.
PREFIX_BYTES = 32 << 20


class RowCache:
    """Keys and values of `rows` growing token sequences.

    Attributes:
        keys, values: one tensor (rows, key-value heads, length, head dim) a layer.
    """

    def __init__(self, layers: int, rows: int, heads: int, length: int, dim: int, like: torch.Tensor) -> None:
        """Allocate; `like` gives dtype and device."""
        self.keys = [like.new_zeros(rows, heads, length, dim) for _ in range(layers)]
        self.values = [like.new_zeros(rows, heads, length, dim) for _ in range(layers)]

    @property
    def length(self) -> int:
        """Tokens that a row holds at most."""
        return self.keys[0].shape[2]

    def write_prefix(self, row: int, prefix: Any) -> int:
        """Begin a row with a prefix, here (layers, 2, heads, P, dim). Returns its tokens, P."""
        for layer, (key, value) in enumerate(prefix):
            self.keys[layer][row, :, : key.shape[1]] = key
            self.values[layer][row, :, : value.shape[1]] = value
        return int(prefix.shape[3])

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one row over another's."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]


@dataclass(frozen=True)
class Chunk:
    """New tokens for the rows `first` to `first + B - 1` of a cache.

    Attributes:
        tokens: B sequences of at least one token id each.
        starts: how many tokens each row holds before.
    """

    first: int
    tokens: Sequence[Sequence[int]]
    starts: Sequence[int]


class Clip(Protocol):
    """What a prefix is made of; uint8 (2, S, S, 3) for the built-in student."""

    def tobytes(self) -> bytes:
        """What tells it from others."""
        ...


class Network(Protocol):
    """What runs the student's weights; the decoder drives it.

    Attributes:
        prefix_length: tokens of every prefix; 0 where that differs from one to the next.
        prefix_bytes: of prefixes that are worth keeping.
    """

    prefix_length: int
    prefix_bytes: int

    def new_cache(self, rows: int, length: int) -> RowCache:
        """An empty cache for `rows` sequences of at most `length` tokens."""
        ...

    def read(self, clips: Sequence[Any]) -> Sequence[Any]:
        """The prefixes of clips, each (layers, 2, heads, P, dim) for the built-in student."""
        ...

    def extend(self, cache: RowCache, chunk: Chunk) -> torch.Tensor:
        """Append a chunk to its rows. Returns the logits (B, vocabulary), float32, after each row's last new token."""
        ...


class Window(Cache):
    """A `RowCache` as transformers' layers use it, for one forward pass."""

    def __init__(self, cache: RowCache, first: int, columns: torch.Tensor, length: int) -> None:
        super().__init__(layers=[])
        self._cache, self._length = cache, length
        self._rows = torch.arange(first, first + len(columns))
        self._span = slice(first, first + len(columns))
        self._columns = columns

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values (B, heads, C, dim); returns all of the rows'."""
        keys, values = self._cache.keys[layer_idx], self._cache.values[layer_idx]
        keys[self._rows[:, None], :, self._columns] = key_states.transpose(1, 2)
        values[self._rows[:, None], :, self._columns] = value_states.transpose(1, 2)
        return keys[self._span, :, : self._length], values[self._span, :, : self._length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Not needed: positions are always given."""
        return 0


class TorchNetwork:
    """transformers' Qwen3-VL in this process.

    Attributes:
        prefix_ids: token ids of a prompt up to the question.
        prefix_positions: int64 (P, 3), their temporal, row and column positions.
        first_position: of the token after the prefix; text counts on from it.
    """

    prefix_bytes = PREFIX_BYTES

    def __init__(self, model: Qwen3VLForConditionalGeneration, processor: ClipProcessor) -> None:
        self.model = model
        self.vision = model.model.visual
        self.language = model.model.language_model
        self.processor = processor
        self.patch_order = processor.patch_order()
        grid = processor.grid
        rows_columns = torch.stack([self.patch_order // grid, self.patch_order % grid], dim=-1).to(model.device)
        self.vision_angles = [table.detach() for table in self.vision.rotary_pos_emb(self._zero(), rows_columns)]
        self.prefix_ids = processor.clip_ids()
        self.image_start = self.prefix_ids.index(processor.image_token_id)
        self.prefix_positions, self.first_position = processor.clip_positions()
        self.prefix_length = len(self.prefix_ids)

    def see(self, clips: NDArray[np.uint8]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run the vision tower on clips, uint8 (N, 2, S, S, 3), all at once (transformers' own loops over them).

        Returns:
            Visual tokens (N, T, width) and the deepstack features, each (N * T, width).
        """
        return self.see_patches(self.processor.clip_patches(clips).to(self._zero()))

    def see_patches(self, patches: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """As `see`, of normalised patches (N, grid^2, D)."""
        tower = self.vision
        count = patches.shape[0]  # not len(): an export keeps it open
        # transformers' convolution has the patch's own size: the same as a matrix product, which a CPU does faster.
        projection = tower.patch_embed.proj
        hidden = F.linear(patches, projection.weight.flatten(1), projection.bias)
        hidden = hidden + tower.pos_embed.weight[self.patch_order]
        deepstack = []
        for index, block in enumerate(tower.blocks):
            hidden = hidden + self._vision_attention(block.attn, block.norm1(hidden))
            hidden = hidden + block.mlp(block.norm2(hidden))
            if index in tower.deepstack_visual_indexes:
                merger = tower.deepstack_merger_list[tower.deepstack_visual_indexes.index(index)]
                deepstack.append(merger(hidden.flatten(0, 1)))
        return tower.merger(hidden.flatten(0, 1)).view(count, self.processor.image_tokens, -1), deepstack

    def new_cache(self, rows: int, length: int) -> RowCache:
        """See `Network.new_cache`."""
        sizes: Any = self.model.config.text_config
        rounded = -(-length // _ROUND) * _ROUND
        return RowCache(sizes.num_hidden_layers, rows, sizes.num_key_value_heads, rounded, sizes.head_dim, self._zero())

    def read(self, clips: Sequence[NDArray[np.uint8]]) -> list[torch.Tensor]:
        """See `Network.read`."""
        count = len(clips)
        visual, deepstack = self.see(np.stack(clips))
        ids = torch.tensor(self.prefix_ids, device=visual.device).expand(count, -1)
        words = self.language.embed_tokens(ids)
        end = self.image_start + self.processor.image_tokens
        embeddings = torch.cat([words[:, : self.image_start], visual, words[:, end:]], dim=1)
        cache = self.new_cache(count, self.prefix_length)
        positions = torch.from_numpy(self.prefix_positions).to(visual.device).T[:, None].expand(3, count, -1)
        columns = torch.arange(self.prefix_length, device=visual.device).expand(count, -1)
        self._run(cache, 0, columns, embeddings, positions, ids == self.processor.image_token_id, deepstack)
        pairs = [torch.stack(pair, dim=1) for pair in zip(cache.keys, cache.values, strict=True)]
        return [torch.stack([pair[row, :, :, : self.prefix_length] for pair in pairs]).clone() for row in range(count)]

    def extend(self, cache: RowCache, chunk: Chunk) -> torch.Tensor:
        """See `Network.extend`."""
        device = self.model.device
        width = max(map(len, chunk.tokens))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in chunk.tokens], device=device)
        starts = torch.tensor(chunk.starts, device=device)
        # What pads a short row is written behind its end, masked, and written over by what comes next.
        columns = starts[:, None] + torch.arange(width, device=device)
        positions = (columns + self.first_position - self.prefix_length).expand(3, -1, -1)
        hidden = self._run(cache, chunk.first, columns, self.language.embed_tokens(ids), positions)
        last = torch.tensor([len(row) - 1 for row in chunk.tokens], device=device)
        logits: torch.Tensor = self.model.lm_head(hidden[torch.arange(len(last), device=device), last])
        return logits.float()

    def _run(
        self,
        cache: RowCache,
        first: int,
        columns: torch.Tensor,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        is_visual: torch.Tensor | None = None,
        deepstack: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        length = min(cache.length, -(-(int(columns.max()) + 1) // _ROUND) * _ROUND)
        allowed = torch.arange(length, device=columns.device) <= columns[:, :, None]
        mask = torch.zeros(allowed.shape, dtype=embeddings.dtype, device=columns.device)
        output = self.language(
            inputs_embeds=embeddings,
            attention_mask=mask.masked_fill_(~allowed, torch.finfo(embeddings.dtype).min)[:, None],
            position_ids=positions,
            past_key_values=Window(cache, first, columns, length),
            visual_pos_masks=is_visual,
            deepstack_visual_embeds=deepstack or None,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _vision_attention(self, attention: Qwen3VLVisionAttention, hidden: torch.Tensor) -> torch.Tensor:
        count, length, _ = hidden.shape
        heads = attention.num_heads
        query, key, value = attention.qkv(hidden).view(count, length, 3, heads, -1).unbind(2)
        cos, sin = (table.repeat(count, 1) for table in self.vision_angles)
        query, key = apply_rotary_pos_emb_vision(query.flatten(0, 1), key.flatten(0, 1), cos, sin)
        query, key = (part.view(count, length, heads, -1) for part in (query, key))
        mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        output: torch.Tensor = attention.proj(mixed.transpose(1, 2).reshape(count, length, -1))
        return output

    def _zero(self) -> torch.Tensor:
        """A tensor with the weights' dtype and device."""
        return torch.zeros(1, dtype=self.model.dtype, device=self.model.device)
