"""Whether weights are numbers."""

from collections.abc import Iterable

import torch


def all_finite(weights: Iterable[torch.Tensor]) -> bool:
    """Whether no weight holds a NaN or an infinity.

    Their extremes say so, as a NaN is both of them, and take no memory; `isfinite` would take a copy of each weight
    and more, which a service that loads a checkpoint beside another one has no room for.
    """
    return all(bool(torch.isfinite(end)) for weight in weights if weight.numel() for end in torch.aminmax(weight))
