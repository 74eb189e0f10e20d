"""Prepared tensors on disk, named by the digest of what they were made from, so that nothing is prepared twice."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from world2vlm.files import canonical_json, temporary_name

Tensors = Mapping[str, torch.Tensor]


def digest(*parts: bytes | Mapping[str, Any] | str) -> str:
    """The sha256, in hex, over texts, bytes and JSON objects; each part counts with its length."""
    total = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else (part if isinstance(part, str) else canonical_json(part)).encode()
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()


class Prepared:
    """A folder of safetensors files by key. Several processes may write to it at once: equal keys mean equal files."""

    def __init__(self, folder: Path) -> None:
        """Open the folder; it is made where it is missing."""
        self._folder = folder

    def __contains__(self, key: str) -> bool:
        return self._path(key).exists()

    def get(self, key: str, make: Callable[[], tuple[Tensors, Mapping[str, str]]]) -> tuple[Tensors, Mapping[str, str]]:
        """Tensors and texts under a key, made and written where they are not there yet or the file is broken."""
        if key in self:
            try:
                return self._read(key)
            except SafetensorError:
                self._path(key).unlink(missing_ok=True)
        tensors, texts = make()
        self._write(key, tensors, texts)
        return tensors, texts

    def _read(self, key: str) -> tuple[Tensors, Mapping[str, str]]:
        with safe_open(self._path(key), framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}

    def _write(self, key: str, tensors: Tensors, texts: Mapping[str, str]) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(temporary_name())
        try:
            save_file({name: value.contiguous() for name, value in tensors.items()}, staging, metadata=dict(texts))
            os.replace(staging, path)
        finally:
            staging.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key[2:]}.safetensors"
