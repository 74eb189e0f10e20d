"""What a round is doing now, read from the store by anybody who can read it."""

import time

from rich.console import Console

from trainer.evaluation import markdown, table
from trainer.pieces import NO_TRAINING, next_step
from world2vlm.rounds import RoundState, Step
from world2vlm.steps_shown import STEPS, look, open_display
from world2vlm.store import Store

_POLL_SECONDS = 0.5
_JOB_STEPS: tuple[Step, ...] = ("imagine", "dataset")


def watch(store: Store, round_id: str, console: Console) -> Step:
    """Show a round's progress until it is over.

    Returns:
        How it ended: `done` or `stopped`.

    Raises:
        NotFoundError: no such round.
    """
    state = RoundState(store, round_id)
    is_job = state.plan().recipe == NO_TRAINING
    steps = {step: name for step, name in STEPS.items() if not is_job or step in _JOB_STEPS}
    with open_display(console, steps) as display:
        while True:
            where = look(store, state, next_step(state))
            display.show(where)
            if where.is_over:
                return where.step
            time.sleep(_POLL_SECONDS)


def outcome(state: RoundState) -> str:
    """One sentence on how a round that is over has ended, and which tasks its held-out questions say nothing of."""
    dataset = state.read_step("dataset") or {}
    missing = ", ".join(dataset.get("missing_tasks", []))
    return _outcome(state) + (f"; no held-out questions of the tasks {missing}" if missing else "")


def scores(state: RoundState) -> str:
    """The scores of a round before and after as a markdown table; empty where it has not evaluated."""
    evaluation = state.read_step("evaluation")
    if evaluation is None:
        return ""
    before, after, baselines = (evaluation[name] for name in ("before", "after", "baselines"))
    # Those of an older version do not say how many scenes there were.
    return markdown(table(before, after, baselines, evaluation["decision"].get("scenes")))


def _outcome(state: RoundState) -> str:
    stopped, promotion, dataset = state.stopped(), state.read_step("promotion"), state.read_step("dataset")
    if promotion is not None and promotion["promoted"]:
        return f"promoted: version {promotion['version']} serves in place of {promotion['from']}"
    if promotion is not None:
        return f"not promoted: {'; '.join(promotion['reasons'])}"
    if stopped is not None:
        return f"stopped: {stopped['reason']}"
    return f"dataset {dataset['digest']}: {dataset['records']} records" if dataset else "under way"
