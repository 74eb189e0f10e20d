"""Continuous batching of a full-size model: `world2vlm.vlm.decoding`, with rows that grow and choices on the device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from world2vlm.errors import UnavailableError
from world2vlm.vlm.decoding import Decoder, Job, Row, log_probability
from world2vlm.vlm.fullsize.cache import GrowingCache
from world2vlm.vlm.fullsize.network import Beginning


class FamilyDecoder(Decoder):
    """Grows up to `rows` answers at once; see `Decoder`, whose `length` here is without any prefix.

    Logits stay on the device: of a vocabulary of 152,064 only the allowed ones, or the likeliest one, are fetched.
    """

    def __init__(self, *args: Any, length: int, **options: Any) -> None:
        super().__init__(*args, length=length, **options)
        self._length = length

    def admit(self, key: int, job: Job) -> None:
        """See `Decoder.admit`.

        Raises:
            UnavailableError: there is no memory for a prompt as long as this one.
        """
        assert isinstance(self._cache, GrowingCache) and isinstance(job.clip, Beginning)
        # The rows of a chunk are padded to its longest, whose new tokens are a question, or what a grammar forces.
        behind = max(self._length, len(job.tokens) + job.max_new_tokens) + job.max_new_tokens
        try:
            self._cache.reserve(len(job.clip.ids) + behind)
        except torch.OutOfMemoryError as error:
            raise UnavailableError("there is no memory for so long a prompt: send smaller pictures") from error
        super().admit(key, job)

    def _draw(self, chunks: Sequence[range]) -> list[int]:
        if not chunks:
            return []
        logits = torch.cat([self._extend(rows) for rows in chunks])
        # The device is at work meanwhile.
        allowed = [None if row.constraint is None else row.constraint.allowed() for row in self._rows]
        scores = _fetch(logits, allowed)
        free = [index for index, ids in enumerate(allowed) if ids is None]
        likeliest = dict(zip(free, _likeliest(logits[free]), strict=True)) if free else {}
        tokens = []
        for index, (row, ids) in enumerate(zip(self._rows, allowed, strict=True)):
            if row.chance is not None:
                tokens.append(self._choose(row, logits[index].cpu().numpy()))
            elif ids is None:
                token, chance = likeliest[index]
                row.log_probabilities = row.log_probabilities + chance
                tokens.append(int(token))
            else:
                tokens.append(_pick(row, ids, scores[index, : len(ids)]))
        return tokens


def _pick(row: Row, allowed: NDArray[np.int64], scores: NDArray[np.float32]) -> int:
    best = int(scores.argmax())
    row.log_probabilities = row.log_probabilities + log_probability(scores, best, row.temperatures)
    return int(allowed[best])


def _fetch(logits: torch.Tensor, allowed: Sequence[NDArray[np.int64] | None]) -> NDArray[np.float32]:
    """Of logits (B, vocabulary) those of each row's allowed tokens in their order: float32 (B, K)."""
    widest = max((len(ids) for ids in allowed if ids is not None), default=0)
    table = np.zeros((len(allowed), widest), np.int64)
    for place, ids in zip(table, allowed, strict=True):
        if ids is not None:
            place[: len(ids)] = ids
    scores: NDArray[np.float32] = logits.gather(1, torch.from_numpy(table).to(logits.device)).cpu().numpy()
    return scores


def _likeliest(logits: torch.Tensor) -> NDArray[np.float64]:
    """Of logits (B, vocabulary) the likeliest token of each row, and the logarithm of its probability: (B, 2)."""
    best, token = logits.max(dim=1)
    chance = best.double() - logits.double().logsumexp(dim=1)
    found: NDArray[np.float64] = torch.stack((token.double(), chance), dim=1).cpu().numpy()
    return found
