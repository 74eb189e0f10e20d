"""Promotion: what passed the gate is swapped in; what did not is left where it is, with the reasons."""

from collections.abc import Mapping
from typing import Any, Protocol

from trainer.patience import patiently
from world2vlm.checkpoints import Registry
from world2vlm.errors import DataCorruptedError, GateRejectedError, NotFoundError, PreconditionError


class Swapper(Protocol):
    """What promotion needs of the student service."""

    def swap(self, version: int) -> Mapping[str, Any]:
        """Have a version serve; return what the service says about the swap.

        Raises:
            NotFoundError, DataCorruptedError, GateRejectedError, PreconditionError: the service refuses, and the old
                version keeps serving.
            UnavailableError: nobody answers.
        """
        ...


def promote(
    evaluation: Mapping[str, Any],
    training: Mapping[str, Any],
    registry: Registry,
    swapper: Swapper,
    patience_s: float,
) -> dict[str, Any]:
    """Swap a round's checkpoint in if its gate let it pass and its parent still serves.

    Returns:
        `promoted`, `version`, `from` (what served before), `reasons` (why not), `swap` (the service's figures).

    Raises:
        UnavailableError, OverloadedError: the service stayed away for `patience_s`.
    """
    version, parent, serving = training["version"], training["parent"], registry.serving()
    result = {"promoted": False, "version": version, "from": parent, "reasons": [], "swap": {}}
    reasons = list(evaluation["decision"]["reasons"])
    if serving not in (parent, version):
        reasons.append(f"it was trained from version {parent} and held against it, but {serving} serves now")
    if reasons:
        return {**result, "reasons": reasons}
    if serving == version:
        # An earlier delivery swapped it in and died before it could say so.
        return {**result, "promoted": True}
    try:
        swap = patiently(lambda: swapper.swap(version), patience_s)
    except (NotFoundError, DataCorruptedError, GateRejectedError, PreconditionError) as error:
        return {**result, "reasons": [f"the student service refused it: {error}"]}
    return {**result, "promoted": True, "swap": dict(swap)}
