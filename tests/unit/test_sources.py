"""What trajectories start from: photographs as a teacher gets them, and names that keep places apart."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from trainer.sampling import candidates
from trainer.sources import AnchorKind, Photograph, Room, sources_of
from world2vlm.actions import Action
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats
from world2vlm.errors import NotFoundError
from world2vlm.images import decode_image
from world2vlm.photos import store_photo
from world2vlm.shards import PhotoAnchor, Shard
from world2vlm.store import Store

CANDIDATE = next(candidates(0, "a photograph", 0, 1))


class Listener:
    """A teacher that remembers what it was asked."""

    def world(self, name: str, kind: AnchorKind) -> Mapping[str, Any]:
        raise AssertionError

    def imagine(
        self, world: str, scene: int, anchor: int, actions: Sequence[Action], size: int, keep_rejected: bool
    ) -> list[Frame]:
        raise AssertionError

    def imagine_photo(
        self, world: str, png: bytes, intrinsics: Floats, actions: Sequence[Action], keep_rejected: bool
    ) -> list[Frame]:
        assert (world, tuple(actions), keep_rejected) == ("geometric", CANDIDATE.actions, True)
        self.pixels, self.intrinsics = np.asarray(decode_image(png)), intrinsics
        return []


def sideways(film_mm: int) -> bytes:
    """A photograph of 400 x 300 pixels that its camera took upright, red at what is up."""
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] = film_mm
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[:, :200, 0] = 250
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def asked(store: Store, photo: str, fov_deg: float | None = None) -> Listener:
    teacher = Listener()
    Photograph(PhotoAnchor("hall", photo, fov_deg)).ask(teacher, store, "geometric", CANDIDATE, 128, True)
    return teacher


def test_a_photograph_goes_out_upright_and_small_with_its_lens(tmp_path: Path) -> None:
    store = Store(tmp_path)
    teacher = asked(store, store_photo(store, sideways(24)))
    assert teacher.pixels.shape == (128, 96, 3)
    assert teacher.pixels[:60, :, 0].min() > 200 and teacher.pixels[68:, :, 0].max() < 50
    # The diagonal of 96 x 128 pixels, by that of film.
    assert teacher.intrinsics[0, 0] == pytest.approx(24 / np.hypot(36, 24) * 160)
    assert tuple(teacher.intrinsics[:2, 2]) == (48, 64)


def test_a_field_of_view_that_is_given_goes_before_the_exif(tmp_path: Path) -> None:
    store = Store(tmp_path)
    teacher = asked(store, store_photo(store, sideways(24)), 90.0)
    assert teacher.intrinsics[0, 0] == pytest.approx(48)


def test_a_small_photograph_keeps_its_size(tmp_path: Path) -> None:
    store, buffer = Store(tmp_path), io.BytesIO()
    Image.new("RGB", (60, 40)).save(buffer, "PNG")
    assert asked(store, store_photo(store, buffer.getvalue())).pixels.shape == (40, 60, 3)


def test_a_photograph_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="ab" * 32):
        asked(Store(tmp_path), f"{'ab' * 32}.jpg")


def test_places_whose_names_look_alike_keep_apart() -> None:
    names = ["the hall", "the-hall", "The Hall", "küche", "../..", "", "x" * 300, "x" * 301]
    scenes = [Photograph(PhotoAnchor(name, "a.jpg")).scene for name in names]
    assert len(set(scenes)) == len(names)
    assert scenes[0].startswith("photo_the-hall_") and all(len(scene) < 64 and "." not in scene for scene in scenes)


def test_what_frames_are_made_of() -> None:
    photo = Photograph(PhotoAnchor("hall", f"{'ab' * 32}.jpg", 70.0))
    assert photo.made_of(CANDIDATE) == {"photo": f"{'ab' * 32}.jpg", "fov_deg": 70.0} and photo.key == "ab" * 32
    assert Room(7).made_of(CANDIDATE) == {"scene_seed": 7, "anchor": 0} and Room(7).scene == "room_7"
    shard = Shard(0, "train", photos=(photo.anchor,))
    assert sources_of(shard) == [photo] and sources_of(Shard(0, "train", (7,))) == [Room(7)]
