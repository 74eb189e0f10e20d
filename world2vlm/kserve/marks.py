"""Errors as the text that Triton carries: it has no trailers of our own."""

from world2vlm.errors import World2VLMError


def mark(error: World2VLMError) -> str:
    """An error of the catalogue with its code in front."""
    return f"<{error.code}> {error}"
