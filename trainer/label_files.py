"""Label bundles that lie in folders, for a records file that lies in another."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.labelling import label
from trainer.labelling.weighing import weighted, weights_of
from world2vlm.bundles import REJECTED, Bundle, find_bundles, read_bundle
from world2vlm.errors import InvalidInputError
from world2vlm.licences import Policy, Terms
from world2vlm.records import TaskRecord
from world2vlm.reliability import World, world_of


@dataclass(frozen=True)
class Labelled:
    """What came of folders of bundles.

    Attributes:
        records: task records.
        bundles: how many bundles were labelled.
        rejected: how many were not, by the gate that rejected them.
    """

    records: list[TaskRecord]
    bundles: int
    rejected: Mapping[str, int]

    @property
    def source(self) -> str:
        """Which bundles gave the records, and which gave none, in words."""
        said = f"from {self.bundles} bundle{'' if self.bundles == 1 else 's'}"
        return f"{said}; {_say_rejected(self.rejected)} gave none" if self.rejected else said


def label_folders(folders: Sequence[Path], base: Path, seed: int, policy: Policy) -> Labelled:
    """Label all bundles under some folders; image paths in the records are relative to `base`.

    Trajectories that a gate rejected are left out, but count against their world: its records weigh less then
    (`world2vlm.reliability`).

    Raises:
        InvalidInputError: there is no bundle, or all were rejected.
        PreconditionError: terms of a bundle's world are not acknowledged, or not known.
        DataCorruptedError: a bundle is broken; the text names it. Or its terms are malformed; the text names the world.
    """
    found = {path: read_bundle(path) for folder in folders for path in find_bundles(folder)}
    accepted = {path: bundle for path, bundle in found.items() if REJECTED not in bundle.params}
    rejected = Counter(
        str(bundle.params[REJECTED].get("gate", "unknown")) for bundle in found.values() if REJECTED in bundle.params
    )
    if not accepted:
        why = f"; {_say_rejected(rejected)}" if rejected else ""
        raise InvalidInputError(f"no bundles in {', '.join(map(str, folders))}{why}")
    policy.check(Terms.read(bundle.params) for bundle in accepted.values())
    weights = weights_of(found.values())
    records = [record for path, bundle in accepted.items() for record in _label_one(path, bundle, base, seed, weights)]
    return Labelled(records, len(accepted), rejected)


def _say_rejected(rejected: Mapping[str, int]) -> str:
    gates = ", ".join(gate if count == 1 else f"{gate} {count}" for gate, count in sorted(rejected.items()))
    return f"{sum(rejected.values())} rejected ({gates})"


def _label_one(folder: Path, bundle: Bundle, base: Path, seed: int, weights: Mapping[World, float]) -> list[TaskRecord]:
    here = Path(os.path.relpath(folder, base))

    def moved(image: str) -> str:
        return (here / Path(image).relative_to(bundle.relative_path)).as_posix()

    records = [replace(record, images=tuple(map(moved, record.images))) for record in label(bundle, seed)]
    weight = weights.get(world_of(bundle), 1.0)
    return records if weight == 1 else weighted(records, weight)
