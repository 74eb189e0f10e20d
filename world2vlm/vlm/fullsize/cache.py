"""Keys and values of answers under way, and of the prefixes that they begin with."""

from dataclasses import dataclass

import torch

from world2vlm.vlm.network import RowCache

# Lengths are rounded up to this: few distinct shapes, so that kernels and memory are found again.
ROUND = 64


@dataclass(frozen=True)
class Prefix:
    """A prefix as it is kept.

    Attributes:
        pairs: (layers, 2, heads, P, dim), its keys and values.
        shift: what is added to the index of a token behind it to get the token's position.
    """

    pairs: torch.Tensor
    shift: int

    @property
    def nbytes(self) -> int:
        """Of keys and values."""
        return self.pairs.nbytes


class GrowingCache(RowCache):
    """A `RowCache` whose rows become longer where a prompt needs it; it never shrinks.

    Attributes:
        shifts: of each row's prefix.
    """

    def __init__(self, layers: int, rows: int, heads: int, dim: int, like: torch.Tensor) -> None:
        super().__init__(layers, rows, heads, 0, dim, like)
        self.shifts = [0] * rows
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens that a row holds at most."""
        return self._length

    def reserve(self, length: int) -> None:
        """Let each row hold at least so many tokens; where there is no memory for that, nothing changes."""
        rounded = -(-length // ROUND) * ROUND
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                rows, heads, filled, dim = old.shape
                if filled < rounded:
                    tensors[layer] = old.new_zeros(rows, heads, rounded, dim)
                    tensors[layer][:, :, :filled] = old
        self._length = max(self._length, rounded)

    def write_prefix(self, row: int, prefix: Prefix) -> int:
        """See `RowCache.write_prefix`."""
        self.shifts[row] = prefix.shift
        return super().write_prefix(row, prefix.pairs)

    def move(self, source: int, target: int, length: int) -> None:
        """See `RowCache.move`."""
        super().move(source, target, length)
        self.shifts[target] = self.shifts[source]
