"""From what the settings say of a remote world to the world."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from teacher_service import workers
from teacher_service.remote.digests import world_digest
from teacher_service.remote.launch import Launch, WorkerOptions
from teacher_service.remote.world import RemoteWorld
from teacher_service.worlds.registry import read_options
from world2vlm.errors import NotFoundError
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo


@dataclass(frozen=True)
class Model:
    """A model in a process and an environment of its own; nobody may train on what comes of it, or sell that.

    Attributes:
        name: the world's; its worker is `teacher_service.workers.<name>`.
        description: one sentence.
        licence: its name.
        terms: what it does not allow.
        needs: the packages that the environment must have beside the shared ones.
        remedy: the sentence that says how to make the environment.
        weights: the options that say where weights are.
        required: options without a default, and what each is to be set to.
        excluded_regions: where it may not be used.
    """

    name: str
    description: str
    licence: str
    terms: str
    needs: tuple[str, ...]
    remedy: str
    weights: tuple[str, ...]
    required: Mapping[str, str]
    excluded_regions: tuple[str, ...] = ()

    def make(self, settings: TeacherSettings, kind: type[WorkerOptions]) -> RemoteWorld:
        """Make the world.

        Args:
            settings: the teacher's.
            kind: the world's options.

        Raises:
            NotFoundError: its environment, or a required option, is not there; says how to make it.
            InvalidInputError: bad options.
        """
        options = read_options(settings, self.name, kind)
        launch = Launch(self.name, options, self.needs, self.remedy)
        launch.check()
        for name, what in self.required.items():
            if not getattr(options, name):
                raise NotFoundError(f"set world_options.{self.name}.{name} to {what}")
        return RemoteWorld.over(launch, self._info(options))

    def _info(self, options: WorkerOptions) -> WorldInfo:
        weights = [getattr(options, name) for name in self.weights]
        return WorldInfo(
            name=self.name,
            description=self.description,
            metric=False,
            generative=True,
            takes_scenes=False,
            takes_photos=True,
            licence=self.licence,
            outputs_may_train=False,
            outputs_may_be_sold=False,
            excluded_regions=self.excluded_regions,
            terms=self.terms,
            digest=world_digest(options.of_the_model(), weights, worker_folder(self.name)),
            lanes=1,
        )


def worker_folder(world: str) -> Path:
    """Where a world's worker is, and what its environment needs."""
    return Path(workers.__path__[0]) / world
