"""The sides: each one a process of its own with one checkpoint, and a way to ask it."""

import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from benchmarks.serve.asking import Asker, GrpcAsker, HttpAsker, TritonAsker
from benchmarks.serve.checkpoints import NAME, open_registry, publish
from benchmarks.serve.questions import Item
from student_service.triton.deploy import Deployer, load_model
from student_service.triton.repository import Deployment, ModelRepository
from student_service.triton.server import Installation, TritonServer
from student_service.triton.wire import UNARY_MODEL
from world2vlm.client import Student
from world2vlm.errors import UnavailableError
from world2vlm.local.process import ManagedProcess
from world2vlm.settings import DEVELOPMENT_TOKEN

_START_S = 120.0
_GRACE_S = 10.0
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Side:
    """A server that runs.

    Attributes:
        name: what it is called in tables.
        pid: its process.
        url: `host:port`.
        connect: makes a way to ask it the given questions; to be called in the event loop that asks.
    """

    name: str
    pid: int
    url: str
    connect: Callable[[Sequence[Item]], Asker]

    @contextmanager
    def alone(self, others: Sequence["Side"]) -> Iterator[None]:
        """Let the others stand still meanwhile: some of them poll, even with nothing to do."""
        standing = [process for side in others if side is not self for process in _tree(side.pid)]
        for process in standing:
            process.suspend()
        try:
            yield
        finally:
            for process in standing:
                process.resume()


@contextmanager
def ours(folder: Path, checkpoint: Path, settings: Mapping[str, str | int] | None = None) -> Iterator[Side]:
    """The student service over a fresh store, as it runs in earnest."""
    store = folder / "store"
    if not open_registry(store).versions():
        open_registry(store).set_serving(publish(store, checkpoint, "first"), "benchmark")
    own = {"STORE": store, "PORT": 0, "METRICS_PORT": -1, "THREADS": 1, "LOG_LEVEL": "INFO", **(settings or {})}
    environment = {**_ONE_THREAD, **{f"WORLD2VLM_{key}": str(value) for key, value in own.items()}}
    with _running("ours", ["student_service"], environment, folder) as process:
        url = f"127.0.0.1:{_port(process)}"
        yield Side("ours", _pid(process), url, lambda items: GrpcAsker(url, items))


@contextmanager
def plain(folder: Path, checkpoint: Path) -> Iterator[Side]:
    """The same model behind a plain gRPC server around `generate()`."""
    with _running("plain", ["benchmarks.serve.plain", str(checkpoint)], _ONE_THREAD, folder) as process:
        url = f"127.0.0.1:{_port(process)}"
        yield Side("generate()", _pid(process), url, lambda items: GrpcAsker(url, items, typed=False))


@contextmanager
def lit(folder: Path, checkpoint: Path) -> Iterator[Side]:
    """The same model behind LitServe."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["benchmarks.serve.lit", str(checkpoint), str(port)]
    with _running("litserve", command, _ONE_THREAD, folder) as process:
        process.wait_ready(lambda: _listens(port), _START_S)
        yield Side("LitServe", _pid(process), f"127.0.0.1:{port}", lambda items: HttpAsker("127.0.0.1", port, items))


@dataclass(frozen=True)
class Tritoned:
    """A Triton server that serves the checkpoint, and what deploys to it."""

    side: Side
    deployer: Deployer

    def load_plainly(self, version: int) -> None:
        """Change the checkpoint under the one version there is and have it loaded anew, as Triton's users do.

        Raises:
            World2VLMError: what Triton or the model says.
        """
        deployer, repository = self.deployer, self.deployer.repository
        manifest = open_registry(Path(deployer.store)).get(version)
        [number] = repository.versions(UNARY_MODEL)
        deployment = Deployment(deployer.store, deployer.student, version, manifest.digest)
        deployment.write(repository.root / UNARY_MODEL / str(number))
        repository.touch(UNARY_MODEL, number)
        load_model(self.side.url, UNARY_MODEL, _START_S)


@contextmanager
def triton(folder: Path, checkpoint: Path) -> Iterator[Tritoned]:
    """The same engine in a real Triton, as its python backend runs it."""
    repository = ModelRepository(folder / "models", (UNARY_MODEL,))
    environment = {**_ONE_THREAD, "WORLD2VLM_THREADS": "1"}
    with TritonServer(repository.root, folder / "work", environment=environment) as server:
        store = folder / "triton-store"
        deployer = Deployer(repository, server.url, str(store), NAME)
        deployer.deploy(publish(store, checkpoint, "first"))
        assert server.pid is not None
        yield Tritoned(Side("Triton", server.pid, server.url, lambda items: TritonAsker(server.url, items)), deployer)


def missing_lit() -> str:
    """Why LitServe can't be measured here; empty where it can."""
    return "" if find_spec("litserve") else "LitServe is not installed: pip install litserve"


def missing_triton() -> str:
    """Why Triton can't be measured here; empty where it can."""
    with suppress(UnavailableError):
        Installation.find()
        return ""
    return "Triton's server is not installed: see the extra `triton` in pyproject.toml"


def controller(side: Side) -> Student:
    """A client of our service that may change what serves."""
    return Student(side.url, DEVELOPMENT_TOKEN, retry=False)


@contextmanager
def _running(name: str, module: list[str], environment: Mapping[str, str], folder: Path) -> Iterator[ManagedProcess]:
    process = ManagedProcess(name, module, environment, folder)
    process.start()
    try:
        yield process
    finally:
        process.stop(_GRACE_S)


def _port(process: ManagedProcess) -> str:
    """The port that a server says it serves on, once it does."""
    found: list[str] = []

    def says_it() -> bool:
        found[:] = re.findall(r"serving .*on port (\d+)", process.log.read_text(encoding="utf-8"))
        return bool(found)

    process.wait_ready(says_it, _START_S)
    return found[-1]


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _pid(process: ManagedProcess) -> int:
    assert process.pid is not None
    return process.pid


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
