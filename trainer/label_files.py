"""Label bundles that lie in folders, for a records file that lies in another."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainer.labelling import label
from world2vlm.bundles import find_bundles, read_bundle
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord


def label_folders(folders: Sequence[Path], base: Path, seed: int) -> list[TaskRecord]:
    """Label all bundles under some folders; image paths in the records are relative to `base`.

    Raises:
        InvalidInputError: there is no bundle.
        DataCorruptedError: a bundle is broken; the text names it.
    """
    found = [path for folder in folders for path in find_bundles(folder)]
    if not found:
        raise InvalidInputError(f"no bundles in {', '.join(map(str, folders))}")
    return [record for path in found for record in _label_one(path, base, seed)]


def _label_one(folder: Path, base: Path, seed: int) -> list[TaskRecord]:
    bundle = read_bundle(folder)
    here = Path(os.path.relpath(folder, base))

    def moved(image: str) -> str:
        return (here / Path(image).relative_to(bundle.relative_path)).as_posix()

    return [replace(record, images=tuple(map(moved, record.images))) for record in label(bundle, seed)]
