"""Collections of photographs, that rounds are made on: `photos/collections/<digest>.json` in the store.

Each names its scenes with their split and photographs (`world2vlm.photos`). The digest is its content's, so a plan that
names it says all.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError
from world2vlm.files import canonical_json
from world2vlm.splits import SPLITS, Split
from world2vlm.store import Store

COLLECTIONS = "photos/collections"
_FILE = re.compile(r"[0-9a-f]{64}\.(jpg|png|webp)")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PhotoScene:
    """A place: its name, its split, and its photographs (names of files in `photos/`, sorted)."""

    name: str
    split: Split
    photos: tuple[str, ...]


@dataclass(frozen=True)
class Collection:
    """What a round on photographs is made on.

    Attributes:
        scenes: in order of their names.
        fov_deg: horizontal field of view of all photographs; None = what each one's EXIF says.
    """

    scenes: tuple[PhotoScene, ...]
    fov_deg: float | None = None

    @cached_property
    def digest(self) -> str:
        """The sha256, in hex, of all it says."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        scenes = {scene.name: {"split": scene.split, "photos": list(scene.photos)} for scene in self.scenes}
        return {"fov_deg": self.fov_deg, "scenes": scenes}

    @classmethod
    def from_json(cls, payload: Any) -> Self:
        """Read a JSON object.

        Raises:
            KeyError, TypeError, ValueError: it is none of a collection.
        """
        scenes = tuple(
            PhotoScene(name, _split(scene["split"]), tuple(map(check_file, scene["photos"])))
            for name, scene in sorted(payload["scenes"].items())
        )
        return cls(scenes, payload["fov_deg"])


def check_digest(digest: str) -> str:
    """A collection's digest as it is.

    Raises:
        InvalidInputError: it is none.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise InvalidInputError(f"not the digest of a collection of photographs: {digest!r}")
    return digest


def write_collection(store: Store, collection: Collection) -> None:
    """Write a collection under its digest; nothing changes where it is there."""
    store.create_json(_path(collection.digest), collection.to_json())


def load_collection(store: Store, digest: str) -> Collection:
    """Load a collection.

    Raises:
        NotFoundError: the store has none of this digest.
        DataCorruptedError: it is broken, or another's.
    """
    path = _path(check_digest(digest))
    try:
        collection = Collection.from_json(store.read_json(path))
    except NotFoundError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataCorruptedError(f"{path}: not a collection of photographs: {error}") from error
    if collection.digest != digest:
        raise DataCorruptedError(f"{path}: its content does not have this digest")
    return collection


def list_collections(store: Store) -> Iterator[Collection]:
    """All collections of a store, in order of their digests."""
    names = [name.removesuffix(".json") for name in store.children(COLLECTIONS)]
    return (load_collection(store, name) for name in names if _DIGEST.fullmatch(name))


def check_file(name: str) -> str:
    """A photograph's name in `photos/` as it is.

    Raises:
        InvalidInputError: it is none.
    """
    if _FILE.fullmatch(name) is None:
        raise InvalidInputError(f"not a photograph's name: {name!r}")
    return name


def _path(digest: str) -> str:
    return f"{COLLECTIONS}/{digest}.json"


def _split(name: str) -> Split:
    for split in SPLITS:
        if name == split:
            return split
    raise InvalidInputError(f"unknown split {name!r}")
