"""What to do where memory runs out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.finetune.config import FinetuneConfig
from world2vlm.errors import PreconditionError


@contextmanager
def memory_explained(config: FinetuneConfig, *, accumulates: bool = True) -> Iterator[None]:
    """Say what to lower where memory ran out.

    Args:
        config: the run.
        accumulates: whether a step is as many rows as the run says, on as many devices; otherwise each device holds the
            model, and takes as many rows as it needs.

    Raises:
        PreconditionError: it did.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(error):
            raise
        more = "; raise accumulation by as much" if accumulates else ""
        lower = [f"row_tokens (now {config.row_tokens}{more})"]
        lower += [] if config.gradient_checkpointing else ["switch gradient_checkpointing on"]
        lower += ["use method lora or qlora"] if config.method == "full" else [f"lower rank (now {config.rank})"]
        devices = ", or use more devices" if accumulates else ""
        raise PreconditionError(f"out of memory; lower {', or '.join(lower)}{devices}") from error
