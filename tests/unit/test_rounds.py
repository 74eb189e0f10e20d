import dataclasses
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError, PreconditionError
from world2vlm.records import TaskRecord
from world2vlm.rounds import CALIBRATION_SEED, HELD_OUT_SEED, STEP_FILES, Event, RoundPlan, RoundState, list_rounds
from world2vlm.store import Store

PLAN = RoundPlan(
    id="r1",
    seed=3,
    train_scenes=5,
    test_scenes=3,
    calibration_scenes=2,
    trajectories_per_scene=2,
    scenes_per_shard=2,
    recipe="demo",
    steps=100,
    world="renderer",
    student="student",
)
RECORDS = [TaskRecord.create("A1", "How far?", "move forward 1 meters", ["a.png", "b.png"], {"scene": "3"})]

sizes = st.integers(1, 40)
plans = st.builds(
    dataclasses.replace,
    st.just(PLAN),
    seed=st.integers(0, 999_999),
    train_scenes=sizes,
    test_scenes=sizes,
    calibration_scenes=sizes,
    scenes_per_shard=st.integers(1, 9),
)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def state(store: Store) -> RoundState:
    state = RoundState(store, "r1")
    state.create(PLAN)
    return state


@given(plans)
def test_shards_share_out_all_scenes_and_no_scene_twice(plan: RoundPlan) -> None:
    seeds = [seed for shard in plan.shards for seed in shard.scene_seeds]
    by_split = {
        split: [seed for shard in plan.shards if shard.split == split for seed in shard.scene_seeds]
        for split in ("train", "calibration", "test")
    }
    assert len(set(seeds)) == len(seeds)
    assert len(by_split["train"]) == plan.train_scenes
    assert by_split["calibration"] == list(range(CALIBRATION_SEED, CALIBRATION_SEED + plan.calibration_scenes))
    assert by_split["test"] == list(range(HELD_OUT_SEED, HELD_OUT_SEED + plan.test_scenes))
    assert all(1 <= len(shard.scene_seeds) <= plan.scenes_per_shard for shard in plan.shards)
    assert [shard.index for shard in plan.shards] == list(range(len(plan.shards)))


@given(plans, st.integers(0, 999_999))
def test_rounds_of_other_seeds_train_on_other_scenes_and_hold_out_the_same(plan: RoundPlan, seed: int) -> None:
    other = dataclasses.replace(plan, seed=seed)
    train, other_train = (
        {seed for shard in each.shards if shard.split == "train" for seed in shard.scene_seeds}
        for each in (plan, other)
    )
    assert train == other_train if seed == plan.seed else not train & other_train


