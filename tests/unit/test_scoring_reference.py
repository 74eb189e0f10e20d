"""Both yardsticks against 5,000 generated answers, by formulas written for this test alone.

The formulas read no text: each answer is drawn as a structure, scored from it (in exact fractions where that is
possible), and only then written down, in one of several ways, for the code under test.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import pytest

from world2vlm.rewards import reward
from world2vlm.scoring import score

ANSWERS = 5000
MOVES = ("move forward", "move backward", "move left", "move right")
TURNS = ("turn left", "turn right")
Motion = tuple[str, Fraction]
Corners = tuple[int, int, int, int]


@dataclass(frozen=True)
class Case:
    """A true answer and a response as text, and what they must score: ours, and the published reward."""

    task: str
    answer: str
    response: str
    strict: float
    published: float


def decimal(value: Fraction) -> str:
    return f"{float(value):g}"


def write_motions(motions: Sequence[Motion]) -> str:
    return "; ".join(f"{name} {decimal(size)} {'meters' if name in MOVES else 'degrees'}" for name, size in motions)


def draw_motion(rng: random.Random, names: Sequence[str]) -> Motion:
    name = rng.choice(names)
    return name, Fraction(rng.randint(1, 30), 10) if name in MOVES else Fraction(rng.randint(1, 36) * 5, 2)


def near(rng: random.Random, motion: Motion) -> Motion:
    """The motion, a little or far off, or another."""
    name, size = motion
    if rng.random() < 0.15:
        name = rng.choice(MOVES if name in MOVES else TURNS)
    step = Fraction(1, 10) if name in MOVES else Fraction(5, 2)
    return name, max(step, size + step * rng.randint(-5, 5))


def close(truth: Motion, given: Motion) -> bool:
    slack = Fraction(10) if truth[0] in TURNS else max(Fraction(1, 5), truth[1] / 5)
    return truth[0] == given[0] and abs(truth[1] - given[1]) <= slack


def ramp(truth: Motion, given: Motion) -> Fraction:
    """The published numeric part: free up to `low`, nothing from `high` on."""
    low, high = (Fraction(5), Fraction(90)) if truth[0] in TURNS else (Fraction(1, 2), Fraction(5))
    error = abs(truth[1] - given[1])
    return Fraction(0) if truth[0] != given[0] else min(Fraction(1), max(Fraction(0), (high - error) / (high - low)))


def wrap(rng: random.Random, text: str) -> tuple[str, bool]:
    """A way to say it, and whether it is still nothing but the answer."""
    ways = [(text, True), (text.capitalize() + ".", True), (f"I think it is {text}", False), (f"{text} I guess", False)]
    return rng.choices(ways, (4, 2, 1, 1))[0]


def single_motion(rng: random.Random) -> Case:
    task = rng.choice(("A1", "A2"))
    truth = draw_motion(rng, MOVES if task == "A1" else TURNS)
    given = [near(rng, truth) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
    if given and rng.random() < 0.2:
        given[0] = draw_motion(rng, TURNS if task == "A1" else MOVES)
    text, alone = wrap(rng, write_motions(given)) if given else ("no idea", False)
    fits = alone and len(given) == 1 and (given[0][0] in MOVES) == (task == "A1")
    named = any(motion[0] == truth[0] for motion in given)
    best = max((ramp(truth, motion) for motion in given), default=Fraction(0))
    published = Fraction(10 * bool(given) + 35 * named, 100) + Fraction(55, 100) * best
    return Case(task, write_motions([truth]), text, float(fits and close(truth, given[0])), float(published))


def sequence(rng: random.Random) -> Case:
    truth = [draw_motion(rng, MOVES + TURNS) for _ in range(rng.randint(1, 3))]
    given = [near(rng, motion) for motion in truth]
    for _ in range(rng.choice((0, 0, 1, 2))):
        given.insert(rng.randint(0, len(given)), draw_motion(rng, MOVES + TURNS))
    if rng.random() < 0.2:
        given = given[: rng.randint(0, len(given) - 1)]
    if rng.random() < 0.2:
        rng.shuffle(given)
    text, alone = wrap(rng, write_motions(given)) if given else ("straight on", False)
    met = range(min(len(truth), len(given)))
    strict = Fraction(sum(close(truth[i], given[i]) for i in met), max(len(truth), len(given))) if alone else 0
    # What two bags share: each name as often as it is in both.
    shared = sum(min(sum(m[0] == n for m in truth), sum(m[0] == n for m in given)) for n in MOVES + TURNS)
    placed = sum(truth[i][0] == given[i][0] for i in met)
    size = sum((ramp(truth[i], given[i]) for i in met), Fraction(0))
    published = Fraction(10 * bool(given), 100) + Fraction(25, 100) * Fraction(shared, max(len(truth), len(given)))
    published += Fraction(35, 100) * Fraction(placed, len(truth)) + Fraction(30, 100) * size / len(truth)
    published -= Fraction(3, 100) * max(0, len(given) - len(truth))
    return Case(rng.choice(("A3", "D3")), write_motions(truth), text, float(strict), float(max(published, Fraction(0))))


def yes_or_no(rng: random.Random) -> Case:
    task = rng.choice(("A4", "D2", "D4"))
    words = ("true", "false") if task == "A4" else ("yes", "no")
    truth = rng.choice(words)
    said = rng.choice((*words, *words, "yes", "no", "true", "false", "perhaps", "yes and no"))
    tail = rng.choice(("", ".", "!", " "))
    agrees = (said in ("yes", "true")) == (truth in ("yes", "true"))
    reads = said in ("yes", "no", "true", "false")
    strict = said in words and tail != "!" and agrees
    published = (20 + 80 * agrees) / 100 if reads else 0.0
    return Case(task, truth, rng.choice((said, said.upper())) + tail, float(strict), published)


def draw_box(rng: random.Random) -> Corners:
    x1, y1 = rng.randint(0, 900), rng.randint(0, 900)
    return x1, y1, rng.randint(x1 + 1, 1000), rng.randint(y1 + 1, 1000)


def box(rng: random.Random) -> Case:
    truth = draw_box(rng)
    shift = rng.choice((0, 10, 60, 300))
    values = [value + rng.randint(-shift, shift) for value in truth]
    if rng.random() < 0.15:
        values[0], values[2] = values[2], values[0]
    given = (values[0], values[1], values[2], values[3])
    plain = "[" + ", ".join(map(str, given)) + "]"
    text, alone, form = rng.choice(((plain, True, 1.0), (f"bbox {plain}", False, 1.0), (f"at {plain}", False, 0.4)))
    valid = 0 <= given[0] < given[2] <= 1000 and 0 <= given[1] < given[3] <= 1000
    strict = float(shared_area(truth, given)) if alone and valid else 0.0
    return Case("D1", str(list(truth)), text, strict, published_box(truth, given, form))


def shared_area(a: Corners, b: Corners) -> Fraction:
    """IoU by counting thousandths: those in both over those in either, side by side."""
    sides = [(set(range(a[axis], a[axis + 2])), set(range(b[axis], b[axis + 2]))) for axis in (0, 1)]
    both = math.prod(len(one & other) for one, other in sides)
    either = math.prod(len(one) for one, _ in sides) + math.prod(len(other) for _, other in sides) - both
    return Fraction(both, either) if either else Fraction(0)


def published_box(truth: Corners, said: Corners, form: float) -> float:
    """From the published definition: 0.20 format + 0.15 validity + 0.65 geometry."""
    outside = [value - 1000 if value > 1000 else -value if value < 0 else 0 for value in said]
    in_order = said[0] < said[2] and said[1] < said[3]
    validity = (0.7 if in_order else 0.0) + 0.3 * max(0.0, 1 - sum(outside) / 4 / 200)
    inside = [min(1000, max(0, value)) for value in said]
    xs, ys = sorted(inside[0::2]), sorted(inside[1::2])
    given = (xs[0], ys[0], xs[1], ys[1])
    width, height = truth[2] - truth[0], truth[3] - truth[1]
    centres = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (truth, given)]
    reach = max(80.0, 0.6 * (width**2 + height**2) ** 0.5)
    centre = max(0.0, 1 - math.dist(*centres) / reach)
    ratios = (max(1, given[2] - given[0]) / max(1, width), max(1, given[3] - given[1]) / max(1, height))
    size = max(0.0, 1 - sum(abs(math.log(ratio)) for ratio in ratios) / 1.6)
    corners = max(0.0, 1 - sum(abs(t - g) for t, g in zip(truth, given, strict=True)) / 4 / 180)
    overlap = float(shared_area(truth, given))
    geometry = (0.45 * overlap + 0.2 * centre + 0.2 * corners + 0.15 * size) * (0.3 + 0.7 * validity)
    return 0.2 * form + 0.15 * validity + 0.65 * geometry


def cases() -> list[Case]:
    rng = random.Random(0)
    return [rng.choice((single_motion, sequence, yes_or_no, box))(rng) for _ in range(ANSWERS)]


def test_both_yardsticks_agree_with_the_formulas() -> None:
    drawn = cases()
    for case in drawn:
        strict = score(case.task, case.answer, case.response)["overall"]
        assert strict == pytest.approx(case.strict, abs=1e-9), case
        published = reward(case.task, case.answer, case.response)["overall"]
        assert published == pytest.approx(case.published, abs=1e-9), case
    # A test that draws easy cases only would show nothing.
    for task in ("A1", "A2", "A3", "A4", "D1", "D2", "D3", "D4"):
        strict_scores = [case.strict for case in drawn if case.task == task]
        assert len(strict_scores) > 200 and 0.15 < sum(map(bool, strict_scores)) / len(strict_scores) < 0.9
