"""A user's folder of photographs into the store, as a collection that a round's plan can name."""

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from world2vlm.collection import Collection, PhotoScene, list_collections, write_collection
from world2vlm.errors import InvalidInputError
from world2vlm.lenses import check_fov, says_lens, warn_of_lens
from world2vlm.photos import MAX_PHOTO_BYTES, store_photo
from world2vlm.splits import Split, split_scenes
from world2vlm.store import Store

_NAMED = 5
_VERBS: dict[Split, str] = {"train": "train on", "calibration": "calibrate on", "test": "test on"}
# Where a scene's photographs were in several splits before, its split is the one that nobody may learn from.
_STRICTEST: tuple[Split, ...] = ("test", "calibration", "train")


@dataclass(frozen=True)
class Gathered:
    """What came of a folder: its collection, and a sentence on each thing that its owner should know."""

    collection: Collection
    remarks: tuple[str, ...]

    @property
    def summary(self) -> tuple[str, ...]:
        """Lines to show: the remarks, and what is in the collection."""
        photos = sum(len(scene.photos) for scene in self.collection.scenes)
        counts = Counter(scene.split for scene in self.collection.scenes)
        parts = ", ".join(f"{counts[split]} to {verb}" for split, verb in _VERBS.items())
        return *self.remarks, f"{photos} photographs of {len(self.collection.scenes)} scenes: {parts}"


@dataclass
class _Found:
    scenes: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    without_lens: int = 0


def gather(store: Store, folder: Path, fov_deg: float | None = None) -> Gathered:
    """Put the photographs of a folder into the store, and share out its scenes (`world2vlm.splits`).

    A photograph's scene is the first sub-folder on the way to it, or itself where it lies in none. No scene and no
    photograph ever changes its split in a store, whatever folders it turns up in later.

    Args:
        store: where they go.
        folder: the user's.
        fov_deg: horizontal field of view of all of them; None = what each one's EXIF says, else 54 degrees.

    Raises:
        InvalidInputError: there is no such folder, nothing in it can be read as a photograph, or it has too few scenes.
    """
    if fov_deg is not None:
        check_fov(fov_deg)
    found = _read(store, folder, fov_deg is None)
    unreadable = f"{len(found.unreadable)} file(s) in {folder} are no photographs that can be used"
    if not found.scenes:
        if not found.unreadable:
            raise InvalidInputError(f"there are no photographs in {folder}: put PNG, JPEG or WebP files there")
        raise InvalidInputError(f"{unreadable}, and there are no others: {_some(found.unreadable)}")
    scenes, moved = _share_out(found, _earlier(store))
    # A float in any case: 70 and 70.0 are one lens, and must be one digest.
    collection = Collection(scenes, None if fov_deg is None else float(fov_deg))
    write_collection(store, collection)
    remarks = [f"left out: {unreadable}: {_some(found.unreadable)}"] if found.unreadable else []
    if found.doubles:
        remarks.append(f"left out: {len(found.doubles)} photograph(s) that are there twice: {_some(found.doubles)}")
    if moved:
        remarks.append(f"left out: {len(moved)} photograph(s) of another split in earlier rounds: {_some(moved)}")
    if found.without_lens:
        remarks.append(warn_of_lens(found.without_lens))
    return Gathered(collection, tuple(remarks))


def _read(store: Store, folder: Path, ask_lens: bool) -> _Found:
    found = _Found()
    for path in _files(folder):
        shown = path.relative_to(folder).as_posix()
        try:
            if not shown.isprintable():
                raise InvalidInputError("its name has characters that cannot be shown; rename it")
            data = _bytes(path)
            photo = store_photo(store, data)
        except InvalidInputError as error:
            found.unreadable.append(f"{ascii(shown) if not shown.isprintable() else shown} ({error})")
            continue
        if photo in found.names:
            found.doubles.append(f"{shown} (as {found.names[photo]})")
            continue
        found.names[photo] = shown
        found.scenes.setdefault(shown.split("/")[0], []).append(photo)
        found.without_lens += ask_lens and not says_lens(Image.open(io.BytesIO(data)))
    return found


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise InvalidInputError(f"there is no folder {folder}")
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _bytes(path: Path) -> bytes:
    try:
        # Asked first: a film beside the photographs must not be read into memory.
        if (size := path.stat().st_size) > MAX_PHOTO_BYTES:
            raise InvalidInputError(f"it has {size} bytes; at most {MAX_PHOTO_BYTES} are allowed")
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot be read: {error.strerror}") from error


def _earlier(store: Store) -> dict[str, Split]:
    """The splits that scenes, by name, and photographs, by file, were in before."""
    known: dict[str, Split] = {}
    for collection in list_collections(store):
        for scene in collection.scenes:
            for key in (f"scene {scene.name}", *scene.photos):
                known[key] = min(known.get(key, scene.split), scene.split, key=_STRICTEST.index)
    return known


def _share_out(found: _Found, earlier: Mapping[str, Split]) -> tuple[tuple[PhotoScene, ...], list[str]]:
    """The scenes with their splits, and the photographs that were in other splits before and are left out."""
    known: dict[str, Split] = {}
    for name, photos in found.scenes.items():
        by_name = earlier.get(f"scene {name}")
        before = [by_name] if by_name else [earlier[photo] for photo in photos if photo in earlier]
        if before:
            known[name] = min(before, key=_STRICTEST.index)
    kept = {
        name: [photo for photo in photos if name not in known or earlier.get(photo, known[name]) == known[name]]
        for name, photos in found.scenes.items()
    }
    splits = split_scenes([name for name, photos in kept.items() if photos], known)
    moved = sorted(
        found.names[photo] for name, photos in found.scenes.items() for photo in photos if photo not in kept[name]
    )
    return tuple(PhotoScene(name, split, tuple(sorted(kept[name]))) for name, split in splits.items()), moved


def _some(names: Iterable[str]) -> str:
    """The first few, and how many more."""
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{'; '.join(names[:_NAMED])}{more}"