@given(plans)
def test_a_plan_reads_back_as_it_was(plan: RoundPlan) -> None:
    assert RoundPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "../r1"},
        {"seed": -1},
        {"seed": 1_000_000},
        {"train_scenes": 0},
        {"test_scenes": 1_000_001},
        {"calibration_scenes": 0},
        {"trajectories_per_scene": 0},
        {"scenes_per_shard": 0},
        {"steps": -1},
        {"steps": "many"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_bad_plan_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        RoundPlan.from_json({**PLAN.to_json(), **change})


def test_a_round_is_created_once(store: Store, state: RoundState) -> None:
    state.create(PLAN)
    assert state.plan() == PLAN
    with pytest.raises(PreconditionError, match="another plan"):
        state.create(dataclasses.replace(PLAN, seed=4))
    assert state.plan() == PLAN
    assert list_rounds(store) == ["r1"]


def test_a_plan_belongs_to_its_round(store: Store) -> None:
    with pytest.raises(InvalidInputError):
        RoundState(store, "r2").create(PLAN)


def test_an_unknown_round_is_not_found(store: Store) -> None:
    state = RoundState(store, "nowhere")
    for call in (state.plan, state.status, state.missing_shards):
        with pytest.raises(NotFoundError):
            call()
    assert list_rounds(store) == []


def test_a_broken_plan_is_corrupted_data(store: Store, state: RoundState) -> None:
    store.write_json("rounds/r1/plan.json", {"id": "r1"})
    with pytest.raises(DataCorruptedError, match=r"plan\.json"):
        state.plan()


def test_what_comes_next_follows_from_the_files(store: Store, state: RoundState) -> None:
    assert len(PLAN.shards) == 6
    assert state.missing_shards() == [0, 1, 2, 3, 4, 5]
    for index in (3, 0, 5, 4, 1):
        state.write_shard(index, RECORDS, {})
        assert state.status() == "imagine"
    assert state.missing_shards() == [2]
    state.write_shard(2, [], {"rejected": 2})
    for expected, name in zip(("dataset", "distil", "evaluate", "promote"), STEP_FILES, strict=True):
        # Another process, or this one after a crash, sees the same.
        assert RoundState(store, "r1").status() == expected
        assert state.read_step(name) is None
        state.write_step(name, {"step": name})
        assert state.read_step(name) == {"step": name}
    assert state.status() == "done"


def test_a_shard_that_went_missing_is_imagined_again(store: Store, state: RoundState) -> None:
    for index in range(6):
        state.write_shard(index, RECORDS, {})
    state.write_step("dataset", {})
    store.delete(state.shard_path(4))
    assert state.status() == "imagine"
    assert state.missing_shards() == [4]


def test_the_first_result_of_a_shard_stands(state: RoundState) -> None:
    state.write_shard(1, RECORDS, {"rejected": {"collision": 1}})
    state.write_shard(1, [], {"rejected": {}})
    assert state.read_shard(1) == (RECORDS, {"rejected": {"collision": 1}})
    with pytest.raises(NotFoundError):
        state.read_shard(0)


@pytest.mark.parametrize("content", [[], {}, {"records": [1], "figures": {}}, {"records": [], "figures": 1}])
def test_a_broken_shard_is_corrupted_data(store: Store, state: RoundState, content: object) -> None:
    store.write_json(state.shard_path(0), content)
    with pytest.raises(DataCorruptedError, match=r"000\.json"):
        state.read_shard(0)


def test_the_first_result_of_a_step_stands(state: RoundState) -> None:
    assert state.write_step("training", {"version": 2}) == {"version": 2}
    assert state.write_step("training", {"version": 3}) == {"version": 2}
    assert state.read_step("training") == {"version": 2}


def test_an_unknown_step_is_refused(state: RoundState) -> None:
    with pytest.raises(InvalidInputError, match="unknown step 'plan'"):
        state.write_step("plan", {})
    with pytest.raises(InvalidInputError):
        state.read_step("../r2/dataset")


def test_a_round_stops_once_with_its_reason(state: RoundState) -> None:
    assert state.stopped() is None
    state.stop("skill fell", gate="skill", figure=-0.1)
    state.stop("another reason")
    stopped = state.stopped()
    assert stopped is not None
    assert (stopped["reason"], stopped["figures"]) == ("skill fell", {"gate": "skill", "figure": -0.1})
    assert state.status() == "stopped"


def test_a_promoted_round_is_done_whatever_comes_after(state: RoundState) -> None:
    state.write_step("promotion", {"version": 2})
    state.stop("too late")
    assert state.status() == "done"


def test_events_are_kept_in_order(state: RoundState) -> None:
    assert state.events() == []
    for index in range(5):
        state.log_event("shard done", index=index)
    state.log_event("dataset published")
    events = state.events()
    assert [event.figures for event in events] == [*({"index": index} for index in range(5)), {}]
    assert events[-1] == Event(events[-1].at, "dataset published", {})
    assert [event.at for event in events] == sorted(event.at for event in events)


@pytest.mark.parametrize("id", ["", ".", "..", "a/b", "a b"])
def test_a_bad_id_is_refused(store: Store, id: str) -> None:
    with pytest.raises(InvalidInputError):
        RoundState(store, id)
