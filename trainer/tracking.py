"""Curves of a training where people look at them: TensorBoard, or MLflow, or Weights & Biases."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainer.progress import Progress
from world2vlm.errors import InvalidInputError
from world2vlm.settings import TrackerName

Log = Callable[[int, Mapping[str, float]], None]

_PROJECT = "world2vlm"
# A point each so many steps: every tracker writes to its disk or its server each time.
_EVERY = 10


@dataclass(frozen=True)
class Tracking:
    """Where curves go.

    Attributes:
        names: by Trainer's own names; none: nowhere.
        folder: for TensorBoard's files, one folder a run. MLflow and W&B read their own environment variables.
    """

    names: Sequence[TrackerName] = ()
    folder: Path = Path("runs/tracking")

    @contextmanager
    def run(self, name: str, config: Mapping[str, Any], on_progress: Progress) -> Iterator[Progress]:
        """Track one run; in TensorBoard one that continues under the same name goes on where its curves ended.

        Args:
            name: of the run, a folder's name.
            config: the recipe.
            on_progress: who else is told.

        Yields:
            What tells both.

        Raises:
            InvalidInputError: a tracker's package is not installed.
        """
        for missing in (each for each in self.names if find_spec(each) is None):
            raise InvalidInputError(f"the tracker {missing!r} needs its package: pip install {missing}")
        with ExitStack() as running:
            logs = [running.enter_context(_TRACKERS[each](self.folder, name, config)) for each in self.names]

            def tell(step: int, steps: int, figures: dict[str, float]) -> None:
                on_progress(step, steps, figures)
                if step % _EVERY == 0:
                    for log in logs:
                        log(step, figures)

            yield tell


@contextmanager
def _tensorboard(folder: Path, name: str, config: Mapping[str, Any]) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / name) as writer:
        writer.add_text("recipe", f"```\n{json.dumps(config, indent=2)}\n```")

        def log(step: int, figures: Mapping[str, float]) -> None:
            for key, value in figures.items():
                writer.add_scalar(key, value, step)

        yield log


@contextmanager
def _mlflow(_folder: Path, name: str, config: Mapping[str, Any]) -> Iterator[Log]:
    import mlflow

    mlflow.set_experiment(_PROJECT)
    with mlflow.start_run(run_name=name):
        mlflow.log_dict(dict(config), "recipe.json")
        yield lambda step, figures: mlflow.log_metrics(dict(figures), step=step)


@contextmanager
def _wandb(_folder: Path, name: str, config: Mapping[str, Any]) -> Iterator[Log]:
    import wandb

    with wandb.init(project=_PROJECT, name=name, config=dict(config)) as run:
        yield lambda step, figures: run.log(dict(figures), step=step)


_TRACKERS: Mapping[TrackerName, Callable[[Path, str, Mapping[str, Any]], AbstractContextManager[Log]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
