"""Settings of the optimisers; apart from them, so that reading a recipe needs no torch."""

from dataclasses import dataclass

from trainer.ranges import AtLeastOne, Positive, Share, Weight


@dataclass(frozen=True)
class OptimConfig:
    """Learning rates and schedule: linear warm-up, flat, then linear decay to `final` over the last `cooldown`."""

    muon_lr: Positive = 0.02
    adam_lr: Positive = 1e-3
    weight_decay: Weight = 0.05
    warmup: AtLeastOne = 50
    cooldown: Positive = 1.0
    final: Share = 0.02
    clip: Positive = 1.0
