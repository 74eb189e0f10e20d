"""The model repository on disk: version folders that appear and vanish whole.

Beside the repository lies `<repository>.state/`: folders being made or thrown away, the numbers given out, and what was
accepted (`accepted.json`). A version number is a Triton version; the checkpoint in it has a version of its own.
"""

import fcntl
import json
import os
import py_compile
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import student_service
from student_service.triton.wire import STREAM_MODEL, UNARY_MODEL
from world2vlm.adapters import whole
from world2vlm.checkpoints import Registry
from world2vlm.errors import DataCorruptedError, PreconditionError
from world2vlm.files import temporary_name, write_atomically
from world2vlm.settings import StudentSettings
from world2vlm.store import Store

MODELS = (UNARY_MODEL, STREAM_MODEL)
_TEMPLATES = Path(student_service.__file__).parent / "model_repository"
_FILE = "checkpoint.json"


@dataclass(frozen=True)
class Deployment:
    """Which checkpoint a version folder serves.

    Attributes:
        store: folder or fsspec URL of the store.
        student: the registry's name in it.
        version: the checkpoint's version.
        digest: its manifest's.
    """

    store: str
    student: str
    version: int
    digest: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a version folder's.

        Raises:
            DataCorruptedError: there is none, or it is no such file.
        """
        try:
            return cls(**json.loads((folder / _FILE).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise DataCorruptedError(f"version folder {folder.name} says nothing of a checkpoint") from error

    def write(self, folder: Path) -> None:
        """Write it into a folder that nobody reads yet."""
        (folder / _FILE).write_text(json.dumps(asdict(self), indent=1))

    def settings(self) -> StudentSettings:
        """The student's settings, with this checkpoint's store.

        In Triton the engine is never Triton again, whatever the environment that it shares with the service says.
        """
        settings = StudentSettings.load(store=self.store, student=self.student)
        if settings.engine != "triton":
            return settings
        return settings.model_copy(update={"engine": StudentSettings.model_fields["engine"].default})

    @contextmanager
    def fetched(self) -> Iterator[Path]:
        """Verify every byte of the checkpoint, and yield a folder with its weights.

        Raises:
            NotFoundError: it is no longer there.
            DataCorruptedError: a file differs from its manifest, or it is another checkpoint than the one deployed.
            PreconditionError: it is an adapter that does not fit its base.
        """
        registry = Registry(Store(self.store), self.student)
        with whole(registry, self.version) as folder:
            if registry.get(self.version).digest != self.digest:
                raise DataCorruptedError(f"version {self.version} is not the checkpoint that was deployed")
            yield folder


class BusyError(PreconditionError):
    """Another process is changing the repository."""


class ModelRepository:
    """A Triton model repository with the student's models; created where it is missing."""

    def __init__(self, root: Path, models: Sequence[str] = MODELS) -> None:
        self.root = root.absolute()
        self.models = tuple(models)
        # On the repository's own filesystem, so that a rename is atomic; outside of it, so that Triton never looks in.
        self._state = self.root.with_name(f"{self.root.name}.state")
        for model in self.models:
            self._write_config(model)

    def versions(self, model: str) -> list[int]:
        """The version folders of a model, ascending."""
        return sorted(int(path.name) for path in (self.root / model).iterdir() if path.name.isdecimal())

    def deployment(self, model: str, number: int) -> Deployment:
        """Which checkpoint a version serves.

        Raises:
            DataCorruptedError: the folder doesn't say.
        """
        return Deployment.read(self.root / model / str(number))

    def add(self, model: str, deployment: Deployment) -> int:
        """Make a version folder aside, then rename it in under the next number, which was never used before."""
        folder = self._aside()
        folder.mkdir(parents=True)
        deployment.write(folder)
        module = folder / "model.py"
        shutil.copyfile(_TEMPLATES / model / "1" / module.name, module)
        # Compiled by the stub later, it would change the folder's time, and Triton would restart an unchanged version.
        py_compile.compile(str(module), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        number = self._claim(model)
        folder.rename(self.root / model / str(number))
        return number

    def remove(self, model: str, number: int) -> None:
        """Take a version folder out in one move, then delete it."""
        folder = self._aside()
        folder.parent.mkdir(parents=True, exist_ok=True)
        (self.root / model / str(number)).rename(folder)
        shutil.rmtree(folder)

    def touch(self, model: str, number: int) -> None:
        """Make a version look changed, so that the next load starts it anew."""
        os.utime(self.root / model / str(number) / "model.py")

    def accepted(self) -> dict[str, int]:
        """The newest version of each model that passed its canary; empty before the first deployment."""
        try:
            return {str(model): int(number) for model, number in json.loads(self._accepted.read_bytes()).items()}
        except FileNotFoundError:
            return {}

    def accept(self, numbers: Mapping[str, int]) -> None:
        """Write down the newest version of each model."""
        write_atomically(self._accepted, json.dumps(dict(numbers)).encode())

    def clean_up(self) -> list[str]:
        """Throw away what a killed deployment left: folders aside, and versions that were never accepted.

        Returns:
            The models that lost a version.
        """
        shutil.rmtree(self._state / "aside", ignore_errors=True)
        accepted = self.accepted()
        stray = [
            (model, number)
            for model in self.models
            for number in self.versions(model)
            if number > accepted.get(model, 0)
        ]
        for model, number in stray:
            self.remove(model, number)
        return sorted({model for model, _ in stray})

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other process from changing the repository meanwhile; a killed one keeps nobody.

        Raises:
            BusyError: another one is changing it.
        """
        self._state.mkdir(parents=True, exist_ok=True)
        with (self._state / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BusyError("another change of Triton's models is under way") from error
            yield

    @property
    def _accepted(self) -> Path:
        return self._state / "accepted.json"

    def _aside(self) -> Path:
        return self._state / "aside" / temporary_name()

    def _claim(self, model: str) -> int:
        claims = self._state / "numbers" / model
        claims.mkdir(parents=True, exist_ok=True)
        number = max((int(path.name) for path in claims.iterdir()), default=0) + 1
        (claims / str(number)).touch(exist_ok=False)
        return number

    def _write_config(self, model: str) -> None:
        target, content = self.root / model / "config.pbtxt", (_TEMPLATES / model / "config.pbtxt").read_bytes()
        # A config that only looks new would make Triton restart every version.
        if not target.exists() or target.read_bytes() != content:
            write_atomically(target, content)
