"""Plans of rounds."""

from datetime import UTC, date, datetime

from trainer.pieces import NO_TRAINING, next_step
from trainer.recipes import recipe_names
from world2vlm.checkpoints import Registry
from world2vlm.errors import InvalidInputError
from world2vlm.fullsize import check_takes_rounds
from world2vlm.rounds import SEED_BLOCK, RoundPlan, RoundState, list_rounds
from world2vlm.store import Store

PHOTO_WORLD = "geometric"


def make_plan(
    round_id: str,
    *,
    student: str,
    seed: int = RoundPlan.seed,
    train_scenes: int = RoundPlan.train_scenes,
    test_scenes: int = RoundPlan.test_scenes,
    calibration_scenes: int = RoundPlan.calibration_scenes,
    trajectories_per_scene: int = RoundPlan.trajectories_per_scene,
    scenes_per_shard: int = RoundPlan.scenes_per_shard,
    recipe: str = RoundPlan.recipe,
    steps: int = RoundPlan.steps,
    world: str = "",
    photos: str = "",
) -> RoundPlan:
    """A plan; see `RoundPlan`. An empty `world` is the one that ships for rooms, or for photographs.

    Raises:
        InvalidInputError: a value is out of range, there is no such recipe, or the world takes no photographs.
    """
    if photos:
        check_photo_world(world)
    if recipe not in (known := (*recipe_names(), NO_TRAINING)):
        raise InvalidInputError(f"unknown recipe {recipe!r}; known are {', '.join(known)}")
    return RoundPlan(
        id=round_id,
        seed=seed,
        train_scenes=train_scenes,
        test_scenes=test_scenes,
        calibration_scenes=calibration_scenes,
        trajectories_per_scene=trajectories_per_scene,
        scenes_per_shard=scenes_per_shard,
        recipe=recipe,
        steps=steps,
        world=world or (PHOTO_WORLD if photos else RoundPlan.world),
        student=student,
        photos=photos,
    )


def check_photo_world(world: str) -> None:
    """Refuse the world that takes no photographs, before anybody asks the teacher; it knows of others.

    Raises:
        InvalidInputError: it is the renderer.
    """
    if world == RoundPlan.world:
        raise InvalidInputError(
            f"the world {world!r} imagines procedural rooms and takes no photos: name another, such as {PHOTO_WORLD}"
        )


def create_round(store: Store, plan: RoundPlan) -> bool:
    """Create a round that its student can take; nothing changes where it is there.

    Returns:
        Whether it was not there.

    Raises:
        PreconditionError: the round exists with another plan, or see `check_takes_rounds`.
        InvalidInputError: the student that serves is of full size, which no round trains. Where none serves yet, and
            where another one does by then, `distil` says so.
        DataCorruptedError: see `check_takes_rounds`.
    """
    if plan.recipe != NO_TRAINING:
        registry = Registry(store, plan.student)
        serving = registry.serving()
        if serving is not None:
            check_takes_rounds(registry, serving)
    return RoundState(store, plan.id).create(plan)


def fresh_id(prefix: str) -> str:
    """An id that sorts by time, for example `round-20260131-235959`."""
    return f"{prefix}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def nightly_plan(student: str, day: date, world: str = "", photos: str = "") -> RoundPlan:
    """The round of a night: rooms that no other night's round has trained on, or other ways through photographs."""
    seed = day.toordinal() % SEED_BLOCK
    return make_plan(f"nightly-{day:%Y%m%d}", student=student, seed=seed, world=world, photos=photos)


def unfinished_rounds(store: Store) -> list[str]:
    """Ids of the rounds that still have something to do."""
    return [name for name in list_rounds(store) if next_step(RoundState(store, name)) not in ("done", "stopped")]
