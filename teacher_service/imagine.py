"""From a photo to a bundle on disk, by a teacher that runs elsewhere or inside this process."""

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw

from teacher_service.app import in_background
from teacher_service.worlds.base import Photo
from world2vlm.actions import Action, format_actions
from world2vlm.bundles import Bundle, Frame, write_bundle
from world2vlm.clients.teacher import TeacherClient
from world2vlm.errors import NotFoundError
from world2vlm.images import encode_png
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo

_COLUMNS = 4
_CAPTION = 14


def imagine_photo(
    photo: Photo, name: str, actions: Sequence[Action], out: Path, world: str = "", url: str = ""
) -> Path:
    """Imagine a path from a photo and write its bundle and `strip.png`.

    Args:
        photo: the anchor.
        name: the scene's name.
        actions: the path.
        out: folder that the bundle goes into.
        world: the world's name; empty = the teacher's first for photos.
        url: `host:port` of a teacher; empty starts one inside this process.

    Returns:
        The bundle's folder.
    """
    png = encode_png(photo.pixels)
    with _teacher(url) as client:
        info = _choose(client.describe(), world)
        frames = client.imagine_photo(png, actions, depth=photo.depth, intrinsics=photo.intrinsics, world=info.name)
    params = {
        "world": info.name,
        "world_digest": info.digest,
        "licence": info.licence,
        "photo": hashlib.sha256(png).hexdigest(),
        "actions": format_actions(actions),
    }
    depth = b"" if photo.depth is None else photo.depth.tobytes()
    digest = hashlib.sha256(repr(params).encode() + photo.intrinsics.tobytes() + depth).hexdigest()
    scene = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "photo"
    folder = write_bundle(out, Bundle(scene, digest[:8], tuple(frames), params))
    _write_strip(folder / "strip.png", frames)
    return folder


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
    raise NotFoundError(f"the teacher has no world {name!r}; it has {', '.join(info.name for info in worlds)}")


def _write_strip(path: Path, frames: Sequence[Frame]) -> None:
    """Write all frames in one picture, each under the actions that led to it."""
    width, height = frames[0].size
    columns = min(_COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + _CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, frame in enumerate(frames):
        x, y = index % columns * width, index // columns * (height + _CAPTION)
        draw.text((x + 2, y + 1), format_actions(frame.actions_step) or "the photo", fill="black")
        sheet.paste(Image.open(io.BytesIO(frame.png)), (x, y + _CAPTION))
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    sheet.save(staging, "PNG")
    os.replace(staging, path)
