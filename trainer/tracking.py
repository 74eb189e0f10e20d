"""Curves of a training where people look at them: TensorBoard, or MLflow, or Weights & Biases, through accelerate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
    def run(self, name: str, config: Mapping[str, Any]) -> Iterator[Log]:
        """Track one run; a run that continues under the same name goes on where its curves ended.

        Args:
            name: of the run, a folder's name.
            config: the recipe; nested tables become dotted keys.

        Yields:
            A function that takes the step, from 1, and the figures.

        Raises:
            InvalidInputError: a tracker's package is not installed.
        """
        with ExitStack() as running:
            trackers = [running.enter_context(self._tracker(each, name, config)) for each in self.names]

            def log(step: int, figures: Mapping[str, float]) -> None:
                if step % _EVERY == 0:
                    for tracker in trackers:
                        tracker.log(dict(figures), step=step)

            yield log

    @contextmanager
    def _tracker(self, kind: TrackerName, name: str, config: Mapping[str, Any]) -> Iterator[Any]:
        if find_spec(kind) is None:
            raise InvalidInputError(f"the tracker {kind!r} needs its package: pip install {kind}")
        from accelerate import tracking

        tracker: Any = {
            "tensorboard": lambda: tracking.TensorBoardTracker(name, self.folder),
            "mlflow": lambda: tracking.MLflowTracker(_PROJECT, run_name=name),
            "wandb": lambda: tracking.WandBTracker(_PROJECT, name=name, resume="allow"),
        }[kind]()
        tracker.start()
        try:
            tracker.store_init_configuration(_flat(config))
            yield tracker
        finally:
            tracker.finish()


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    found: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
