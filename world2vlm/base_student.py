"""Where the base student lies: the checkpoint that ships with the package, and that every first round starts from."""

from pathlib import Path

from world2vlm.checkpoint_manifest import Manifest
from world2vlm.checkpoints import Registry
from world2vlm.errors import PreconditionError

BASE_STUDENT = Path(__file__).parent / "vlm" / "base_student"
"""Folder of `base-student`: safetensors, config, processor, and `card.json` with its recipe, digest and scores."""


def publish_base(registry: Registry, folder: Path = BASE_STUDENT) -> Manifest:
    """Publish the base student, unless it was: the first version of every registry.

    Raises:
        PreconditionError: there is none in `folder`.
    """
    if not folder.is_dir():
        raise PreconditionError("nothing was ever promoted, and there is no base student to begin with")
    return registry.publish(
        folder, parent=None, kind="full", dataset_digest="", recipe="base-student", metrics={}, key="base-student"
    )
