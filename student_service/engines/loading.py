"""Which engine loads a checkpoint, by the settings, its size and the machine."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from student_service.engines.base import Engine, Loader, LookedUp, Sizes
from world2vlm.fullsize import is_fullsize
from world2vlm.settings import StudentSettings

_SMALL_BYTES = 64 << 20
_MOST_WORKERS = 4


@dataclass(frozen=True)
class InProcess:
    """Loads a checkpoint into the calling process.

    Args:
        engine: `local`, `onnx`, or `auto`: onnxruntime for a small student on a CPU, transformers else.
        device: a torch device, or `auto`: a GPU where there is one.
        threads: of one operation.
        onnx_cache: folder of exported graphs.
        sizes: what the engine is made for.
    """

    engine: Literal["auto", "local", "onnx"]
    device: str
    threads: int
    onnx_cache: Path
    sizes: Sizes

    def __call__(self, folder: Path, looked_up: LookedUp | None = None) -> Engine:
        """See `Loader`; lookups in the engine's caches are counted in `looked_up`."""
        from student_service.engines.local import LocalEngine

        self.enter_thread()
        device = _pick_device(self.device)
        if self.engine == "onnx" or (self.engine == "auto" and device == "cpu" and _is_small(folder)):
            from student_service.engines import onnx

            return onnx.load(folder, self.onnx_cache, device, self.sizes, looked_up)
        return LocalEngine.load(folder, device, self.sizes, looked_up)

    def enter_thread(self) -> None:
        """Prepare the calling thread: how many threads help it is every thread's own affair."""
        from student_service.engines.local import limit_threads

        limit_threads(self.threads)


@dataclass(frozen=True)
class InPool:
    """Loads a checkpoint into processes of its own: a small one into one a core, a large one into one.

    One of full size gets all cores for each of its operations, where the settings don't say how many threads.
    """

    settings: StudentSettings

    def __call__(self, folder: Path) -> Engine:
        """See `Loader`."""
        from student_service.engines.pool import PoolEngine
        from student_service.engines.worker import Assignment

        settings = self.settings
        cores = len(os.sched_getaffinity(0))
        workers = settings.workers or (min(_MOST_WORKERS, cores) if _is_small(folder) else 1)
        workers = min(workers, settings.max_batch)
        load = in_process(settings, -(-settings.max_batch // workers))
        if not settings.threads and is_fullsize(folder) and _weight_bytes(folder) > _SMALL_BYTES:
            load = replace(load, threads=max(1, cores // workers))
        return PoolEngine(
            Assignment(folder, load, settings.log_format, settings.log_level), workers, settings.max_batch
        )


def in_process(settings: StudentSettings, batch: int = 0) -> InProcess:
    """What loads checkpoints into the calling process under these settings, for so many queries at once."""
    assert settings.engine != "triton", "Triton's student is in no process of ours"
    sizes = Sizes(
        batch or settings.max_batch,
        settings.max_question_tokens,
        settings.max_new_tokens,
        settings.max_image_bytes,
        settings.max_image_pixels,
    )
    # One thread answers a tiny student faster than several.
    return InProcess(settings.engine, settings.device, settings.threads or 1, settings.onnx_cache, sizes)


def choose_engine(settings: StudentSettings) -> Loader:
    """What loads checkpoints for the service under these settings."""
    if settings.engine == "triton":
        from student_service.engines import triton

        return lambda folder: triton.load(folder, settings.triton_url, settings.max_batch)
    return InPool(settings)


def _is_small(folder: Path) -> bool:
    """Whether a core each for several copies, and onnxruntime, are the better way on a CPU.

    onnxruntime saves the overhead of many short operations, up to half of a small student's time. It also keeps its own
    copies of the weights for each of the two graphs, which only a small student should pay for. A model of another
    family than the built-in student's is never small.
    """
    return not is_fullsize(folder) and _weight_bytes(folder) <= _SMALL_BYTES


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _pick_device(device: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
