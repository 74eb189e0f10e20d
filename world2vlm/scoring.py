"""Our own metrics: stricter than the published reward (`world2vlm.rewards`), exact parse, no credit for format."""

from world2vlm.actions import Action
from world2vlm.boxes import Box, iou
from world2vlm.errors import InvalidInputError
from world2vlm.tasks import Answer, parse_answer

TOLERANCE_M = 0.2
TOLERANCE_SHARE = 0.2
TOLERANCE_DEG = 10.0


def score(task: str, answer: str, response: str) -> dict[str, float]:
    """Score a response against the true answer.

    Args:
        task: code of the task.
        answer: the true answer's text; must parse.
        response: what the student said.

    Returns:
        `overall` in 0-1 and the parts: `parsed` always; `direction` for motions and sequences. A1/A2: right primitive
        and within tolerance. A3/D3: share of positions that are so, of the longer sequence. D1: IoU. Else exact match.

    Raises:
        InvalidInputError: unknown task, or `answer` is not one of its answers.
    """
    truth = parse_answer(task, answer)
    try:
        given = parse_answer(task, response)
    except InvalidInputError:
        directions = {"direction": 0.0} if isinstance(truth, tuple) else {}
        return {"overall": 0.0, "parsed": 0.0, **directions}
    return {"parsed": 1.0, **_score_parsed(truth, given)}


def _score_parsed(truth: Answer, given: Answer) -> dict[str, float]:
    if isinstance(truth, Box) and isinstance(given, Box):
        return {"overall": iou(truth, given)}
    if isinstance(truth, tuple) and isinstance(given, tuple):
        longer = max(len(truth), len(given))
        pairs = list(zip(truth, given, strict=False))
        return {
            "overall": sum(is_close(t, g) for t, g in pairs) / longer,
            "direction": sum(t.primitive is g.primitive for t, g in pairs) / longer,
        }
    return {"overall": float(truth == given)}


def is_close(truth: Action, given: Action) -> bool:
    """Whether the primitive agrees and the magnitude is within 10 degrees, or within 0.2 m or 20%."""
    if truth.primitive is not given.primitive:
        return False
    error = abs(truth.magnitude - given.magnitude)
    if truth.primitive.is_turn:
        return error <= TOLERANCE_DEG + 1e-9
    return error <= max(TOLERANCE_M, TOLERANCE_SHARE * truth.magnitude) + 1e-9
