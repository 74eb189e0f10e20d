"""Task records as tokens and pictures, by the model's own processor and chat template; prepared once, kept on disk."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.finetune.packing import Example
from trainer.finetune.prepared import Prepared, Tensors, digest
from trainer.finetune.processes import Processes
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image
from world2vlm.records import TaskRecord
from world2vlm.telemetry import progress
from world2vlm.vlm.fullsize.conversation import control_tokens, encode, render, show_images
from world2vlm.vlm.fullsize.families import Family, positions, vision_modules
from world2vlm.vlm.fullsize.network import Seen
from world2vlm.vlm.fullsize.vision import GRID, Picture, look, see

_TEXT = "text"
_Kept = tuple[Tensors, Mapping[str, str]]


@dataclass(frozen=True)
class Entry:
    """A prepared record: where its tokens lie, how many they are and how many belong to the answer, and its images."""

    key: str
    tokens: int
    answer_tokens: int
    images: tuple[str, ...]


class Encoder:
    """Encodes records for one model.

    An image becomes what the image processor makes of it, or, where the vision tower stays as it is, what the tower
    makes of that: then no step runs the tower, and a picture that many questions are about is looked at once.

    Args:
        processor: the model's own.
        base: the model without its head; its tower is run where it is frozen.
        family: its family.
        folder: where prepared tensors are kept; it may be shared between runs and models.
        images_root: what the records' image paths are relative to.
        frozen: whether the vision tower stays as it is.
        autocast: what its matrix products are computed in, where that is not the weights' own type.
    """

    def __init__(
        self,
        processor: Any,
        base: Any,
        family: Family,
        folder: Path,
        images_root: Path,
        *,
        frozen: bool,
        autocast: torch.dtype | None = None,
    ) -> None:
        self._processor = processor
        self._base = base
        self._family = family
        self._prepared = Prepared(folder)
        self._root = images_root
        self._frozen, self._autocast = frozen, autocast
        self._image_keys: dict[str, str] = {}
        self._control = control_tokens(processor.tokenizer)
        settings = _plain(processor.image_processor.to_dict())
        self._images_digest = digest(settings, _vision_digest(base, family) + str(autocast) if frozen else "pixels")
        tokenizer = processor.tokenizer.backend_tokenizer.to_str()
        config = _plain(base.config.to_dict())
        self._text_digest = digest(self._images_digest, tokenizer, str(processor.chat_template), config)

    def entry(self, record: TaskRecord) -> Entry:
        """Prepare a record and its images where they are not yet.

        Raises:
            InvalidInputError: an image is missing or broken, the record holds a control token, or the chat template
                does not put the answer after the prompt.
        """
        images = tuple(self._image_key(path) for path in record.images)
        key = digest(record.user, record.assistant, *images, self._text_digest)
        tensors, _ = self._prepared.get(key, lambda: (self._tokens(record, images), {}))
        return Entry(key, len(tensors["ids"]), int(tensors["is_answer"].sum()), images)

    def example(self, entry: Entry) -> Example:
        """The tokens of a prepared record."""
        tensors, _ = self._kept(entry.key)
        ids, place = tensors["ids"].long(), tensors["positions"].long()
        return Example(ids, tensors["is_answer"].bool(), place, entry.images)

    def picture(self, key: str) -> Picture:
        """A prepared image by its key."""
        return self._kept(key)[0]

    def seen(self, key: str) -> Seen:
        """A prepared image as a student of full size takes it."""
        tensors, texts = self._kept(key)
        return Seen(bytes.fromhex(key), texts[_TEXT], tensors)

    def _kept(self, key: str) -> _Kept:
        return self._prepared.get(key, lambda: _lost(key))

    def _image_key(self, name: str) -> str:
        if name not in self._image_keys:
            try:
                data = (self._root / name).read_bytes()
            except OSError as error:
                raise InvalidInputError(f"the image {name} of a record cannot be read: {error.strerror}") from error
            key = digest(data, self._images_digest)
            try:
                self._prepared.get(key, lambda: self._look(data))
            except ValueError as error:
                raise InvalidInputError(f"{name}: {error}") from error
            self._image_keys[name] = key
        return self._image_keys[name]

    @torch.no_grad()
    def _look(self, data: bytes) -> _Kept:
        """An image's tensors, and the text that stands for it."""
        picture, text = look(self._processor, self._family, decode_image(data))
        if not self._frozen:
            return picture, {_TEXT: text}
        device = next(self._base.parameters()).device
        on_device = {name: value.to(device) for name, value in picture.items()}
        with torch.autocast(device.type, self._autocast, enabled=self._autocast is not None):
            seen = {name: value.cpu() for name, value in see(self._base, self._family, [on_device])[0].items()}
        return seen | ({GRID: picture[GRID]} if GRID in picture else {}), {_TEXT: text}

    def _tokens(self, record: TaskRecord, images: tuple[str, ...]) -> Tensors:
        kept = [self._kept(key) for key in images]
        said = render(self._processor, self._control, record)
        whole, answer = show_images(*said, self._processor.image_token, [texts[_TEXT] for _, texts in kept])
        coded, ends = encode(self._processor.tokenizer, whole)
        ids = torch.tensor(coded)
        grids = torch.cat([tensors[GRID] for tensors, _ in kept]) if kept and GRID in kept[0][0] else None
        place = positions(self._base, self._family, ids, grids)
        return {"ids": ids.int(), "is_answer": (torch.tensor(ends) > answer).to(torch.uint8), "positions": place.int()}


def prepare(encoder: Encoder, records: Sequence[TaskRecord], processes: Processes) -> dict[int, Entry]:
    """Prepare this process's share of records, until the others have prepared theirs; the first shows how far it is.

    Returns:
        The share's entries, by index into the records.

    Raises:
        InvalidInputError: see `Encoder.entry`.
        PreconditionError: another process has failed.
    """
    shared = range(processes.rank, len(records), processes.world)
    found: dict[int, Entry] = {}
    with (
        processes.together(),
        progress("preparing", len(shared)) if processes.rank == 0 else nullcontext() as advance,
    ):
        for index in shared:
            found[index] = encoder.entry(records[index])
            if advance is not None:
                advance(1)
    return found


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as JSON; what JSON does not know counts as its text."""
    payload: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return payload


def _vision_digest(base: Any, family: Family) -> str:
    total = hashlib.sha256()
    for module in vision_modules(base, family):
        for name, tensor in module.state_dict().items():
            total.update(name.encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _lost(key: str) -> _Kept:
    raise InvalidInputError(f"the prepared tensors {key} are broken or gone; start again to prepare them anew")
