"""Settings of the optimisers; apart from them, so that reading a recipe needs no torch."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True)
class OptimConfig:
    """Learning rates and schedule: linear warm-up, flat, then linear decay to `final` over the last `cooldown`."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    muon_lr: float = 0.02
    adam_lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 50
    cooldown: float = 1.0
    final: float = 0.02
    clip: float = 1.0
