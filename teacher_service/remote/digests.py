"""What stands for a world whose weights this process never loads."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from teacher_service import workers
from teacher_service.worlds.base import source_digest
from world2vlm.files import canonical_json, sha256_file


def world_digest(options: Mapping[str, Any], weights: Sequence[str], folder: Path) -> str:
    """The sha256 over a world's weights, its options and the source of its worker.

    Args:
        options: what its worker is told.
        weights: files, folders, or names on a hub. Of files on this machine the content counts, in folders that of
            the safetensors; of names only the name does, as what is behind one is not here.
        folder: the worker's.

    Returns:
        The digest in hex.
    """
    source = source_digest([*folder.glob("*.py"), *Path(workers.__path__[0]).glob("*.py")])
    content = [source, dict(options), *(_content(name) for name in weights)]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _content(name: str) -> str | dict[str, str]:
    path = Path(name)
    if name and path.is_file():
        return sha256_file(path)
    if name and path.is_dir():
        return {str(file.relative_to(path)): sha256_file(file) for file in sorted(path.rglob("*.safetensors"))}
    return name
