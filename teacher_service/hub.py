"""Models by name: a folder, or a repository of the Hugging Face hub. Safetensors only: other formats may run code."""

import hashlib
from pathlib import Path
from typing import Any

from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.files import sha256_file

_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")


def fetch(name: str) -> Path:
    """Return the folder that holds a model: `name` itself, or a snapshot of the hub's repository of that name.

    Raises:
        NotFoundError: neither exists, or the hub can't be reached.
        InvalidInputError: there are no safetensors weights in it.
    """
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, allow_patterns=list(_PATTERNS)))
        except (OSError, ValueError) as error:
            raise NotFoundError(f"{name!r} is no folder, and the hub gives no model of that name: {error}") from error
    if not any(folder.rglob("*.safetensors")):
        raise InvalidInputError(f"{name!r} holds no safetensors weights; convert it first, other formats are not read")
    return folder


def digest(folder: Path) -> str:
    """Return the sha256 over a model's configuration and weights."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors")):
        found.update(f"{path.relative_to(folder).as_posix()} {sha256_file(path)}\n".encode())
    return found.hexdigest()


def load_model(kind: Any, folder: Path, name: str, device: str, **options: Any) -> Any:
    """Load a model of `transformers` from a folder, ready to answer on a device of `choose_device`.

    Args:
        kind: one of its `Auto` classes.
        folder: from `fetch`.
        name: what the model is called in messages.
        device: torch device, or `auto`.
        options: more for `from_pretrained`.

    Raises:
        OSError, ValueError: it can't be read as one of that kind.
        InvalidInputError: its weights are not whole.
    """
    model, info = kind.from_pretrained(
        folder,
        use_safetensors=True,
        output_loading_info=True,
        trust_remote_code=False,
        local_files_only=True,
        **options,
    )
    # transformers only warns: what is missing would be random numbers, which say anything or nothing.
    lacking = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if lacking:
        raise InvalidInputError(f"the weights of {name!r} lack {len(lacking)} of its tensors, for example {lacking[0]}")
    return model.to(choose_device(device)).eval()


def choose_device(device: str) -> str:
    """Return a torch device; `auto` is a GPU where there is one."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
