"""Datasets: immutable splits of task records, named by the digest of what they hold.

`datasets/<digest>/` holds one `<split>.jsonl` a split and, written last, `manifest.json`. Image paths in the records
are relative to the store's `bundles/`.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError
from world2vlm.records import TaskRecord, parse_records, to_line
from world2vlm.store import Store

_SPLIT = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    Attributes:
        digest: sha256, in hex, over the splits' names and sorted lines; its name.
        splits: the records by split (`train`, `test`), in the order of their lines.
        info: how it was made (round, rejected by gate); any JSON object, no part of the digest.
    """

    digest: str
    splits: Mapping[str, tuple[TaskRecord, ...]]
    info: Mapping[str, Any]

    @property
    def by_task(self) -> dict[str, int]:
        """How many records each task has, over all splits."""
        return dict(sorted(Counter(record.task_type for split in self.splits.values() for record in split).items()))


def publish_dataset(store: Store, splits: Mapping[str, Sequence[TaskRecord]], info: Mapping[str, Any]) -> Dataset:
    """Publish a dataset; publishing the same records again changes nothing, in whatever order they come.

    Returns:
        The dataset as it stands in the store; `info` is the first publisher's.

    Raises:
        InvalidInputError: no records, a bad split name, or an image path that leaves `bundles/`.
    """
    lines = {name: _lines(name, records) for name, records in sorted(splits.items())}
    if not any(lines.values()):
        raise InvalidInputError("a dataset needs records")
    files = {name: "".join(f"{line}\n" for line in split).encode() for name, split in lines.items()}
    digest = _digest(files)
    if not store.exists(_manifest_path(digest)):
        for name, data in files.items():
            store.write_bytes(_split_path(digest, name), data)
        manifest = {
            "digest": digest,
            "splits": {
                name: {"sha256": hashlib.sha256(data).hexdigest(), "records": len(lines[name])}
                for name, data in files.items()
            },
            "info": dict(info),
        }
        store.create_json(_manifest_path(digest), manifest)
    return load_dataset(store, digest)


def load_dataset(store: Store, digest: str) -> Dataset:
    """Load a dataset and verify every byte of its records.

    Raises:
        NotFoundError: no such dataset, or one that was never published whole.
        DataCorruptedError: a file is missing or differs from the manifest; the text names it.
    """
    manifest = store.read_json(_manifest_path(digest))
    try:
        expected = {name: split["sha256"] for name, split in manifest["splits"].items()}
        info = dict(manifest["info"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataCorruptedError(f"{_manifest_path(digest)}: not a dataset's manifest") from error
    files = {name: _read_split(store, digest, name, sha256) for name, sha256 in sorted(expected.items())}
    if _digest(files) != digest:
        raise DataCorruptedError(f"{_manifest_path(digest)}: its splits do not have this digest")
    return Dataset(digest, {name: tuple(parse_records(data, f"{name}.jsonl")) for name, data in files.items()}, info)


def list_datasets(store: Store) -> list[str]:
    """Digests of all datasets that were published whole."""
    return [digest for digest in store.children("datasets") if store.exists(_manifest_path(digest))]


def pick_dataset(store: Store, digest: str) -> Dataset:
    """The dataset with a digest; the store's only one where none is given.

    Raises:
        NotFoundError: there is no such dataset, or not one alone.
    """
    known = list_datasets(store)
    if not digest and len(known) != 1:
        raise NotFoundError(f"name a dataset, the store has {len(known)}: {', '.join(known)}".rstrip(": "))
    return load_dataset(store, digest or known[0])


def _lines(split: str, records: Sequence[TaskRecord]) -> list[str]:
    if _SPLIT.fullmatch(split) is None:
        raise InvalidInputError(f"bad name of a split: {split!r}")
    for record in records:
        for image in record.images:
            path = PurePosixPath(image)
            if path.is_absolute() or ".." in path.parts:
                raise InvalidInputError(f"image path {image!r} must be relative and stay in the store's bundles")
    return sorted(map(to_line, records))


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in files.items():
        # The lengths keep the names and the lines of neighbouring splits apart.
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def _read_split(store: Store, digest: str, name: str, sha256: str) -> bytes:
    path = _split_path(digest, name)
    try:
        data = store.read_bytes(path)
    except NotFoundError as error:
        raise DataCorruptedError(f"{path}: missing") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataCorruptedError(f"{path}: differs from its manifest")
    return data


def _split_path(digest: str, name: str) -> str:
    return f"datasets/{digest}/{name}.jsonl"


def _manifest_path(digest: str) -> str:
    return f"datasets/{digest}/manifest.json"
