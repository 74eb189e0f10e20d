"""What a trajectory starts from: a procedural room, or a photograph. One imaginer imagines both."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from trainer.sampling import Candidate
from world2vlm.actions import Action
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats
from world2vlm.images import decode_image, encode_png
from world2vlm.lenses import intrinsics_of
from world2vlm.photos import MAX_PHOTO_BYTES, read_photo
from world2vlm.shards import PhotoAnchor, Shard
from world2vlm.store import Store

AnchorKind = Literal["scene", "photo"]


class Teacher(Protocol):
    """What imagining needs of the teacher service."""

    def world(self, name: str, kind: AnchorKind) -> Mapping[str, Any]:
        """What bundles say about the world they come from (`world2vlm.licences.stamp`).

        Raises:
            NotFoundError: there is no such world.
            InvalidInputError: it takes no anchors of this kind.
        """
        ...

    def imagine(
        self, world: str, scene: int, anchor: int, actions: Sequence[Action], size: int, keep_rejected: bool
    ) -> list[Frame]:
        """The key frames of a trajectory through a scene, `size` x `size` pixels, the anchor's view first.

        With `keep_rejected` the frames that a gate fails come, too, with its verdict among their `gates`.

        Raises:
            GateRejectedError: a gate rejected the trajectory, and there is nothing to see.
            UnavailableError: nobody answers.
            OverloadedError: too much is asked at once.
        """
        ...

    def imagine_photo(
        self, world: str, png: bytes, intrinsics: Floats, actions: Sequence[Action], keep_rejected: bool
    ) -> list[Frame]:
        """All frames of a trajectory from a photo, those between the key frames, too: gates prove views by them.

        Raises:
            GateRejectedError, UnavailableError, OverloadedError: as `imagine`.
        """
        ...


class Source(Protocol):
    """What trajectories start from."""

    @property
    def kind(self) -> AnchorKind:
        """What a world must take to imagine it."""
        ...

    @property
    def scene(self) -> str:
        """Its scene's name in bundles and records."""
        ...

    @property
    def key(self) -> int | str:
        """What its trajectories are drawn by, besides the round's seed."""
        ...

    @property
    def name_digits(self) -> int:
        """Digits of the digest in a bundle's name: more where many sources share a scene."""
        ...

    def made_of(self, candidate: Candidate) -> Mapping[str, Any]:
        """What frames are a function of, besides the world, the actions and the size."""
        ...

    def ask(
        self, teacher: Teacher, store: Store, world: str, candidate: Candidate, size: int, keep_rejected: bool
    ) -> list[Frame]:
        """Have a teacher imagine a trajectory from here."""
        ...


@dataclass(frozen=True)
class Room:
    """A procedural room by its seed; a candidate's anchor is one of its anchor poses."""

    seed: int
    kind: AnchorKind = "scene"
    name_digits: int = 8

    @property
    def scene(self) -> str:
        """Its name in bundles and records."""
        return f"room_{self.seed}"

    @property
    def key(self) -> int:
        """The seed."""
        return self.seed

    def made_of(self, candidate: Candidate) -> Mapping[str, Any]:
        """The seed and the anchor pose."""
        return {"scene_seed": self.seed, "anchor": candidate.anchor}

    def ask(
        self, teacher: Teacher, store: Store, world: str, candidate: Candidate, size: int, keep_rejected: bool
    ) -> list[Frame]:
        """Have its key frames imagined; the gates that judge rooms need no others."""
        return teacher.imagine(world, self.seed, candidate.anchor, candidate.actions, size, keep_rejected)


@dataclass(frozen=True)
class Photograph:
    """A photograph of the store; it is its trajectories' only anchor pose."""

    anchor: PhotoAnchor
    kind: AnchorKind = "photo"
    name_digits: int = 16

    @property
    def scene(self) -> str:
        """Its place's name, fit for a folder, and told apart by a digest from others that would look the same."""
        name = re.sub(r"[^a-z0-9]+", "-", self.anchor.scene.lower()).strip("-")[:40]
        return f"photo_{name}_{hashlib.sha256(self.anchor.scene.encode()).hexdigest()[:8]}"

    @property
    def key(self) -> str:
        """The digest of its content."""
        return self.anchor.photo.split(".")[0]

    def made_of(self, candidate: Candidate) -> Mapping[str, Any]:
        """The content and the lens."""
        return {"photo": self.anchor.photo, "fov_deg": self.anchor.fov_deg}

    def ask(
        self, teacher: Teacher, store: Store, world: str, candidate: Candidate, size: int, keep_rejected: bool
    ) -> list[Frame]:
        """Have all its frames imagined, the photograph scaled down to `size` pixels a side at most.

        Raises:
            NotFoundError: it has vanished from the store.
        """
        data = read_photo(store, self.anchor.photo)
        upright = decode_image(data, MAX_PHOTO_BYTES)
        # In place: not larger than it is, and its shape kept.
        upright.thumbnail((size, size), Image.Resampling.LANCZOS)
        intrinsics = intrinsics_of(
            Image.open(io.BytesIO(data)), *upright.size, name=self.anchor.photo, fov_deg=self.anchor.fov_deg
        )
        png = encode_png(np.asarray(upright))
        return teacher.imagine_photo(world, png, intrinsics, candidate.actions, keep_rejected)


def sources_of(shard: Shard) -> list[Source]:
    """What a shard's trajectories start from."""
    return [*map(Room, shard.scene_seeds), *map(Photograph, shard.photos)]
