"""The forward passes of any family's model, batched; a `world2vlm.vlm.network.Network`.

A prompt is a prefix (all up to the end of the last picture), the rest of the question, and the answer. The prefix is
the same for every question about the same pictures, so its keys and values are computed once and copied.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from cachetools import LRUCache
from transformers import DynamicCache

from world2vlm.errors import InvalidInputError
from world2vlm.vlm.fullsize.cache import ROUND, GrowingCache, Prefix
from world2vlm.vlm.fullsize.families import Family, positions
from world2vlm.vlm.fullsize.vision import GRID, Picture, as_encoder_output, see
from world2vlm.vlm.network import Chunk, RowCache, Window

_FEATURE_BYTES = 256 << 20
_PREFIX_BYTES = 1 << 30


@dataclass(frozen=True)
class Seen:
    """A picture as the image processor made it: what it was made of, the text that stands for it, and its tensors."""

    digest: bytes
    text: str
    tensors: Picture

    @property
    def nbytes(self) -> int:
        """Of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True)
class Beginning:
    """What a prefix is made of: its tokens, and the pictures that they show."""

    ids: tuple[int, ...]
    pictures: tuple[Seen, ...]

    def tobytes(self) -> bytes:
        """See `world2vlm.vlm.network.Clip`."""
        return torch.tensor(self.ids).numpy().tobytes() + b"".join(seen.digest for seen in self.pictures)


class FamilyNetwork:
    """A model of any family in this process.

    Args:
        model: transformers' own, in inference mode.
        family: its family.

    Raises:
        InvalidInputError: its layers attend to a window only.

    Attributes:
        context: tokens of a prompt that the model was made for.
        looks: how many pictures the vision tower has looked at.
    """

    prefix_length = 0
    prefix_bytes = _PREFIX_BYTES

    def __init__(self, model: Any, family: Family) -> None:
        self._model, self._base, self._family = model, model.model, family
        self._text = model.config.get_text_config()
        self.context: int = self._text.max_position_embeddings
        if _slides(self._text):
            raise InvalidInputError("models whose layers attend to a sliding window cannot be served")
        self._features: LRUCache[bytes, Picture] = LRUCache(_FEATURE_BYTES, getsizeof=_nbytes)
        self.looks = 0

    def new_cache(self, rows: int, length: int) -> GrowingCache:
        """See `Network.new_cache`; its length comes with the prompts."""
        text = self._text
        heads = text.num_key_value_heads or text.num_attention_heads
        dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        like = torch.zeros(1, dtype=self._model.dtype, device=self._model.device)
        return GrowingCache(text.num_hidden_layers, rows, heads, dim, like)

    def read(self, clips: Sequence[Beginning]) -> list[Prefix]:
        """See `Network.read`; those of equal length go together."""
        features = self._look_at([seen for clip in clips for seen in clip.pictures])
        alike: dict[int, list[int]] = defaultdict(list)
        for index, clip in enumerate(clips):
            alike[len(clip.ids)].append(index)
        found: dict[int, Prefix] = {}
        for indices in alike.values():
            found.update(zip(indices, self._read([clips[index] for index in indices], features), strict=True))
        return [found[index] for index in range(len(clips))]

    def extend(self, cache: RowCache, chunk: Chunk) -> torch.Tensor:
        """See `Network.extend`."""
        assert isinstance(cache, GrowingCache)
        device, count = self._model.device, len(chunk.tokens)
        width = max(map(len, chunk.tokens))
        # What pads a short row is written behind its end, masked, and written over by what comes next.
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in chunk.tokens], device=device)
        columns = torch.tensor(chunk.starts, device=device)[:, None] + torch.arange(width, device=device)
        shifts = torch.tensor(cache.shifts[chunk.first : chunk.first + count], device=device)
        length = min(cache.length, -(-(max(chunk.starts) + width) // ROUND) * ROUND)
        places = columns + shifts[:, None]
        output = self._base(
            input_ids=ids,
            attention_mask=(torch.arange(length, device=device) <= columns[:, :, None])[:, None],
            position_ids=places.expand(3, -1, -1) if self._family.grid_positions else places,
            past_key_values=Window(cache, chunk.first, columns, length),
        )
        lasts = torch.tensor([len(row) - 1 for row in chunk.tokens], device=device)
        hidden = output.last_hidden_state[torch.arange(count, device=device), lasts]
        logits: torch.Tensor = self._model.lm_head(hidden)
        return logits.float()

    def _look_at(self, pictures: Sequence[Seen]) -> dict[bytes, Picture]:
        """What the tower makes of pictures, by their digests; each is looked at once as long as it is remembered."""
        found = {seen.digest: self._features[seen.digest] for seen in pictures if seen.digest in self._features}
        unknown = {seen.digest: seen for seen in pictures if seen.digest not in found}
        device = self._model.device
        tensors = [{name: value.to(device) for name, value in seen.tensors.items()} for seen in unknown.values()]
        for digest, features in zip(unknown, see(self._base, self._family, tensors), strict=True):
            found[digest] = features
            with suppress(ValueError):  # larger than all that may be kept
                self._features[digest] = features
        self.looks += len(unknown)
        return found

    def _read(self, clips: Sequence[Beginning], features: dict[bytes, Picture]) -> list[Prefix]:
        """Prefixes of equal length, in one pass."""
        device = self._model.device
        ids = torch.tensor([clip.ids for clip in clips])
        places = torch.stack([self._places(row, clip) for row, clip in zip(ids, clips, strict=True)], dim=1)
        past: Any = DynamicCache(config=self._text)
        self._base(
            input_ids=ids.to(device),
            position_ids=places.to(device) if self._family.grid_positions else places[0].to(device),
            mm_encoder_outputs=as_encoder_output([features[seen.digest] for clip in clips for seen in clip.pictures]),
            past_key_values=past,
            use_cache=True,
        )
        pairs = torch.stack([torch.stack((layer.keys, layer.values), dim=1) for layer in past.layers], dim=1)
        shifts = (places.amax(dim=(0, 2)) + 1 - ids.shape[1]).tolist()
        return [Prefix(own.clone(), shift) for own, shift in zip(pairs, shifts, strict=True)]

    def _places(self, ids: torch.Tensor, clip: Beginning) -> torch.Tensor:
        """Positions of a prefix's tokens: (3, P) of time, row and column, or (1, P)."""
        grids = [seen.tensors[GRID] for seen in clip.pictures if GRID in seen.tensors]
        found = positions(self._base, self._family, ids, torch.cat(grids) if grids else None)
        return found[1:] if self._family.grid_positions else found


def _slides(text: Any) -> bool:
    if kinds := getattr(text, "layer_types", None):
        return set(kinds) != {"full_attention"}
    return bool(getattr(text, "sliding_window", None)) and bool(getattr(text, "use_sliding_window", True))


def _nbytes(picture: Picture) -> int:
    return sum(tensor.nbytes for tensor in picture.values())
