"""The checkpoint registry: `checkpoints/<name>/` in the store.

`<version>/` holds a checkpoint's files and, written last, `manifest.json`. Beside the versions lie `claims/` (a version
number belongs to whoever creates its claim, and is never given out again), `keys/` (what was published under which
key) and `serving.json`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from world2vlm.checkpoint_manifest import Kind, Manifest, check_kind, manifest_digest
from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError, PreconditionError
from world2vlm.files import sha256_file
from world2vlm.store import Store


@dataclass(frozen=True)
class Promotion:
    """One entry of the history of what serves.

    Attributes:
        version: what served from then on.
        at: UTC, ISO 8601.
        reason: why.
        rejected: the version that was taken off because it failed while it served; None for every other change.
    """

    version: int
    at: str
    reason: str
    rejected: int | None = None


__all__ = ["Kind", "Manifest", "Promotion", "Registry"]

# Inside a class that has a method `list`, the name no longer means the type.
Manifests = list[Manifest]
Promotions = list[Promotion]
Versions = list[int]


class Registry:
    """The checkpoints of one name."""

    def __init__(self, store: Store, name: str) -> None:
        """Open the registry of `name`; nothing is created before the first publication."""
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) is None:
            raise InvalidInputError(f"bad name of a checkpoint: {name!r}")
        self._store = store
        self._name = name
        self._root = f"checkpoints/{name}"

    def publish(
        self,
        folder: Path,
        *,
        parent: int | None,
        kind: Kind,
        dataset_digest: str,
        recipe: str,
        metrics: Mapping[str, float],
        key: str,
    ) -> Manifest:
        """Publish a folder's files as the next version, once per key.

        Safe to be killed at any moment and to be run twice, even at once: the creation of the key's record is the one
        moment at which a checkpoint becomes published, and its manifest can be written from that record by anybody.

        Args:
            folder: the checkpoint's files; names that begin with a dot are left out.
            parent: version that it was trained from; must exist, and must be a full one where this is a LoRA adapter.
            kind: `full`, or `lora`: a PEFT adapter's two files, for the parent's weights.
            dataset_digest: digest of the dataset; empty where there is none.
            recipe: how it was trained.
            metrics: finite figures.
            key: what it is the result of, for example a round's id; a second publication returns the first's manifest.

        Raises:
            InvalidInputError: no files, or one is called `manifest.json`, or they are not of the kind, or a LoRA
                adapter's parent is none or no full checkpoint, or a metric is not finite.
            NotFoundError: the parent does not exist.
        """
        record = f"{self._root}/keys/{hashlib.sha256(key.encode()).hexdigest()}.json"
        if self._store.exists(record):
            return self._commit(record)
        names = _file_names(folder)
        check_kind(kind, names)
        parent_digest = self._digest_of_parent(parent, kind)
        version = self._claim(key)
        payload = {
            "name": self._name,
            "version": version,
            "parent": parent,
            "kind": kind,
            "files": {name: self._store.upload(folder / name, self._path(version, name)) for name in names},
            "dataset_digest": dataset_digest,
            "recipe": recipe,
            "metrics": dict(metrics),
            "created": _now(),
            "parent_digest": parent_digest,
        }
        if not self._store.create_json(record, {**payload, "digest": manifest_digest(payload)}):
            # Somebody else published under this key meanwhile.
            self._store.delete(self._path(version))
        return self._commit(record)

    def versions(self) -> Versions:
        """All published versions, ascending; what has no manifest is none."""
        numbers = (int(name) for name in self._store.children(self._root) if name.isdecimal())
        return sorted(number for number in numbers if self._store.exists(self._path(number, "manifest.json")))

    def list(self) -> Manifests:
        """All published checkpoints, by ascending version.

        Raises:
            DataCorruptedError: a manifest is broken.
        """
        return [self.get(version) for version in self.versions()]

    def get(self, version: int) -> Manifest:
        """The manifest of a version.

        Raises:
            NotFoundError: no such version, or one that was never published whole.
            DataCorruptedError: the manifest is broken.
        """
        path = self._path(version, "manifest.json")
        try:
            return Manifest.from_json(self._store.read_json(path))
        except NotFoundError:
            raise NotFoundError(f"checkpoint {self._name} has no version {version}") from None
        except DataCorruptedError as error:
            raise DataCorruptedError(f"{path}: {error}") from error

    def verify(self, version: int) -> Manifest:
        """Compare every byte of a version with its manifest.

        Raises:
            NotFoundError: no such version.
            DataCorruptedError: a file is missing, differs, or is not named by the manifest; the text names it.
        """
        manifest = self.get(version)
        found = set(self._store.list(self._path(version))) - {self._path(version, "manifest.json")}
        expected = {self._path(version, name): sha256 for name, sha256 in manifest.files.items()}
        for path in sorted(found | set(expected)):
            if path not in found:
                raise DataCorruptedError(f"{path}: missing")
            # A library that loads the folder would read this file too.
            if path not in expected:
                raise DataCorruptedError(f"{path}: not named by the manifest")
            if sha256_file(self._store.local(path)) != expected[path]:
                raise DataCorruptedError(f"{path}: differs from the manifest")
        return manifest

    def fetch(self, version: int) -> Path:
        """Verify a version and return a local folder with its files.

        Raises:
            NotFoundError: no such version.
            DataCorruptedError: as `verify`.
        """
        self.verify(version)
        return self._store.local(self._path(version))

    def read(self, version: int, name: str) -> bytes:
        """One file of a version as its manifest has it; no other file is fetched.

        Raises:
            NotFoundError: no such version, or it has no such file.
            DataCorruptedError: the file is missing, or differs from the manifest.
        """
        sha256, path = self.get(version).files.get(name), self._path(version, name)
        if sha256 is None:
            raise NotFoundError(f"{path}: not named by the manifest")
        try:
            data = self._store.read_bytes(path)
        except NotFoundError as error:
            raise DataCorruptedError(f"{path}: missing") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DataCorruptedError(f"{path}: differs from the manifest")
        return data

    def fetch_base(self, version: int) -> Path | None:
        """Verify what a LoRA version's adapter belongs on, and return a local folder with it; None for a full version.

        Raises:
            NotFoundError, PreconditionError: see `base_of`.
            DataCorruptedError: a file of the parent differs from its manifest.
        """
        base = self.base_of(version)
        return None if base is None else self.fetch(base)

    def base_of(self, version: int) -> int | None:
        """The version that a LoRA version's adapter belongs on; None for a full version.

        Raises:
            NotFoundError: no such version.
            PreconditionError: its parent is not the checkpoint that it was trained on.
        """
        manifest = self.get(version)
        if manifest.kind == "full":
            return None
        try:
            parent = self.get(manifest.parent or 0)
        except NotFoundError as error:
            raise PreconditionError(f"version {version} is an adapter, and its parent is missing: {error}") from error
        if parent.kind != "full" or parent.digest != manifest.parent_digest:
            raise PreconditionError(
                f"version {version} is an adapter for another checkpoint than the version {parent.version} here"
            )
        return parent.version

    def serving(self) -> int | None:
        """The version that serves; None where none was ever promoted."""
        history = self.history()
        return history[-1].version if history else None

    def set_serving(self, version: int, reason: str, rejected: int | None = None) -> None:
        """Record that a version serves from now on; nothing changes where it serves already.

        Args:
            version: what serves.
            reason: why.
            rejected: the version that it takes over from, where that one failed while it served.

        Raises:
            NotFoundError: no such version.
        """
        self.get(version)
        history = self.history()
        if history and history[-1].version == version:
            return
        history.append(Promotion(version, _now(), reason, rejected))
        payload = {"version": version, "history": [asdict(promotion) for promotion in history]}
        self._store.write_json(f"{self._root}/serving.json", payload)

    def history(self) -> Promotions:
        """What has served, oldest first.

        Raises:
            DataCorruptedError: `serving.json` is broken.
        """
        path = f"{self._root}/serving.json"
        try:
            return [Promotion(**promotion) for promotion in self._store.read_json(path)["history"]]
        except NotFoundError:
            return []
        except (KeyError, TypeError) as error:
            raise DataCorruptedError(f"{path}: not a history of what serves") from error

    def rejected(self) -> set[int]:
        """Versions that failed while they served, and that nobody has promoted again since."""
        versions: set[int] = set()
        for promotion in self.history():
            versions.discard(promotion.version)
            if promotion.rejected is not None:
                versions.add(promotion.rejected)
        return versions

    def previous(self) -> int | None:
        """The version to roll back to; None where there is none.

        Going back takes the later version off, so rolling back twice goes back two versions, not forth again. A
        rejected version is none to go back to.
        """
        stack: Versions = []
        for promotion in self.history():
            stack = [version for version in stack if version != promotion.rejected]
            if stack[-1:] == [promotion.version]:
                continue
            if stack[-2:-1] == [promotion.version]:
                stack.pop()
            else:
                stack.append(promotion.version)
        return stack[-2] if len(stack) > 1 else None

    def _digest_of_parent(self, parent: int | None, kind: Kind) -> str:
        if parent is None:
            if kind == "lora":
                raise InvalidInputError("a LoRA adapter needs the parent that it was trained on")
            return ""
        manifest = self.get(parent)
        if kind == "lora" and manifest.kind != "full":
            raise InvalidInputError(f"a LoRA adapter's parent must be a full checkpoint; version {parent} is none")
        return manifest.digest

    def _path(self, version: int, name: str = "") -> str:
        return f"{self._root}/{version}/{name}".rstrip("/")

    def _claim(self, key: str) -> int:
        taken = (*self._store.children(f"{self._root}/claims"), *self._store.children(self._root))
        numbers = (int(name) for name in (entry.removesuffix(".json") for entry in taken) if name.isdecimal())
        version = max(numbers, default=0) + 1
        while not self._store.create_json(f"{self._root}/claims/{version}.json", {"key": key, "at": _now()}):
            version += 1
        return version

    def _commit(self, record: str) -> Manifest:
        payload = self._store.read_json(record)
        manifest = Manifest.from_json(payload)
        # Whoever published this may have died right before this line.
        self._store.create_json(self._path(manifest.version, "manifest.json"), payload)
        return manifest


def _file_names(folder: Path) -> list[str]:
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    names = [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]
    if not names:
        raise InvalidInputError(f"{folder}: no files to publish")
    if "manifest.json" in names:
        raise InvalidInputError(f"{folder}: a checkpoint must not hold a manifest.json of its own")
    return names


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
