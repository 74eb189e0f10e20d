"""World2VLM's published reward (arXiv 2604.26934, repository WanyueZhang-ai/World2VLM, `worldvlm_reward.py`).

It is lenient: motions and boxes are found inside other text, and the right format alone earns credit. Training with
GRPO uses it so that results compare; what a student is worth is measured with `world2vlm.scoring`.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from world2vlm.tasks import AnswerKind, get_task

MAX_RESPONSE_CHARACTERS = 200
TOO_LONG = -1.0

Corners = tuple[float, float, float, float]

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_MOTION = re.compile(
    rf"(?P<move>move\s+(?:forward|backward|left|right))\s+(?P<metres>{_NUMBER})\s+meters?"
    rf"|(?P<turn>turn\s+(?:left|right))\s+(?P<degrees>{_NUMBER})\s+degrees?"
)
_BOX = re.compile(rf"(?:bbox\s*)?\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]", re.IGNORECASE)
_WORDS = {"yes": True, "true": True, "no": False, "false": False}
_BOX_PARTS = ("format", "validity", "geometry", "iou", "center", "size", "l1")


@dataclass(frozen=True)
class _Motion:
    name: str
    value: float

    def numeric(self, given: "_Motion") -> float:
        """1 up to 5 degrees or 0.5 m of error, 0 from 90 degrees or 5 m, linear between; 0 for another primitive."""
        if given.name != self.name:
            return 0.0
        low, high = (5.0, 90.0) if self.name.startswith("turn") else (0.5, 5.0)
        return _clip(1 - (abs(given.value - self.value) - low) / (high - low), 0.0, 1.0)


def reward(task_type: str, answer: str, response: str) -> dict[str, float]:
    """Reward a response as World2VLM's GRPO does.

    Args:
        task_type: code of the task.
        answer: the true answer's text.
        response: what the student said.

    Returns:
        `overall`, 0 to 1, or -1 for a response of over 200 characters, and its parts, each 0 to 1: `format` always;
        `action`, `numeric` (A1, A2; with `order`: A3, D3); `accuracy` (A4, D2, D4); `validity`, `geometry`, `iou`,
        `center`, `size`, `l1` (D1). All are 0 where the true answer cannot be read.

    Raises:
        InvalidInputError: unknown task.
    """
    kind = get_task(task_type).kind
    response = response.strip()
    if len(response) > MAX_RESPONSE_CHARACTERS:
        return {"overall": TOO_LONG, "format": 0.0}
    return _REWARDS[kind](answer, response)


def _motion_reward(answer: str, response: str) -> dict[str, float]:
    truth, given = _motions(answer), _motions(response)
    if not truth:
        return dict.fromkeys(("overall", "format", "action", "numeric"), 0.0)
    parts = {
        "format": float(bool(given)),
        "action": float(any(motion.name == truth[0].name for motion in given)),
        "numeric": max(map(truth[0].numeric, given), default=0.0),
    }
    return {"overall": 0.10 * parts["format"] + 0.35 * parts["action"] + 0.55 * parts["numeric"], **parts}


def _sequence_reward(answer: str, response: str) -> dict[str, float]:
    truth, given = _motions(answer), _motions(response)
    if not truth:
        return dict.fromkeys(("overall", "format", "action", "order", "numeric"), 0.0)
    pairs = list(zip(truth, given, strict=False))
    shared = Counter(motion.name for motion in truth) & Counter(motion.name for motion in given)
    parts = {
        "format": float(bool(given)),
        "action": shared.total() / max(len(truth), len(given)),
        "order": sum(t.name == g.name for t, g in pairs) / len(truth),
        "numeric": sum(t.numeric(g) for t, g in pairs) / len(truth),
    }
    overall = 0.10 * parts["format"] + 0.25 * parts["action"] + 0.35 * parts["order"] + 0.30 * parts["numeric"]
    extra = max(0, len(given) - len(truth))
    return {"overall": max(0.0, overall - 0.03 * extra), **parts}


def _binary_reward(answer: str, response: str) -> dict[str, float]:
    truth, given = _WORDS.get(_normalise(answer)), _WORDS.get(_normalise(response))
    if truth is None:
        return dict.fromkeys(("overall", "format", "accuracy"), 0.0)
    parts = {"format": float(given is not None), "accuracy": float(given == truth)}
    return {"overall": 0.20 * parts["format"] + 0.80 * parts["accuracy"], **parts}


def _box_reward(answer: str, response: str) -> dict[str, float]:
    true_box, given_box = _find_box(answer), _find_box(response)
    zero = dict.fromkeys(("overall", *_BOX_PARTS), 0.0)
    # Without a box in the response the format is 0 too, and with it everything.
    if true_box is None or given_box is None:
        return zero
    truth, _ = _canonical(true_box)
    given, validity = _canonical(given_box)
    form = 1.0 if _BOX.fullmatch(response) else 0.4
    parts = {
        "iou": _iou(truth, given),
        "center": _centre_score(truth, given),
        "l1": max(0.0, 1 - sum(abs(t - g) for t, g in zip(truth, given, strict=True)) / 4 / 180),
        "size": _size_score(truth, given),
    }
    geometry = 0.45 * parts["iou"] + 0.20 * parts["center"] + 0.20 * parts["l1"] + 0.15 * parts["size"]
    geometry *= 0.3 + 0.7 * validity
    overall = 0.20 * form + 0.15 * validity + 0.65 * geometry
    return {"overall": overall, "format": form, "validity": validity, "geometry": geometry, **parts}


_REWARDS: dict[AnswerKind, Callable[[str, str], dict[str, float]]] = {
    AnswerKind.MOTION: _motion_reward,
    AnswerKind.SEQUENCE: _sequence_reward,
    AnswerKind.BINARY: _binary_reward,
    AnswerKind.BOX: _box_reward,
}


def _normalise(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip().lower().rstrip(' \t\r\n.,;:!?"'))


def _motions(text: str) -> list[_Motion]:
    return [
        _Motion(match["move"] or match["turn"], float(match["metres"] or match["degrees"]))
        for match in _MOTION.finditer(_normalise(text))
    ]


def _find_box(text: str) -> Corners | None:
    match = _BOX.search(text)
    if match is None:
        return None
    x1, y1, x2, y2 = map(float, match.groups())
    return x1, y1, x2, y2


def _canonical(box: Corners) -> tuple[Corners, float]:
    """Sort and clip the corners to 0-1000; also how valid the box was before that, 0 to 1."""
    x1, y1, x2, y2 = box
    ordered = float(x1 < x2 and y1 < y2)
    overflow = sum(max(0.0, -value, value - 1000) for value in box) / 4
    validity = 0.7 * ordered + 0.3 * max(0.0, 1 - overflow / 200)
    x1, x2 = sorted((x1, x2))
    y1, y2 = sorted((y1, y2))
    return (_clip(x1, 0, 1000), _clip(y1, 0, 1000), _clip(x2, 0, 1000), _clip(y2, 0, 1000)), validity


def _iou(a: Corners, b: Corners) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def _centre_score(truth: Corners, given: Corners) -> float:
    distance = math.hypot(truth[0] + truth[2] - given[0] - given[2], truth[1] + truth[3] - given[1] - given[3]) / 2
    return max(0.0, 1 - distance / max(80.0, 0.6 * math.hypot(*_sides(truth))))


def _size_score(truth: Corners, given: Corners) -> float:
    error = sum(abs(math.log(g / t)) for t, g in zip(_sides(truth), _sides(given), strict=True))
    return max(0.0, 1 - error / 1.6)


def _sides(box: Corners) -> tuple[float, float]:
    return max(1.0, box[2] - box[0]), max(1.0, box[3] - box[1])


def _clip(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))
