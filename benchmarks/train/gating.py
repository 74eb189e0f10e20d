"""What wrong views cost a student, and what of it the gates save."""

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.serve.findings import Claim, Part
from benchmarks.train.learning import BOTH, School
from benchmarks.train.spoiling import SHARE, Sets, make_sets
from trainer.evaluation import paired_bootstrap
from trainer.recipes import load_recipe

RECORDS = 30_000
_MOST_WRONG = 0.01


def by_gates(school: School, count: int = RECORDS) -> Part:
    """Train on a clean set, on one with a fifth of the key frames wrong, and on what the gates leave of such a one."""
    names = sorted({str(Path(record.images[0]).parents[1]) for record in school.train_records})
    random.Random(0).shuffle(names)
    spoiled, blind = school.work / "spoiled", school.work / "spoiled-no-depth"
    sets = make_sets(school.bundles, spoiled, names, count, with_depth=True)
    without = make_sets(school.bundles, blind, names, count, with_depth=False)
    trained = {
        "clean": school.train(load_recipe(BOTH), sets.clean),
        "spoiled": school.train(load_recipe(BOTH), sets.spoiled, spoiled),
        "gated": school.train(load_recipe(BOTH), sets.gated, spoiled),
    }
    figures: dict[str, Any] = {
        **school.describe,
        "share_of_key_frames_wrong": SHARE,
        "depth": _describe(sets),
        "no_depth": _describe(without),
        **{name: school.figures(each) for name, each in trained.items()},
    }
    for first, second in (("spoiled", "clean"), ("spoiled", "gated"), ("gated", "clean")):
        gain = paired_bootstrap(trained[first].scored, trained[second].scored, school.baselines, 0).macro
        figures[f"{second} over {first}"] = asdict(gain)
    shares = {"with depth": sets, "without": without}
    claims = [
        Claim(f"records that show a wrong view and survive, {name}", each.wrong["gated"] / len(each.gated), _MOST_WRONG)
        for name, each in shares.items()
    ]
    return Part(figures, claims)


def _describe(sets: Sets) -> dict[str, Any]:
    walked, accepted = sets.trajectories
    sizes = {name: len(getattr(sets, name)) for name in sets.wrong}
    return {"judged": walked, "accepted": accepted, "records": sizes, "of_them_show_a_wrong_view": sets.wrong}
