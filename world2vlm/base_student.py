"""Where the base student lies: the checkpoint that ships with the package, and that every first round starts from."""

from pathlib import Path

BASE_STUDENT = Path(__file__).parent / "vlm" / "base_student"
"""Folder of `base-student`: safetensors, config, processor, and `card.json` with its recipe, digest and scores."""
