"""Inpainting: what a photograph does not show, guessed by diffusion. Importing this imports no torch."""

from teacher_service.inpainting.base import Inpainter, paint_holes
from teacher_service.inpainting.tiny import TinyInpainter

__all__ = ["Inpainter", "TinyInpainter", "make_inpainter", "paint_holes"]


def make_inpainter(
    model: str, prompt: str = "", side: int = 0, steps: int = 0, device: str = "auto"
) -> Inpainter | None:
    """Return the inpainter that the options name.

    Args:
        model: `tiny` for the one in this package, `none`, or a folder or hub name of a diffusers pipeline.
        prompt: what a pipeline is told to paint.
        side: pixels of the longer side that a pipeline works at; 0 = 512. The tiny one works at 128 at most.
        steps: of a pipeline; 0 = 20. The tiny one always takes 4.
        device: torch device of a pipeline; `auto` is a GPU where there is one. The tiny one always runs on the CPU.

    Raises:
        NotFoundError: no such model.
        InvalidInputError: not an inpainting pipeline of diffusers, or weights that are not safetensors.
    """
    if model == "none":
        return None
    if model == "tiny":
        return TinyInpainter()
    from teacher_service.inpainting.pipeline import PipelineInpainter

    return PipelineInpainter(model, prompt, side or 512, steps or 20, device)
