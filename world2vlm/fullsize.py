"""Folders with models of full size, those that `trainer.finetune` trains, as checkpoints of the registry.

A checkpoint says by its own files what it is: the built-in student has a processor of its own, every other one is
transformers'. Nothing here needs torch.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from world2vlm.checkpoint_manifest import ADAPTER_FILES, Manifest
from world2vlm.checkpoints import Registry
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.files import canonical_json, sha256_file

ADAPTER = "adapter"
"""Subfolder of an adapter's files in a folder with its base, see `beside`."""

NOT_IN_ROUNDS = (
    "the checkpoint is a model of full size: rounds train and evaluate built-in students only, and `world2vlm train` "
    "takes a model by a recipe with [finetune]"
)

_BUILT_IN = "ClipProcessor"
_RECIPE = "recipe.json"
# What a model of transformers consists of; all others, pickles and code first of all, have no place in a checkpoint.
_SUFFIXES = {".safetensors", ".json", ".jinja", ".txt", ".model", ".md"}
_NO_SUFFIX = {"LICENSE", "NOTICE"}


def is_fullsize(folder: Path) -> bool:
    """Whether a full checkpoint is a model of transformers with its own processor, and not a built-in student."""
    return _says_fullsize(_read(folder / "processor_config.json"), _read(folder / "config.json"))


def check_takes_rounds(registry: Registry, version: int) -> None:
    """Check that rounds can train a version, by its small files alone: no weights are fetched.

    Raises:
        InvalidInputError: it is a model of full size, or an adapter for one.
        NotFoundError: no such version.
        PreconditionError: an adapter's parent is not the checkpoint that it was trained on.
        DataCorruptedError: a file differs from its manifest.
    """
    base = registry.base_of(version) or version
    files = registry.get(base).files
    processor, config = (
        _parse(registry.read(base, name)) if name in files else {} for name in ("processor_config.json", "config.json")
    )
    if _says_fullsize(processor, config):
        raise InvalidInputError(NOT_IN_ROUNDS)


@contextmanager
def beside(base: Path, adapter: Path) -> Iterator[Path]:
    """A temporary folder of links to a base's files, and to an adapter's in its subfolder `ADAPTER`.

    Whoever loads it merges them in memory: 15 GB are not written down for that.
    """
    with TemporaryDirectory(prefix="world2vlm-adapted-") as name:
        folder = Path(name)
        for source, target in ((base, folder), (adapter, folder / ADAPTER)):
            target.mkdir(exist_ok=True)
            for path in source.iterdir():
                os.symlink(path.absolute(), target / path.name)
        yield folder


def add(registry: Registry, folder: Path) -> Manifest:
    """Publish a fine-tuned folder as the next version, once for each content.

    An adapter's base becomes a version of its own before it, unless it is one: the registry then has all that serving
    takes, whatever becomes of the base's own folder.

    Args:
        registry: where to.
        folder: a model's files, or PEFT's adapter files, as `world2vlm train` leaves them.

    Raises:
        InvalidInputError: no such folder, or it holds anything but a model's files, or a built-in student.
        NotFoundError: the base that an adapter names is not on this machine; the text says how to get it.
    """
    names = _check_files(folder)
    if not names >= ADAPTER_FILES:
        return _publish_full(registry, folder)
    base = _publish_full(registry, find_base(folder))
    return _publish(registry, folder, base.version)


def find_base(folder: Path) -> Path:
    """The folder of the model that an adapter was trained on: what it names, or its copy in the cache of the hub.

    Raises:
        InvalidInputError: the adapter names none.
        NotFoundError: it is not on this machine.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    config = _read(folder / "adapter_config.json")
    name = config.get("base_model_name_or_path")
    if not name or not isinstance(name, str):
        raise InvalidInputError(f"{folder}: adapter_config.json does not name the model that the adapter is for")
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, revision=config.get("revision"), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise NotFoundError(
            f"{folder}: the adapter is for {name}, which is not on this machine: get it with `hf download {name}`"
        ) from error


def _publish_full(registry: Registry, folder: Path) -> Manifest:
    _check_files(folder)
    if not is_fullsize(folder):
        raise InvalidInputError(f"{folder}: not a model of transformers with its processor")
    return _publish(registry, folder, None)


def _publish(registry: Registry, folder: Path, base: int | None) -> Manifest:
    recipe = _read(folder / _RECIPE).get("name")
    return registry.publish(
        folder,
        parent=base,
        kind="full" if base is None else "lora",
        dataset_digest="",
        recipe=recipe if isinstance(recipe, str) else "added",
        metrics={},
        key=f"added/{_digest(folder)}/{base or 0}",
    )


def _check_files(folder: Path) -> set[str]:
    """The names of a folder's files; only what a checkpoint may hold.

    Raises:
        InvalidInputError: no such folder, or no safetensors, or anything that a checkpoint must not hold.
    """
    if not folder.is_dir():
        raise InvalidInputError(f"{folder}: no such folder")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    odd = [name for name in names if not _may_hold(folder / name)]
    if odd:
        raise InvalidInputError(
            f"{folder}: a checkpoint is safetensors and text files in one folder, without {', '.join(sorted(odd)[:5])}"
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise InvalidInputError(f"{folder}: no weights: there is no file of safetensors")
    return names


def _may_hold(path: Path) -> bool:
    return path.is_file() and (path.suffix in _SUFFIXES or path.name in _NO_SUFFIX)


def _digest(folder: Path) -> str:
    """Of a folder's files and their names."""
    paths = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return hashlib.sha256(canonical_json({path.name: sha256_file(path) for path in paths}).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none."""
    try:
        return _parse(path.read_bytes())
    except OSError:
        return {}


def _parse(data: bytes) -> dict[str, Any]:
    """A JSON object; an empty one where it is none."""
    try:
        content = json.loads(data)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _says_fullsize(processor_config: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    return processor_config.get("processor_class") != _BUILT_IN and "model_type" in config
