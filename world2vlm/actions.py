"""Egocentric actions: the six primitives, their texts, and the algebra on sequences of them (World2VLM, section 3)."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from world2vlm.errors import InvalidInputError

YAW_EPSILON_DEG = 1.0
TRANSLATION_EPSILON_M = 0.02


class Primitive(Enum):
    """The six primitives; the value is the long form's verb."""

    FORWARD = "move forward"
    BACKWARD = "move backward"
    LEFT = "move left"
    RIGHT = "move right"
    TURN_LEFT = "turn left"
    TURN_RIGHT = "turn right"

    @property
    def is_turn(self) -> bool:
        """Whether the magnitude is in degrees (a turn) and not in metres."""
        return self in (Primitive.TURN_LEFT, Primitive.TURN_RIGHT)

    @property
    def opposite(self) -> "Primitive":
        """The primitive that undoes this one."""
        return _OPPOSITE[self]


_OPPOSITE = {
    Primitive.FORWARD: Primitive.BACKWARD,
    Primitive.BACKWARD: Primitive.FORWARD,
    Primitive.LEFT: Primitive.RIGHT,
    Primitive.RIGHT: Primitive.LEFT,
    Primitive.TURN_LEFT: Primitive.TURN_RIGHT,
    Primitive.TURN_RIGHT: Primitive.TURN_LEFT,
}
_SHORT = {
    "FWD": Primitive.FORWARD,
    "BACK": Primitive.BACKWARD,
    "LEFT": Primitive.LEFT,
    "RIGHT": Primitive.RIGHT,
    "TL": Primitive.TURN_LEFT,
    "TR": Primitive.TURN_RIGHT,
}
_TO_SHORT = {primitive: name for name, primitive in _SHORT.items()}
# The primitive whose magnitude counts as positive on each axis.
_POSITIVE = (Primitive.FORWARD, Primitive.LEFT, Primitive.TURN_LEFT)
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+|nan|inf(?:inity)?)"
_LONG = re.compile(
    rf"(?:move\s+(?P<move>forward|backward|left|right)\s+(?P<metres>{_NUMBER})\s+meters?"
    rf"|turn\s+(?P<turn>left|right)\s+(?P<degrees>{_NUMBER})\s+degrees?)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Action:
    """One primitive with a magnitude, in metres for moves and in degrees for turns, finite and greater than 0."""

    primitive: Primitive
    magnitude: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.magnitude) or self.magnitude <= 0:
            raise InvalidInputError(f"an action's magnitude must be finite and greater than 0, not {self.magnitude}")

    def __str__(self) -> str:
        unit = "degrees" if self.primitive.is_turn else "meters"
        return f"{self.primitive.value} {format_magnitude(self.magnitude)} {unit}"

    @property
    def short(self) -> str:
        """World2VLM's file form, for example `FWD_0.5` or `TL_30`; exact, so that a third of a metre adds up again."""
        return f"{_TO_SHORT[self.primitive]}_{format_magnitude(self.magnitude, decimals=12)}"


def format_magnitude(value: float, decimals: int = 3) -> str:
    """Format without trailing zeros and, as World2VLM's questions do, with at most three decimals."""
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".")


def format_actions(actions: Iterable[Action]) -> str:
    """Join long forms with `; `, for example `move forward 0.5 meters; turn left 30 degrees`."""
    return "; ".join(map(str, actions))


def parse_actions(text: str) -> list[Action]:
    """Parse long forms separated by `;`, or short forms separated by `;`, `,` or blanks.

    Raises:
        InvalidInputError: no action, an unknown action, or a magnitude that is not finite and greater than 0.
    """
    if re.match(r"\s*[A-Za-z]+_", text):
        return [parse_short(token) for token in re.split(r"[;,\s]+", text.strip(" ;,\t\r\n"))]
    parts = [part.strip() for part in text.strip().rstrip(".;").split(";")]
    return [_parse_long(part) for part in parts]


def parse_short(token: str) -> Action:
    """Parse one short form such as `FWD_0.5`.

    Raises:
        InvalidInputError: an unknown name or a bad magnitude.
    """
    name, _, number = token.strip().partition("_")
    primitive = _SHORT.get(name.upper())
    if primitive is None:
        raise InvalidInputError(f"unknown action {token!r}; known are {', '.join(_SHORT)}")
    if re.fullmatch(_NUMBER, number, re.IGNORECASE) is None:
        raise InvalidInputError(f"bad magnitude in action {token!r}")
    return Action(primitive, float(number))


def _parse_long(part: str) -> Action:
    match = _LONG.fullmatch(part)
    if match is None:
        raise InvalidInputError(
            f"unknown action {part!r}; use 'move forward|backward|left|right X meters' or 'turn left|right X degrees'"
        )
    if match["move"]:
        return Action(Primitive(f"move {match['move'].lower()}"), float(match["metres"]))
    return Action(Primitive(f"turn {match['turn'].lower()}"), float(match["degrees"]))


def invert(actions: Sequence[Action]) -> list[Action]:
    """Return the sequence that leads back to the start: reversed, each primitive replaced by its opposite."""
    return [Action(action.primitive.opposite, action.magnitude) for action in reversed(actions)]


def canonicalise(actions: Iterable[Action]) -> list[Action]:
    """Merge neighbours on one axis and drop what is under 1 degree or 0.02 m, until nothing changes.

    World2VLM's rule, except that neighbours are merged before small ones are dropped: many small steps add up to a
    motion instead of vanishing, so the final pose is kept to the thresholds.
    """
    current = list(actions)
    while True:
        merged = _drop_small(_merge(current))
        if merged == current:
            return merged
        current = merged


def _signed(action: Action) -> tuple[Primitive, float]:
    if action.primitive in _POSITIVE:
        return action.primitive, action.magnitude
    return action.primitive.opposite, -action.magnitude


def _merge(actions: Iterable[Action]) -> list[Action]:
    stack: list[Action] = []
    for action in actions:
        if not stack or _signed(stack[-1])[0] is not _signed(action)[0]:
            stack.append(action)
            continue
        axis, before = _signed(stack.pop())
        # Whole nanometres: 0.1 + 0.2 must not drift away from 0.3 on a second pass.
        total = round(before + _signed(action)[1], 9)
        if total != 0:
            stack.append(Action(axis if total > 0 else axis.opposite, abs(total)))
    return stack


def _drop_small(actions: Iterable[Action]) -> list[Action]:
    return [
        action
        for action in actions
        if action.magnitude >= (YAW_EPSILON_DEG if action.primitive.is_turn else TRANSLATION_EPSILON_M)
    ]
