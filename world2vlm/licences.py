"""Whose terms hold for imagined frames, and whether a model may learn from them. What is not known is refused.

A world's `WorldInfo` says on what terms its frames may be used; `stamp` puts that into the bundles made from them, and
from there it goes into the manifests of datasets. Whoever labels, builds a dataset, exports or trains asks a `Policy`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from world2vlm.errors import DataCorruptedError, PreconditionError
from world2vlm.files import canonical_json
from world2vlm.worlds import WorldInfo

UNKNOWN = "unknown"
"""What a bundle's world is called, in `accepted_terms` too, where the bundle names none."""

# Before bundles had terms, these worlds had this licence and no other.
_UNRESTRICTED = ("renderer", "geometric")
_OWN_LICENCE = "Apache-2.0"
# Alpha-2 codes of the European Union's members.
# fmt: off
_EU = frozenset((
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU",
    "IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
))
# fmt: on


@dataclass(frozen=True)
class Terms:
    """On what terms the frames of a world may be used; see `WorldInfo`.

    Attributes:
        world: the world's name.
        digest: sha256 of its weights; empty where that is not known.
        licence: SPDX identifier or name.
        outputs_may_train: other models may learn from its frames.
        outputs_may_be_sold: what is made from its frames may be used commercially.
        excluded_regions: where it may not be used, ISO 3166 alpha-2 codes, and EU.
        text: the sentence that says so; empty where nothing is restricted.
        known: whether anybody said so at all.
    """

    world: str
    digest: str
    licence: str
    outputs_may_train: bool
    outputs_may_be_sold: bool
    excluded_regions: tuple[str, ...] = ()
    text: str = ""
    known: bool = True

    @property
    def is_restricted(self) -> bool:
        """Whether anything is asked of who uses the frames, or nothing is known."""
        free = self.known and self.outputs_may_train and self.outputs_may_be_sold
        return bool(not free or self.excluded_regions or self.text)

    @property
    def sentence(self) -> str:
        """What is restricted, in one sentence."""
        if not self.known:
            return "nobody says on what terms its frames may be used"
        said = []
        if not self.outputs_may_train:
            said.append("its frames may not train other models")
        if not self.outputs_may_be_sold:
            said.append("what is made from them may not be used commercially")
        if self.excluded_regions:
            said.append(f"it may not be used in {', '.join(self.excluded_regions)}")
        return "; ".join(said + ([self.text.rstrip(".")] if self.text else [])) or "nothing is restricted"

    def excludes(self, region: str) -> bool:
        """Whether the world may not be used in a region, an alpha-2 code or EU."""
        return region in self.excluded_regions or (region in _EU and "EU" in self.excluded_regions)

    @classmethod
    def read(cls, stamped: Mapping[str, Any]) -> Self:
        """Read what `stamp` wrote; what is missing counts as not known.

        Bundles of the worlds that were there before terms were stamped say their licence, and that is enough.

        Raises:
            DataCorruptedError: what is there is not of the type that `stamp` writes: nobody can consent to terms that
                cannot be read.
        """
        _check_types(stamped)
        world, terms = stamped.get("world") or UNKNOWN, stamped.get("terms", {})
        digest, licence = stamped.get("world_digest", ""), stamped.get("licence", "")
        if not terms and world in _UNRESTRICTED and licence.split(";")[0] == _OWN_LICENCE:
            return cls(world, digest, licence, True, True)
        try:
            return cls(
                world,
                digest,
                licence,
                terms["outputs_may_train"],
                terms["outputs_may_be_sold"],
                tuple(terms["excluded_regions"]),
                terms["text"],
            )
        except KeyError:
            return cls(world, digest, licence, False, False, known=False)


