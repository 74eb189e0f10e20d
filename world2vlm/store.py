"""The store: a folder or an object-store prefix that holds bundles, datasets, checkpoints and rounds.

Every write is whole or absent, at whatever moment the writer dies: a folder gets a temporary file and a rename, an
object store replaces objects whole by itself. Names that begin with a dot are temporary and never listed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError
from world2vlm.files import atomic_writer, sha256_file, temporary_name, write_atomically

# Inside a class that has a method `list`, the name no longer means the type.
Names = list[str]


class Store:
    """Files by relative path (`datasets/ab12/manifest.json`) under one root.

    Attributes:
        root: the folder, or the URL where it is remote.
        is_local: whether the root is a folder on this machine.
    """

    def __init__(self, url: str | Path, cache: Path | None = None) -> None:
        """Open a store; nothing is created before the first write.

        Args:
            url: a folder, `file://...`, `memory://...`, or any object store that fsspec knows (`s3://...`).
            cache: where `local` puts downloads of a remote store; `~/.cache/world2vlm` by default.
        """
        filesystem, root = fsspec.core.url_to_fs(str(url))
        self.is_local = isinstance(filesystem, LocalFileSystem)
        self.root = root if self.is_local else filesystem.unstrip_protocol(root)
        self._files: _Files = (
            _LocalFiles(Path(root)) if self.is_local else _RemoteFiles(filesystem, root, cache or _default_cache())
        )

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file whole, replacing an older one."""
        self._files.write(_checked(path), data)

    def create_bytes(self, path: str, data: bytes) -> bool:
        """Write a file whole unless it exists; of several callers exactly one gets True."""
        return self._files.create(_checked(path), data)

    def read_bytes(self, path: str) -> bytes:
        """Read a file.

        Raises:
            NotFoundError: there is none.
        """
        try:
            return self._files.read(_checked(path))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFoundError(f"{path}: not in the store") from error

    def write_json(self, path: str, payload: Any) -> None:
        """Write a JSON file whole, replacing an older one.

        Raises:
            InvalidInputError: the payload is not JSON (NaN and infinities are not).
        """
        self.write_bytes(path, _to_json(path, payload))

    def create_json(self, path: str, payload: Any) -> bool:
        """Write a JSON file whole unless it exists; of several callers exactly one gets True.

        Raises:
            InvalidInputError: the payload is not JSON.
        """
        return self.create_bytes(path, _to_json(path, payload))

    def read_json(self, path: str) -> Any:
        """Read a JSON file.

        Raises:
            NotFoundError: there is none.
            DataCorruptedError: it is not JSON.
        """
        try:
            return json.loads(self.read_bytes(path))
        except ValueError as error:
            raise DataCorruptedError(f"{path}: not JSON: {error}") from error

    def upload(self, source: Path, path: str) -> str:
        """Copy a local file into the store, whole or not at all.

        Returns:
            The sha256, in hex, of the bytes that were copied.
        """
        return self._files.upload(source, _checked(path))

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder with something in it."""
        return any(not _is_hidden(found) for found in self._files.walk(_checked(path)))

    def list(self, prefix: str = "") -> Names:
        """All files at or under `prefix`, sorted, as paths that the other methods take; none where nothing is there."""
        return sorted(path for path in self._files.walk(_checked(prefix) if prefix else "") if not _is_hidden(path))

    def children(self, prefix: str = "") -> Names:
        """Names of the files and folders directly under `prefix`, sorted."""
        names = self._files.names(_checked(prefix) if prefix else "")
        return sorted(name for name in names if not _is_hidden(name))

    def delete(self, prefix: str) -> None:
        """Delete a file or a folder; nothing happens where there is none."""
        self._files.delete(_checked(prefix))

    def local(self, path: str) -> Path:
        """A local file or folder with this content: itself in a local store, else a download that is kept.

        A kept download is reused while size and modification time agree with the store's.

        Raises:
            NotFoundError: there is nothing at `path`.
        """
        if not self.exists(path):
            raise NotFoundError(f"{path}: not in the store")
        return self._files.local(path)


class _Files(Protocol):
    """What `Store` needs of a place; paths are relative and checked."""

    def write(self, path: str, data: bytes) -> None: ...
    def create(self, path: str, data: bytes) -> bool: ...
    def read(self, path: str) -> bytes: ...
    def upload(self, source: Path, path: str) -> str: ...
    def walk(self, prefix: str) -> Iterator[str]: ...
    def names(self, prefix: str) -> Names: ...
    def delete(self, prefix: str) -> None: ...
    def local(self, path: str) -> Path: ...


class _LocalFiles:
    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, path: str, data: bytes) -> None:
        write_atomically(self._root / path, data)

    def create(self, path: str, data: bytes) -> bool:
        target = self._root / path
        # Here, so that a file in the folder's place is not taken for the target.
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_writer(target, publish=os.link) as writer:
                writer.write(data)
        except FileExistsError:
            return False
        return True

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def upload(self, source: Path, path: str) -> str:
        digest = hashlib.sha256()
        with source.open("rb") as reader, atomic_writer(self._root / path) as writer:
            while chunk := reader.read(1 << 20):
                digest.update(chunk)
                writer.write(chunk)
        return digest.hexdigest()

    def walk(self, prefix: str) -> Iterator[str]:
        start = self._root / prefix
        if start.is_file():
            yield prefix
        # os.walk, unlike fsspec's find, does not trip over files that vanish meanwhile.
        for folder, _, names in os.walk(start):
            yield from ((Path(folder) / name).relative_to(self._root).as_posix() for name in names)

    def names(self, prefix: str) -> Names:
        try:
            return os.listdir(self._root / prefix)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self, prefix: str) -> None:
        target = self._root / prefix
        trash = target.with_name(temporary_name())
        try:
            # Gone for every reader at once, though removing a tree takes many steps.
            os.rename(target, trash)
        except (FileNotFoundError, NotADirectoryError):
            return
        if trash.is_dir():
            shutil.rmtree(trash)
        else:
            trash.unlink()

    def local(self, path: str) -> Path:
        return self._root / path


class _RemoteFiles:
    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str, cache: Path) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._cache = cache / hashlib.sha256(filesystem.unstrip_protocol(root).encode()).hexdigest()[:16]

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def write(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(self._full(path), data)

    def create(self, path: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self._full(path), data, mode="create")
        except FileExistsError:
            return False
        return True

    def read(self, path: str) -> bytes:
        data: bytes = self._fs.cat_file(self._full(path))
        return data

    def upload(self, source: Path, path: str) -> str:
        self._fs.put_file(str(source), self._full(path))
        return sha256_file(source)

    def walk(self, prefix: str) -> Iterator[str]:
        self._fs.invalidate_cache()
        return (found[len(self._root) + 1 :] for found in self._fs.find(self._full(prefix)))

    def names(self, prefix: str) -> Names:
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._full(prefix), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [PurePosixPath(path).name for path in found if path != self._full(prefix)]

    def delete(self, prefix: str) -> None:
        for path in list(self.walk(prefix)):
            self._fs.rm_file(self._full(path))

    def local(self, path: str) -> Path:
        for name in self.walk(path):
            self._download(name)
        return self._cache / path

    def _download(self, name: str) -> None:
        target = self._cache / name
        modified = self._fs.modified(self._full(name)).timestamp()
        if _looks_like(target, self._fs.size(self._full(name)), modified):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(temporary_name())
        self._fs.get_file(self._full(name), str(temporary))
        os.utime(temporary, (modified, modified))
        os.replace(temporary, target)


def _to_json(path: str, payload: Any) -> bytes:
    try:
        return json.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{path}: not JSON: {error}") from error


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "world2vlm"


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _checked(path: str) -> str:
    parts = path.split("/")
    if not all(parts) or _is_hidden(path) or "\\" in path or "\0" in path:
        raise InvalidInputError(f"not a path in the store: {path!r}")
    return path


def _looks_like(path: Path, size: int, modified: float) -> bool:
    return path.exists() and path.stat().st_size == size and path.stat().st_mtime == modified
