"""Which scenes are trained on, and which are held out.

Scenes of photographs go by a hash of their names: a scene that was held out stays held out however many others come.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypeVar

from world2vlm.errors import InvalidInputError

T = TypeVar("T")
Split = Literal["train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")

MIN_SCENES = 3
"""One for each split."""
ENOUGH_TEST_SCENES = 5
"""So many held-out scenes say something of others, and a quarter of fewer than twenty is held out, rounded down."""
_TEST_SHARE, _CALIBRATION_SHARE = 0.15, 0.10


def split_scenes(names: Collection[str], earlier: Mapping[str, Split]) -> dict[str, Split]:
    """Share out scenes: about 15% to test on, 10% to calibrate on, and at least one in each split.

    Args:
        names: the scenes' names.
        earlier: the splits that scenes were in before; they stay there.

    Returns:
        Name -> split, the names sorted.

    Raises:
        InvalidInputError: fewer than three scenes, or no new one is left for a split that has none.
    """
    if len(set(names)) < MIN_SCENES:
        raise InvalidInputError(
            f"there are photographs of {len(set(names))} scene(s), but a round needs {MIN_SCENES} to train, calibrate "
            f"and test on different ones: put photographs of one place into one sub-folder, and add other places"
        )
    splits = {name: earlier.get(name) or _by_hash(name) for name in sorted(set(names))}
    fresh = sorted((name for name in splits if name not in earlier), key=_place)
    least = _least(len(splits))
    for wanted in ("test", "calibration", "train"):
        while (counts := Counter(splits.values()))[wanted] < least[wanted]:
            spare = [name for name in fresh if counts[splits[name]] > least[splits[name]]]
            if spare:
                splits[spare[0]] = wanted
            elif counts[wanted]:
                break
            else:
                raise InvalidInputError(
                    f"no scene is left for the split {wanted}: all were in others in earlier rounds, and stay there; "
                    f"add photographs of a new place"
                )
    return splits


def spread(groups: Sequence[Sequence[T]], most: int) -> list[T]:
    """The first `most` items, each group's first before any group's second."""
    turns = sorted((turn, index) for index, group in enumerate(groups) for turn in range(len(group)))
    return [groups[index][turn] for turn, index in turns[:most]]


def _least(scenes: int) -> dict[Split, int]:
    return {"train": 1, "calibration": 1, "test": max(1, min(ENOUGH_TEST_SCENES, scenes // 4))}


def _place(name: str) -> float:
    """A number from 0 to 1 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _by_hash(name: str) -> Split:
    place = _place(name)
    if place < _TEST_SHARE:
        return "test"
    return "calibration" if place < _TEST_SHARE + _CALIBRATION_SHARE else "train"
