"""What a published checkpoint says about itself: its manifest, and the kinds there are."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from world2vlm.errors import DataCorruptedError, InvalidInputError
from world2vlm.files import canonical_json

Kind = Literal["full", "lora"]
# PEFT's names of an adapter's two files, and what may lie beside them: a card, a calibration, the recipe.
ADAPTER_FILES = frozenset({"adapter_config.json", "adapter_model.safetensors"})
_BESIDE_ADAPTERS = {"README.md", "calibration.json", "recipe.json"}
_NO_PARENT = ("parent_digest", "")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is.

    Attributes:
        name: the registry's name.
        version: an increasing integer, from 1; numbers may be left out.
        parent: the version it was trained from; None for the first.
        kind: full weights, or a LoRA adapter on the parent.
        files: sha256 in hex by relative name.
        dataset_digest: what it was trained on; empty where it was not.
        recipe: how it was trained.
        metrics: finite figures by name.
        created: UTC, ISO 8601.
        digest: sha256 in hex over everything else.
        parent_digest: the parent's digest; empty where there is no parent.
    """

    name: str
    version: int
    parent: int | None
    kind: Kind
    files: Mapping[str, str]
    dataset_digest: str
    recipe: str
    metrics: Mapping[str, float]
    created: str
    digest: str
    parent_digest: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, payload: Any) -> Self:
        """Read a JSON object.

        Raises:
            DataCorruptedError: keys are missing or unknown, or the digest differs.
        """
        try:
            manifest = cls(**payload)
            wrong = manifest.digest != manifest_digest(payload)
        except (TypeError, AttributeError) as error:
            raise DataCorruptedError(f"not a checkpoint's manifest: {error}") from error
        if wrong:
            raise DataCorruptedError("a checkpoint's manifest differs from its digest")
        return manifest


def check_kind(kind: Kind, names: Iterable[str]) -> None:
    """Check that a checkpoint's files are those of its kind.

    Raises:
        InvalidInputError: they are not.
    """
    found = set(names)
    if kind == "lora" and found - _BESIDE_ADAPTERS != ADAPTER_FILES:
        raise InvalidInputError(f"a LoRA adapter is {' and '.join(sorted(ADAPTER_FILES))}, not {sorted(found)}")
    # A library that finds an adapter's config loads whatever model that names, not the one beside it.
    if kind == "full" and found & ADAPTER_FILES:
        raise InvalidInputError(f"a full checkpoint must not hold {sorted(found & ADAPTER_FILES)}")


def manifest_digest(payload: Mapping[str, Any]) -> str:
    """The sha256, in hex, over a manifest's payload without its digest."""
    # Manifests of before there was a parent's digest have no such key.
    covered = {name: value for name, value in payload.items() if name != "digest" and (name, value) != _NO_PARENT}
    return hashlib.sha256(canonical_json(covered).encode()).hexdigest()
