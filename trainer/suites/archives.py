"""Archives of pictures and videos, unpacked once: whole or not at all, and never outside of their folder."""

import fcntl
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from world2vlm.errors import InvalidInputError
from world2vlm.files import atomic_writer, write_atomically
from world2vlm.telemetry import progress

_KINDS = (".jsonl", ".jpg", ".jpeg", ".png", ".webp", ".mp4")
"""What readers of suites read; anything else stays in the archive."""
_MOST_GROWTH = 10
"""So many times its size an archive may grow: pictures and videos are compressed already and hardly do."""
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
_REFUSED = "refused, nothing of it was unpacked"


def unpack(archives: Sequence[Path], beside: Sequence[Path], folder: Path) -> None:
    """Unpack archives into one new folder, and copy the files in that belong to them.

    The folder appears in one rename, so a kill leaves none. Where it is there already nothing is done.

    Args:
        archives: zip files.
        beside: files whose copies are to lie at the folder's top.
        folder: the folder.

    Raises:
        InvalidInputError: an archive is broken, or holds a link, a path that leaves the folder, or far more than its
            own size; the text names it.
        OSError: the disk is full, or the folder cannot be written.
    """
    with _alone(folder):
        if folder.is_dir():
            return
        # Whoever holds the lock is alone, so what lies there is what a kill has left.
        staging = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            for archive in archives:
                _unpack(archive, staging)
            for path in beside:
                write_atomically(staging / path.name, path.read_bytes())
            os.rename(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time unpack a folder; the lock goes with its process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _unpack(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            members = _members(archive, file)
            with progress(f"unpacking {archive.name}", len(members)) as advance:
                for member in members:
                    with file.open(member) as reader, atomic_writer(target / member.filename) as writer:
                        shutil.copyfileobj(reader, writer)
                    advance(1)
    except _BROKEN as error:
        raise InvalidInputError(
            f"{archive.name}: cannot be unpacked: {error}; delete {archive.resolve()} and try again"
        ) from error


def _members(archive: Path, file: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive that readers read, once all that it holds was checked."""
    for info in file.infolist():
        path = PurePosixPath(info.filename)
        if path.is_absolute() or ".." in path.parts:
            raise InvalidInputError(f"{archive.name}: {info.filename!r} leaves the folder; {_REFUSED}")
        # Archives that were not made on Unix carry no mode.
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InvalidInputError(f"{archive.name}: {info.filename!r} is a link or a device; {_REFUSED}")
    members = [info for info in file.infolist() if not info.is_dir() and info.filename.lower().endswith(_KINDS)]
    # No more than what is declared here is read of a member later.
    total, size = sum(info.file_size for info in members), archive.stat().st_size
    if total > _MOST_GROWTH * size:
        raise InvalidInputError(f"{archive.name}: its {size:,} bytes would grow to {total:,}; {_REFUSED}")
    return members