@dataclass(frozen=True)
class Policy:
    """What the worlds' frames are used for, and whose terms were read and are kept.

    Attributes:
        accepted: names of the worlds whose terms were acknowledged.
        region: where this is done, an ISO 3166 alpha-2 code or EU; empty = not said.
        commercial: whether what is made is used commercially.
    """

    accepted: frozenset[str] = frozenset()
    region: str = ""
    commercial: bool = False

    def check(self, found: Iterable[Terms]) -> None:
        """Do nothing where a model may learn from frames on all of these terms.

        Raises:
            PreconditionError: it may not, or nobody acknowledged that it may; names the world, what its terms say, and
                the setting.
        """
        for terms in sorted(set(found), key=lambda each: (each.world, each.digest)):
            self._check_one(terms)

    def _check_one(self, terms: Terms) -> None:
        if self.region and terms.excludes(self.region):
            raise PreconditionError(
                f"the world {terms.world!r} ({_named(terms)}) may not be used in {self.region}, where the setting "
                f"region says we are: {terms.sentence}"
            )
        if self.commercial and terms.known and not terms.outputs_may_be_sold:
            raise PreconditionError(
                f"the setting commercial says that this is commercial use, which the terms of the world "
                f"{terms.world!r} ({_named(terms)}) forbid: {terms.sentence}"
            )
        if terms.is_restricted and terms.world not in self.accepted:
            raise PreconditionError(
                f"frames of the world {terms.world!r} ({_named(terms)}) need your consent to its terms: "
                f"{terms.sentence}. If your use keeps to them, add {terms.world!r} to the setting accepted_terms "
                f"(WORLD2VLM_ACCEPTED_TERMS='[\"{terms.world}\"]')"
            )


STRICT = Policy()
"""Accepts no terms: what is done where nobody says otherwise."""


def stamp(info: WorldInfo) -> dict[str, Any]:
    """What bundles say about the world they come from: JSON, read by `Terms.read`."""
    return {
        "world": info.name,
        "world_digest": info.digest,
        "licence": info.licence,
        "generative": info.generative,
        "terms": {
            "outputs_may_train": info.outputs_may_train,
            "outputs_may_be_sold": info.outputs_may_be_sold,
            "excluded_regions": list(info.excluded_regions),
            "text": info.terms,
        },
    }


def stamped_world(params: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a bundle's params that `stamp` wrote, as far as it is there."""
    return {key: params[key] for key in ("world", "world_digest", "licence", "generative", "terms") if key in params}


def distinct(stamps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Different stamps once each, in a fixed order."""
    return [found for _, found in sorted({canonical_json(each): dict(each) for each in stamps}.items())]


def _check_types(stamped: Any) -> None:
    if not isinstance(stamped, Mapping):
        raise DataCorruptedError(f"a stamp of a world's terms must be an object, not {stamped!r}")
    world, terms = stamped.get("world") or UNKNOWN, stamped.get("terms", {})
    found = [key for key in ("world", "world_digest", "licence") if not isinstance(stamped.get(key, ""), str)]
    if not isinstance(terms, Mapping):
        found.append("terms")
    else:
        found += [f"terms.{key}" for key, is_right in _RIGHT_TERMS.items() if key in terms and not is_right(terms[key])]
    if found:
        raise DataCorruptedError(
            f"the terms stamped by the world {world!r} cannot be read: malformed are {', '.join(found)}. Regions are a "
            "list of ISO 3166 alpha-2 codes, permissions true or false, all others text; imagine again, or mend the "
            "world's own description"
        )


def _are_regions(value: Any) -> bool:
    # A bare string would be read letter by letter, and exclude nobody.
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and all(isinstance(each, str) and re.fullmatch("[A-Z]{2}", each) for each in value)


_RIGHT_TERMS: Mapping[str, Callable[[Any], bool]] = {
    "outputs_may_train": lambda value: isinstance(value, bool),
    "outputs_may_be_sold": lambda value: isinstance(value, bool),
    "excluded_regions": _are_regions,
    "text": lambda value: isinstance(value, str),
}


def _named(terms: Terms) -> str:
    return terms.licence or "no licence known"
