import random
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from trainer.sampling import MAX_CANDIDATES, candidates, sample_actions
from world2vlm.actions import canonicalise
from world2vlm.cameras import integrate

SEEDS = st.integers(0, 10**6)


@given(SEEDS)
def test_actions_lie_on_the_grid_and_mix_turns_with_moves(seed: int) -> None:
    actions = sample_actions(random.Random(seed))
    turns = [action.magnitude for action in actions if action.primitive.is_turn]
    moves = [action.magnitude for action in actions if not action.primitive.is_turn]
    assert turns and moves and len(turns) + len(moves) == 3
    assert set(turns) <= {10, 20, 30, 40, 50, 60}
    assert set(moves) <= {0.2, 0.4, 0.6, 0.8, 1.0, 1.2}


@given(SEEDS)
def test_no_two_neighbours_merge(seed: int) -> None:
    actions = sample_actions(random.Random(seed))
    assert canonicalise(actions) == list(actions)


@given(SEEDS)
def test_the_camera_never_looks_more_than_60_degrees_away(seed: int) -> None:
    poses = integrate(sample_actions(random.Random(seed)))
    assert (poses[:, 2, 2] >= 0.5 - 1e-9).all()


def test_candidates_depend_on_the_seeds_and_nothing_else() -> None:
    assert list(candidates(1, 2, 3, 4)) == list(candidates(1, 2, 3, 4))
    first = next(candidates(1, 2, 3, 4))
    assert first.actions != next(candidates(2, 2, 3, 4)).actions
    assert first.actions != next(candidates(1, 3, 3, 4)).actions
    assert first.actions != next(candidates(1, 2, 0, 4)).actions


def test_trajectories_of_a_scene_never_share_an_anchor_and_move_on_after_rejections() -> None:
    anchors = [{candidate.anchor for candidate in candidates(0, 7, trajectory, 4)} for trajectory in range(4)]
    assert len(set.union(*anchors)) == sum(map(len, anchors)) == 16
    tried = list(candidates(0, 7, 1, 4))
    assert len(tried) == MAX_CANDIDATES
    assert [candidate.anchor for candidate in islice(tried, 6)] == [1, 1, 1, 1, 5, 5]
