"""Make a base student from nothing: collect views, pre-train, probe, and write the checkpoint with its card."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.base_card import write_card
from trainer.base_config import BaseConfig, Rooms
from trainer.base_data import collect_views
from trainer.base_student import pretrain
from trainer.progress import Progress
from trainer.views import Views
from world2vlm.clients.teacher import TeacherClient
from world2vlm.errors import InvalidInputError
from world2vlm.licences import STRICT, Policy, Terms, stamp
from world2vlm.telemetry import progress
from world2vlm.vlm import StudentModel
from world2vlm.worlds import WorldInfo


def make_base_student(
    teacher: TeacherClient,
    config: BaseConfig,
    out: Path,
    cache: Path,
    on_progress: Progress,
    policy: Policy = STRICT,
) -> dict[str, Any]:
    """Train on some rooms, probe on others, write `out`, and return its card.

    Args:
        teacher: whose default world for scenes renders the rooms.
        config: the recipe.
        out: folder of the checkpoint and `card.json`.
        cache: folder for views; an interrupted collection continues there.
        on_progress: called after each step with (step, steps, running means).
        policy: whose terms are kept.

    Raises:
        PreconditionError: the world's terms are not acknowledged.
        InvalidInputError: the teacher takes no scenes.
        World2VLMError: whatever the teacher raises.
    """
    world = _scene_world(teacher)
    policy.check([Terms.read(stamp(world))])
    views, probed = (
        _collect(teacher, rooms, config, cache / world.digest[:16]) for rooms in (config.training, config.held_out)
    )
    pretrain(config, views, out, on_progress)
    data = {
        "world": {"name": world.name, "digest": world.digest, "licence": world.licence},
        "training": {**asdict(config.training), "views": len(views.objects)},
        "held_out": asdict(config.held_out),
    }
    return write_card(out, config, data, StudentModel.load(out), probed, config.seed, config.probes)


def _scene_world(teacher: TeacherClient) -> WorldInfo:
    for world in teacher.describe():
        if world.takes_scenes:
            return world
    raise InvalidInputError("the teacher has no world that takes scenes")


def _collect(teacher: TeacherClient, rooms: Rooms, config: BaseConfig, cache: Path) -> Views:
    sizes = config.student
    with progress(f"views of rooms from {rooms.first_seed}", rooms.rooms) as advance:
        return collect_views(
            teacher,
            rooms.first_seed,
            rooms.rooms,
            rooms.anchors,
            sizes.frame_size,
            sizes.frame_size // sizes.patch_size,
            cache,
            advance,
        )
