"""The optimisers of a tiny student: Muon on the layers' matrices, AdamW on embeddings, norms and biases."""

from collections.abc import Iterable

import torch
from torch import nn

from trainer.muon import Muon
from trainer.optim_config import OptimConfig
from world2vlm.errors import DivergedError


class StudentOptimizer:
    """Muon (arXiv 2502.16982) and AdamW behind one `step`; `done` counts them."""

    def __init__(self, modules: Iterable[nn.Module], config: OptimConfig, steps: int) -> None:
        named = {id(p): (n, p) for module in modules for n, p in module.named_parameters()}.values()
        matrices = [
            p for n, p in named if p.ndim == 2 and "embed" not in n and "lm_head" not in n and "auxiliary" not in n
        ]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        decayed = {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay}
        plain = {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0}
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([decayed, plain], lr=config.adam_lr, betas=(0.9, 0.98)),
            Muon(matrices, config.muon_lr, config.weight_decay),
        ]
        self._base = [[group["lr"] for group in optimizer.param_groups] for optimizer in self._optimizers]
        self._parameters = [p for _, p in named]
        self._config, self._steps, self.done = config, steps, 0

    @property
    def factor(self) -> float:
        """The schedule's present multiple of the base rates."""
        config = self._config
        warm = min(1.0, (self.done + 1) / config.warmup)
        left = (1 - self.done / self._steps) / config.cooldown
        return warm * max(config.final, min(1.0, left))

    def step(self, loss: torch.Tensor) -> None:
        """Backpropagate, clip, update, and forget the gradients.

        Raises:
            DivergedError: the loss is not finite; nothing was changed.
        """
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss.item()} at step {self.done + 1}: lower the learning rates, and look at the data; "
                "training can go on from its last snapshot"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, self._config.clip)
        for optimizer, base in zip(self._optimizers, self._base, strict=True):
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = rate * self.factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.done += 1

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The optimisers' state by name, for a snapshot."""
        return {
            f"{number}.{parameter}.{key}": torch.as_tensor(value)
            for number, optimizer in enumerate(self._optimizers)
            for parameter, state in optimizer.state_dict()["state"].items()
            for key, value in state.items()
        }

    def load_state_tensors(self, tensors: dict[str, torch.Tensor], done: int) -> None:
        """Take over a snapshot's state after `done` steps of the optimiser."""
        self.done = done
        for number, optimizer in enumerate(self._optimizers):
            whole = optimizer.state_dict()
            whole["state"] = {}
            for name, value in tensors.items():
                owner, parameter, key = name.split(".", 2)
                if int(owner) == number:
                    whole["state"].setdefault(int(parameter), {})[key] = value
            optimizer.load_state_dict(whole)
