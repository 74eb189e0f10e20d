"""How large a demonstration is."""

from dataclasses import dataclass

from world2vlm.rounds import RoundPlan


@dataclass(frozen=True)
class DemoSize:
    """One round and the questions asked meanwhile.

    Attributes:
        train_scenes: rooms to train on.
        test_scenes: rooms held out.
        calibration_scenes: rooms to fit probabilities on.
        trajectories_per_scene: trajectories of three actions in each room.
        scenes_per_shard: rooms one task imagines.
        recipe: training recipe.
        background_rate: questions a second while the round imagines and trains.
        swap_rate: questions a second from shortly before the swap on.
        steady_seconds: how long to keep asking at `swap_rate` after the swap, with nothing else running.
    """

    train_scenes: int
    test_scenes: int
    calibration_scenes: int
    trajectories_per_scene: int
    scenes_per_shard: int
    recipe: str
    background_rate: float = 1.0
    swap_rate: float = 20.0
    steady_seconds: float = 20.0


FULL = DemoSize(
    train_scenes=RoundPlan.train_scenes,
    test_scenes=RoundPlan.test_scenes,
    calibration_scenes=RoundPlan.calibration_scenes,
    trajectories_per_scene=RoundPlan.trajectories_per_scene,
    scenes_per_shard=RoundPlan.scenes_per_shard,
    recipe=RoundPlan.recipe,
)
MINI = DemoSize(
    train_scenes=12,
    test_scenes=4,
    calibration_scenes=2,
    trajectories_per_scene=3,
    scenes_per_shard=3,
    recipe="smoke",
)
