"""What the tests with a real Triton server share: a server over a fresh repository, and a deployer for it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from student_service.engines.triton import TritonEngine, load
from student_service.triton.deploy import Deployer
from student_service.triton.repository import ModelRepository
from student_service.triton.server import Installation, TritonServer
from tests.student_kit import publish, tiny_student
from world2vlm.checkpoints import Registry
from world2vlm.errors import UnavailableError
from world2vlm.store import Store


def require_triton() -> None:
    """Skip where this machine can't run the wheel's server."""
    try:
        Installation.find()
    except UnavailableError as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class Kit:
    """A running server, what deploys to it, and the store that it reads."""

    server: TritonServer
    deployer: Deployer
    store: Path

    @property
    def repository(self) -> ModelRepository:
        return self.deployer.repository

    def publish(self, seed: int, key: str = "") -> int:
        return publish(self.store, tiny_student(seed), key or f"seed {seed}")

    def folder(self, version: int) -> Path:
        return Registry(Store(str(self.store)), "student").fetch(version)

    def engine(self, version: int) -> TritonEngine:
        return load(self.folder(version), self.server.url, capacity=4, deadline_s=60)

    def corrupt(self, version: int) -> None:
        weights = self.store / f"checkpoints/student/{version}/model.safetensors"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)


@contextmanager
def running_triton(folder: Path, models: Sequence[str], keep: int = 2) -> Iterator[Kit]:
    """A real Triton server without a version; deploy one."""
    require_triton()
    repository = ModelRepository(folder / "models", models)
    own = {"THREADS": "1", "LOG_LEVEL": "DEBUG", "ENGINE": "local"}
    environment = {"OMP_NUM_THREADS": "1", **{f"WORLD2VLM_{name}": value for name, value in own.items()}}
    with TritonServer(repository.root, folder / "work", environment=environment) as server:
        store = folder / "store"
        deployer = Deployer(repository, server.url, str(store), "student", keep, load_timeout_s=120)
        yield Kit(server, deployer, store)
