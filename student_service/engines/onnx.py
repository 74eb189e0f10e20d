"""The engine on onnxruntime, in this process: for a small student on a CPU faster than the one on transformers."""

from pathlib import Path

from student_service.engines.base import DEFAULT_SIZES, LookedUp, Sizes
from student_service.engines.local import LocalEngine
from world2vlm.errors import PreconditionError, World2VLMError
from world2vlm.vlm.onnx_student import OnnxStudent


def load(
    folder: Path, cache: Path, device: str = "cpu", sizes: Sizes = DEFAULT_SIZES, looked_up: LookedUp | None = None
) -> LocalEngine:
    """Load a verified checkpoint folder.

    Args:
        folder: the checkpoint's files.
        cache: folder of exported graphs; an architecture that it does not hold is exported first, which takes a while.
        device: `cpu` or `cuda`.
        sizes: what the engine is made for.
        looked_up: see `LocalEngine`.

    Raises:
        PreconditionError: the checkpoint is unfit, or no graphs can be made or run here.
    """
    try:
        return LocalEngine(OnnxStudent.load(folder, cache, device), sizes, looked_up)
    except PreconditionError:
        raise
    except World2VLMError as error:
        raise PreconditionError(f"the checkpoint is unfit: {error}") from error
