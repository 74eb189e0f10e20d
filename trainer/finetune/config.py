"""What a fine-tuning run does: every setting, checked when it is made."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from world2vlm.errors import InvalidInputError

Method = Literal["full", "lora", "dora", "qlora"]
Dtype = Literal["bf16", "float32"]
ALL_LINEAR: Literal["all-linear"] = "all-linear"


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of one run; the defaults are World2VLM's published ones (arXiv 2604.26934) where it states them.

    Attributes:
        model: folder or hub name of a transformers vision-language model.
        method: `full` weights, or an adapter: `lora` (Hu et al. 2021), `dora` (Liu et al. 2024), or `qlora` (Dettmers
            et al. 2023: LoRA on weights of 4 bits).
        rank, alpha, dropout: the adapter's; its output counts alpha / rank times.
        targets: the layers that get an adapter: "all-linear", or the last parts of their names.
        freeze_vision: leave vision tower and projector as they are. Their output is then computed once for each
            image, not once for each step.
        learning_rate: the peak of the schedule.
        schedule: `cosine` to zero after the warm-up, or `constant`.
        warmup: share of the steps in which the rate rises linearly.
        epochs: times that every record is seen, where `steps` does not say how long the run is.
        steps: optimiser steps, over as many epochs as they take; None to go by epochs.
        weight_decay, betas: AdamW's; norms and biases do not decay.
        row_tokens: tokens of a row at most; a row holds as many examples as fit (the batch of one forward pass).
        accumulation: rows of one device in an optimiser step.
        dtype: of frozen weights and of what is computed; weights that are trained are float32 always.
        gradient_checkpointing: recompute activations in the backward pass rather than keep them.
        clip: norm that a step's gradients are scaled down to; 0 for none.
        loss_chunk: answer tokens whose logits are in memory at once.
        replay: share of examples that are drawn from records of earlier rounds.
        lambda_forward, lambda_inverse: weight of the tasks that ask what will be seen (A4, D1, D2, D4), and of those
            that ask what the camera did (A1, A2, A3, D3).
        shard: where there are several processes, whether they share out the weights (FSDP2) or each hold all (DDP).
            GRPO after it has each hold all.
        seed: of order, replay, dropout and adapters.
        snapshot_every: steps between snapshots.
    """

    model: str
    method: Method = "lora"
    rank: int = 256
    alpha: int = 512
    dropout: float = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = ALL_LINEAR
    freeze_vision: bool = True
    learning_rate: float = 1e-5
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    epochs: int = 1
    steps: int | None = None
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    row_tokens: int = 8192
    accumulation: int = 2
    dtype: Dtype = "bf16"
    gradient_checkpointing: bool = True
    clip: float = 1.0
    loss_chunk: int = 1024
    replay: float = 0.0
    lambda_forward: float = 1.0
    lambda_inverse: float = 1.0
    shard: bool = True
    seed: int = 0
    snapshot_every: int = 200

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("method", self.method, get_args(Method)),
            ("dtype", self.dtype, get_args(Dtype)),
            ("schedule", self.schedule, ("cosine", "constant")),
        ):
            if value not in allowed:
                raise InvalidInputError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        for name, holds, must in self._rules():
            if not holds:
                raise InvalidInputError(f"{name} must be {must}, not {getattr(self, name)!r}")
        if self.targets != ALL_LINEAR and (isinstance(self.targets, str) or not self.targets):
            raise InvalidInputError(f'targets must be "{ALL_LINEAR}" or a list of names, not {self.targets!r}')
        if self.method == "qlora" and self.dtype != "bf16":
            raise InvalidInputError('qlora computes in bf16: set dtype to "bf16"')

    def _rules(self) -> list[tuple[str, bool, str]]:
        """Name, whether it holds, and what the value must be."""
        at_least_one = ("rank", "alpha", "epochs", "row_tokens", "accumulation", "loss_chunk", "snapshot_every")
        not_negative = ("weight_decay", "clip", "lambda_forward", "lambda_inverse")
        return [
            ("model", bool(self.model), "a folder or a hub name"),
            *((name, getattr(self, name) >= 1, "at least 1") for name in at_least_one),
            *((name, getattr(self, name) >= 0, "at least 0") for name in not_negative),
            ("steps", self.steps is None or self.steps >= 1, "at least 1, or left out"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("warmup", 0 <= self.warmup < 1, "from 0 to below 1"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
            ("replay", 0 <= self.replay < 1, "from 0 to below 1"),
            ("betas", len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to 1"),
        ]

    @property
    def is_adapter(self) -> bool:
        """Whether the run trains an adapter rather than the model's own weights."""
        return self.method != "full"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)
