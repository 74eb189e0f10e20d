"""Checkpoints as whole ones: what loads weights need not know that some are published as LoRA adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from world2vlm.checkpoints import Registry
from world2vlm.errors import InvalidInputError, PreconditionError
from world2vlm.fullsize import beside, is_fullsize


@contextmanager
def whole(registry: Registry, version: int) -> Iterator[Path]:
    """Verify a published checkpoint, and yield a folder with all of its weights for the length of the block.

    Raises:
        NotFoundError: no such version, or its base is gone.
        DataCorruptedError: a file differs from its manifest.
        PreconditionError: an adapter does not fit its base.
    """
    with merged(registry.fetch(version), registry.fetch_base(version)) as folder:
        yield folder


@contextmanager
def merged(folder: Path, base: Path | None) -> Iterator[Path]:
    """A full checkpoint's own folder where there is no base, or else a temporary one, the adapter merged into the base.

    A full-size base and its adapter lie side by side there: what loads them merges them.

    Raises:
        PreconditionError: the adapter does not fit its base.
    """
    if base is None:
        yield folder
        return
    if is_fullsize(base):
        with beside(base, folder) as both:
            yield both
        return
    from world2vlm.vlm.lora import write_merged  # imports torch

    with TemporaryDirectory(prefix="world2vlm-merged-") as name:
        try:
            write_merged(base, folder, Path(name))
        except InvalidInputError as error:
            raise PreconditionError(f"the checkpoint is unfit: {error}") from error
        yield Path(name)
