"""Transitions: every ordered pair of key frames of a bundle, forwards and backwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from world2vlm.actions import Action, invert
from world2vlm.boxes import SCALE
from world2vlm.bundles import Bundle, ObjectView
from world2vlm.errors import InvalidInputError

MIN_AREA = 0.006
"""Share of the image's pixels from which on an object counts as clearly visible."""
MAX_BOX_SHARE = 0.6
"""Share of the image above which a box says too little about where the object is."""
MAX_ACTIONS = 3


@dataclass(frozen=True)
class Transition:
    """Two key frames of one trajectory and the actions that lead from the first to the second.

    Attributes:
        scene: the scene's name.
        trajectory: the trajectory's id within the scene.
        frames: indices (first, second) in the bundle; the second may be the earlier one.
        images: paths (first, second) relative to the folder that holds all bundles.
        actions: 1 to 3 canonical actions.
        before: the objects in the first frame, from a single pixel on.
        after: the objects in the second frame, from a single pixel on.
    """

    scene: str
    trajectory: str
    frames: tuple[int, int]
    images: tuple[str, str]
    actions: tuple[Action, ...]
    before: tuple[ObjectView, ...]
    after: tuple[ObjectView, ...]

    @cached_property
    def seen_after(self) -> Mapping[int, ObjectView]:
        """The objects of the second frame by instance id."""
        return {view.instance_id: view for view in self.after}


def is_clear(view: ObjectView) -> bool:
    """Whether an object can be asked about: enough of its pixels are visible and its box is not most of the image."""
    return view.area >= MIN_AREA and view.box.area <= MAX_BOX_SHARE * SCALE * SCALE


def transitions(bundle: Bundle) -> list[Transition]:
    """List all ordered pairs of key frames that 1 to 3 canonical actions connect, each followed by its reverse.

    The reverse swaps the frames and inverts the actions, which is exact for the six egocentric primitives.

    Raises:
        InvalidInputError: a key frame doesn't say where its image is (the bundle was never written and read back).
    """
    keys = [index for index, frame in enumerate(bundle.frames) if frame.key_frame]
    found = []
    for first, second in combinations(keys, 2):
        actions = bundle.actions_between(first, second)
        if 1 <= len(actions) <= MAX_ACTIONS:
            found.append(_transition(bundle, first, second, actions))
            found.append(_transition(bundle, second, first, invert(actions)))
    return found


def _transition(bundle: Bundle, first: int, second: int, actions: Sequence[Action]) -> Transition:
    return Transition(
        scene=bundle.scene,
        trajectory=bundle.trajectory,
        frames=(first, second),
        images=(_image(bundle, first), _image(bundle, second)),
        actions=tuple(actions),
        before=bundle.frames[first].objects,
        after=bundle.frames[second].objects,
    )


def _image(bundle: Bundle, index: int) -> str:
    path = bundle.frames[index].path
    if not path:
        raise InvalidInputError(f"{bundle.relative_path}: frame {index} has no path; read the bundle from disk first")
    return (bundle.relative_path / path).as_posix()
