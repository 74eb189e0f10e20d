"""Make a base student from nothing: collect views, pre-train, probe, and write the checkpoint with its card."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.base_card import write_card
from trainer.base_data import collect_views
from trainer.base_student import BaseConfig, pretrain
from trainer.views import Views
from world2vlm.clients.teacher import TeacherClient
from world2vlm.errors import InvalidInputError
from world2vlm.telemetry import progress
from world2vlm.vlm import StudentModel
from world2vlm.worlds import WorldInfo

_log = logging.getLogger(__name__)
_STEPS_BETWEEN_FIGURES = 250


@dataclass(frozen=True)
class Rooms:
    """Procedural rooms `first_seed` to `first_seed + rooms - 1`, each seen from its first `anchors` anchors."""

    first_seed: int
    rooms: int
    anchors: int

    def overlap(self, other: "Rooms") -> bool:
        """Whether a room is in both."""
        first, second = sorted((self, other), key=lambda rooms: rooms.first_seed)
        return second.first_seed < first.first_seed + first.rooms


def make_base_student(
    teacher: TeacherClient,
    config: BaseConfig,
    training: Rooms,
    held_out: Rooms,
    out: Path,
    cache: Path,
    probes_per_kind: int,
) -> dict[str, Any]:
    """Train on some rooms, probe on others, write `out`, and return its card.

    Args:
        teacher: whose default world for scenes renders the rooms.
        config: the recipe.
        training: what to learn from.
        held_out: what to probe on.
        out: folder of the checkpoint and `card.json`.
        cache: folder for views; an interrupted collection continues there.
        probes_per_kind: questions of each kind to probe with.

    Raises:
        InvalidInputError: the two share a room, or the teacher takes no scenes.
        World2VLMError: whatever the teacher raises.
    """
    if training.overlap(held_out):
        raise InvalidInputError("the rooms to learn from and those to probe on overlap: choose another first seed")
    world = _scene_world(teacher)
    views, probed = (_collect(teacher, rooms, config, cache / world.digest[:16]) for rooms in (training, held_out))
    with _advancing(config.steps) as on_progress:
        pretrain(config, views, out, on_progress)
    data = {
        "world": {"name": world.name, "digest": world.digest, "licence": world.licence},
        "training": {**asdict(training), "views": len(views.objects)},
        "held_out": asdict(held_out),
    }
    return write_card(out, config, data, StudentModel.load(out), probed, config.seed, probes_per_kind)


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


@contextmanager
def _advancing(steps: int) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """Progress of training: a bar or lines, and the running means now and then."""
    with progress("pre-training", steps) as advance:

        def on_progress(step: int, total: int, means: dict[str, float]) -> None:
            advance(1)
            if step % _STEPS_BETWEEN_FIGURES == 0 or step == total:
                _log.info("step %d: %s", step, ", ".join(f"{name} {value:.3f}" for name, value in means.items()))

        yield on_progress
