"""Photographs in the store: `photos/<sha256>.<suffix>`, each as it was given, EXIF and all."""

import hashlib
import io

from PIL import Image

from world2vlm.collection import check_file
from world2vlm.errors import DataCorruptedError, NotFoundError
from world2vlm.images import MAX_BYTES, decode_image
from world2vlm.lenses import check_shape
from world2vlm.store import Store

FOLDER = "photos"
MAX_PHOTO_BYTES = 4 * MAX_BYTES
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def store_photo(store: Store, data: bytes) -> str:
    """Put a photograph into the store as it is; one that is there is neither decoded nor written again.

    Returns:
        Its name in `photos/`.

    Raises:
        InvalidInputError: it is no still PNG, JPEG or WebP image that one pinhole camera took (`world2vlm.images`,
            `world2vlm.lenses.check_shape`).
    """
    digest = hashlib.sha256(data).hexdigest()
    for suffix in _SUFFIXES.values():
        if store.exists(f"{FOLDER}/{digest}.{suffix}"):
            return f"{digest}.{suffix}"
    check_shape(*decode_image(data, MAX_PHOTO_BYTES).size)
    name = f"{digest}.{_SUFFIXES[str(Image.open(io.BytesIO(data)).format)]}"
    store.create_bytes(f"{FOLDER}/{name}", data)
    return name


def read_photo(store: Store, name: str) -> bytes:
    """Read a photograph.

    Raises:
        NotFoundError: it has vanished from the store.
        DataCorruptedError: it is not what its name says.
    """
    path = f"{FOLDER}/{check_file(name)}"
    try:
        data = store.read_bytes(path)
    except NotFoundError as error:
        raise NotFoundError(
            f"the photograph {path} is not in the store any more: gather its folder again (rounds start --photos)"
        ) from error
    if hashlib.sha256(data).hexdigest() != name.split(".")[0]:
        raise DataCorruptedError(f"{path}: differs from its name; delete it and gather its folder again")
    return data
