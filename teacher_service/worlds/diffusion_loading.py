"""Diffusers pipelines: found on disk, digested, checked against the free memory, loaded. Imports torch."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import psutil
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open

from teacher_service.hub import choose_device
from teacher_service.worlds.base import source_digest
from teacher_service.worlds.diffusion_options import VideoOptions
from world2vlm.errors import InvalidInputError, NotFoundError, OverloadedError
from world2vlm.files import canonical_json, sha256_file

_INDEX = "model_index.json"
# What of the options changes no pixel.
_WITHOUT_EFFECT = (
    "model",
    "revision",
    "local_files_only",
    "offload",
    "compile",
    "max_frames",
    "terms_checked",
)
# Photos and prompts whose encoding a sampler keeps.
REMEMBERED = 8
# Numbers alive at once, for each token and each of the transformer's channels, and for each of the decoder's values:
# estimates from the widest layers (the gated MLP; a block's convolution and what it adds to).
ALIVE_A_TOKEN = 16
ALIVE_A_PIXEL = 5
# Seconds after which another process may have given memory back.
_RETRY_S = 10.0
_SOURCES = ("diffusion.py", "diffusion_loading.py", "framing.py", "takes.py")


@dataclass(frozen=True)
class Loaded:
    """A pipeline that is ready.

    Attributes:
        pipe: the diffusers pipeline.
        device: what it computes on.
        digest: sha256 over the digests of the files that it was loaded from, the options and the source that acts on
            them: whatever decides about its frames.
    """

    pipe: Any
    device: torch.device
    digest: str


def load(
    world: str,
    kind: Any,
    options: VideoOptions,
    sources: tuple[Path, ...],
    float32: tuple[str, ...] = (),
    acting: Mapping[str, str] | None = None,
) -> Loaded:
    """Load a pipeline from its folder or from the hub's cache.

    Args:
        world: whose it is, for the messages.
        kind: the pipeline's class.
        options: where it is, and how it is to run.
        sources: files of the world's own code.
        float32: components that stay in float32, whatever the others are in.
        acting: digests, by name, of what else decides about the frames.

    Raises:
        NotFoundError: the weights are not there; says how to get them.
        InvalidInputError: the folder is not of such a pipeline.
        OverloadedError: the device has too little free memory for them.
    """
    folder = _find(world, kind, options)
    components = _components(folder, kind.__name__)
    device = _device(options.device)
    dtype = _dtype(options.dtype, device)
    dtypes = {name: torch.float32 if name in float32 else dtype for name in components}
    check_free(device, _resting_bytes(folder, dtypes, options.offload), "set offload to 'model' or 'sequential'")
    diffusers_logging.disable_progress_bar()
    try:
        pipe = kind.from_pretrained(
            folder, dtype={**dtypes, "default": dtype}, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InvalidInputError(f"the world {world} cannot load {folder}: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    place(pipe, device, options.offload)
    if options.compile:
        pipe.transformer.compile_repeated_blocks()
    return Loaded(pipe, device, _digest(folder, components, options, sources, acting or {}))


def place(pipe: Any, device: torch.device, offload: str) -> None:
    """Put a pipeline on its device, whole or as its parts are needed."""
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)


def check_free(device: torch.device, needed: float, remedy: str) -> None:
    """Check that a device has so many bytes free.

    Raises:
        OverloadedError: it has not; says what to change.
    """
    free = _free_bytes(device)
    if needed > free:
        raise OverloadedError(
            f"this needs about {needed / 1e9:.1f} GB on {device}, {free / 1e9:.1f} GB are free; {remedy}", _RETRY_S
        )


@contextmanager
def explained(device: torch.device, remedy: str) -> Iterator[None]:
    """Say what to change where a device runs out of memory after all: the figures of `check_free` are estimates.

    Raises:
        OverloadedError: the device ran out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        free = _free_bytes(device) / 1e9
        raise OverloadedError(
            f"{device} ran out of memory, {free:.1f} GB are free again; {remedy}", _RETRY_S
        ) from error


class Sampler:
    """A pipeline at work: what `SanaSampler` and `VaceSampler` share.

    Args:
        loaded: the pipeline.
        steps: denoising steps.
        guidance: classifier-free guidance scale; 1 = none.
    """

    def __init__(self, loaded: Loaded, steps: int, guidance: float) -> None:
        self._pipe, self._device = loaded.pipe, loaded.device
        self._steps = steps
        self._guidance = guidance

    @contextmanager
    def _working(self, needed: float, remedy: str) -> Iterator[None]:
        """Make a video that needs so many bytes beside the weights.

        Raises:
            OverloadedError: too little free memory; says what to change.
        """
        check_free(self._device, needed, remedy)
        try:
            with explained(self._device, remedy):
                yield
        finally:
            self._pipe.maybe_free_model_hooks()


def _find(world: str, kind: Any, options: VideoOptions) -> Path:
    folder = Path(options.model).expanduser()
    if folder.is_dir():
        return folder
    try:
        found = kind.download(
            options.model,
            revision=options.revision or None,
            local_files_only=options.local_files_only,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        remedy = "set local_files_only = false, or run" if options.local_files_only else "check its name, or run"
        raise NotFoundError(
            f"the world {world} has no weights: {options.model!r} is no folder and not in the hub's cache; {remedy} "
            f"'hf download {options.model}', or set world_options.{world}.model to a folder of a {kind.__name__}"
        ) from error
    return Path(found)


def _components(folder: Path, kind: str) -> list[str]:
    """Return the names of the folders that a pipeline of this kind has, those with weights and those without."""
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{folder} is no diffusers pipeline: {_INDEX} cannot be read") from error
    if not isinstance(index, dict) or index.get("_class_name") != kind:
        raise InvalidInputError(f"{folder} is no {kind}: {_INDEX} names another class")
    return sorted(name for name, value in index.items() if isinstance(value, list) and value[0] is not None)


def _digest(
    folder: Path, components: list[str], options: VideoOptions, sources: tuple[Path, ...], acting: Mapping[str, str]
) -> str:
    files = [folder / _INDEX, *(path for name in components for path in sorted((folder / name).glob("*")))]
    content = {
        "files": {path.relative_to(folder).as_posix(): sha256_file(path) for path in files if path.is_file()},
        "options": {name: value for name, value in asdict(options).items() if name not in _WITHOUT_EFFECT},
        "source": source_digest([*(Path(__file__).with_name(name) for name in _SOURCES), *sources]),
        "acting": dict(acting),
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _resting_bytes(folder: Path, dtypes: Mapping[str, torch.dtype], offload: str) -> int:
    """Return what the weights take on the device; with all layers but one in main memory, next to nothing."""
    sizes = [dtype.itemsize * _values(folder / name) for name, dtype in dtypes.items()]
    return {"none": sum(sizes), "model": max(sizes), "sequential": 0}[offload]


def _values(folder: Path) -> int:
    """Return how many numbers the weights in a folder have, from the files' headers alone."""
    total = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt") as weights:
                total += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise InvalidInputError(f"{path} is broken: {error}") from error
    return total


def _device(name: str) -> torch.device:
    try:
        return torch.device(choose_device(name))
    except RuntimeError as error:
        raise InvalidInputError(f"no such device: {name!r}") from error


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _free_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    free, _total = torch.cuda.mem_get_info(device)
    # What torch holds and does not use is free for it, too.
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
