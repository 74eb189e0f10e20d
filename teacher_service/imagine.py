"""From a photo to a bundle on disk, by a teacher that runs elsewhere or inside this process."""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from teacher_service.app import in_background
from teacher_service.pictures import draw_strip, encode_animation
from teacher_service.worlds.base import Photo
from world2vlm.actions import Action, format_actions
from world2vlm.bundles import Bundle, Frame, first_rejection, rejected_params, write_bundle
from world2vlm.clients.teacher import TeacherClient
from world2vlm.errors import GateRejectedError, NotFoundError
from world2vlm.files import write_atomically
from world2vlm.images import encode_png
from world2vlm.licences import stamp
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo

STRIP, ANIMATION = "strip.png", "imagined.webp"


@dataclass(frozen=True)
class Imagination:
    """What came of a photo.

    Attributes:
        folder: the bundle's.
        frames: the photo's own view first.
        rejected: what the first gate that failed says; None where all passed.
    """

    folder: Path
    frames: tuple[Frame, ...]
    rejected: GateRejectedError | None


def imagine_photo(
    photo: Photo, name: str, actions: Sequence[Action], out: Path, world: str = "", url: str = ""
) -> Imagination:
    """Imagine a path from a photo and write its bundle, with `strip.png` and `imagined.webp` beside the frames.

    Frames that a gate fails are kept, so that it can be seen why; the bundle then says that it is rejected, and nobody
    learns from it.

    Args:
        photo: the anchor.
        name: the scene's name.
        actions: the path.
        out: folder that the bundle goes into.
        world: the world's name; empty = the teacher's first for photos.
        url: `host:port` of a teacher; empty starts one inside this process.

    Raises:
        NotFoundError: the teacher has no such world.
        GateRejectedError: a gate rejected the path before there was anything to see.
    """
    png = encode_png(photo.pixels)
    with _teacher(url) as client:
        info = _choose(client.describe(), world)
        frames = client.imagine_photo(
            png, actions, depth=photo.depth, intrinsics=photo.intrinsics, world=info.name, keep_rejected=True
        )
    params = {**stamp(info), "photo": hashlib.sha256(png).hexdigest(), "actions": format_actions(actions)}
    rejected = first_rejection(frames)
    if rejected is not None:
        params |= rejected_params(rejected)
    digest = _digest(photo, params)
    scene = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "photo"
    folder = write_bundle(out, Bundle(scene, digest[:8], tuple(frames), params))
    _write_pictures(folder, frames)
    return Imagination(folder, tuple(frames), rejected)


@contextmanager
def _teacher(url: str) -> Iterator[TeacherClient]:
    if url:
        with TeacherClient(url, TeacherSettings.load().client_tls) as client:
            yield client
        return
    settings = TeacherSettings.load(host="127.0.0.1", port=0, tls_cert=None, tls_key=None, tls_client_ca=None)
    with in_background(settings) as port, TeacherClient(f"127.0.0.1:{port}") as client:
        yield client


def _choose(worlds: Sequence[WorldInfo], name: str) -> WorldInfo:
    for info in worlds:
        if info.name == name or (not name and info.takes_photos):
            return info
    names = ", ".join(info.name for info in worlds)
    if not name:
        raise NotFoundError(f"none of the teacher's worlds takes photos; it has {names}")
    raise NotFoundError(f"the teacher has no world {name!r}; it has {names}: set `worlds`; see docs/worlds.md")


def _digest(photo: Photo, params: dict[str, object]) -> str:
    depth = b"" if photo.depth is None else photo.depth.tobytes()
    return hashlib.sha256(repr(params).encode() + photo.intrinsics.tobytes() + depth).hexdigest()


def _write_pictures(folder: Path, frames: Sequence[Frame]) -> None:
    strip = io.BytesIO()
    draw_strip(frames).save(strip, "PNG")
    write_atomically(folder / STRIP, strip.getvalue())
    write_atomically(folder / ANIMATION, encode_animation(frames))
