"""Triton's own server as a child process: found in the `nvidia-pytriton` wheel, which is used for its binary only."""

import ctypes.util
import os
import platform
import shutil
import socket
import sys
import sysconfig
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

import student_service
from world2vlm.errors import UnavailableError
from world2vlm.local.process import ManagedProcess

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_LIBC = (2, 35)
_STUB = "triton_python_backend_stub"
_NAME = "triton"
_SHARED_MEMORY = Path("/dev/shm")
# Triton drains for so long, then gives up; the process is killed a little later.
_EXIT_S = 10
_GRACE_S = _EXIT_S + 5.0


@dataclass(frozen=True)
class Installation:
    """Where the parts of Triton are.

    Attributes:
        binary: the server.
        backend: folder with the python backend's library and its Python module.
        stub: the program of this Python version that runs a model.
        caches: folder with the server's cache plug-ins.
        libraries: folders that the loader must search.
    """

    binary: Path
    backend: Path
    stub: Path
    caches: Path
    libraries: tuple[Path, ...]

    @classmethod
    def find(cls) -> Self:
        """Find the wheel's server and this interpreter's shared library. Imports nothing of the wheel.

        Raises:
            UnavailableError: the wheel is missing, or has no part for this interpreter; the text says which.
        """
        # Importing the package would ask for an older numpy and set up a second server of its own.
        spec = find_spec("pytriton")
        if spec is None or not spec.submodule_search_locations:
            raise UnavailableError("Triton's server is not installed: see the extra `triton` in pyproject.toml")
        if (libc := tuple(map(int, platform.libc_ver()[1].split(".")))) < _LIBC:
            raise UnavailableError(f"Triton's server can't run here: it needs glibc {_LIBC}, this system has {libc}")
        package = Path(spec.submodule_search_locations[0]).resolve()
        root, libraries = package / "tritonserver", package.parent / "nvidia_pytriton.libs"
        stub = root / "python_backend_stubs" / _PYTHON / _STUB
        found = cls(
            root / "bin/tritonserver",
            root / "backends/python",
            stub,
            root / "caches",
            (libraries, *_find_python_library()),
        )
        for path in (found.binary, found.backend, found.stub, libraries):
            if not path.exists():
                raise UnavailableError(f"Triton's server can't run here: {path} is missing")
        return found


def _find_python_library() -> tuple[Path, ...]:
    """The folder of the libpython that the stub is linked with; empty where the loader finds it by itself."""
    name = f"libpython{_PYTHON}.so.1.0"
    for folder in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        if folder and (Path(folder) / name).exists():
            return (Path(folder),)
    if ctypes.util.find_library(f"python{_PYTHON}") is None:
        raise UnavailableError(f"Triton's server can't run here: this Python has no {name}")
    return ()


@dataclass(frozen=True)
class Ports:
    """The server's ports on its address."""

    grpc: int
    http: int
    metrics: int

    @classmethod
    def free(cls, host: str = "127.0.0.1") -> Self:
        """Three ports that are free now."""
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            sockets = (first, second, third)
            for one in sockets:
                one.bind((host, 0))
            return cls(*(one.getsockname()[1] for one in sockets))


class TritonServer:
    """A Triton server over one model repository; once it runs, it changes its models only when asked to.

    Start and restart it in a thread that lives as long as it should: it ends with the thread that started it.

    Args:
        repository: the model repository; every model with a version is loaded at the start.
        work: a folder for the backend that is put together for the server, and for its log.
        host: address to listen on.
        ports: where to listen; default: free ports.
        environment: variables for the server and its models, on top of this process's own.

    Attributes:
        url: `host:port` of its gRPC endpoint.
        log: the file with what it and its models print.
    """

    def __init__(
        self,
        repository: Path,
        work: Path,
        *,
        host: str = "127.0.0.1",
        ports: Ports | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.ports = ports or Ports.free(host)
        self.url = f"{host}:{self.ports.grpc}"
        self._host = host
        self._repository = repository.absolute()
        self._work = work.absolute()
        self.log = self._work / f"{_NAME}.log"
        self._installed = Installation.find()
        self._backends = _assemble_backends(self._work, self._installed)
        self._environment = {**_environment(self._installed), **(environment or {})}
        # A stub that is killed leaves its shared memory behind; by this name it is found again.
        self._region = f"world2vlm-{uuid.uuid4().hex[:12]}-"
        self._process: ManagedProcess | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id; None before `start`."""
        return self._process.pid if self._process else None

    def start(self, timeout_s: float = 300.0) -> None:
        """Start, and wait until the models are loaded.

        Raises:
            UnavailableError: it ended, or was not ready in time; the text has the last lines of its log.
        """
        # The guard becomes whatever program it is given; it is what makes a binary of a supervised Python module.
        command = ["world2vlm.local.guard", str(os.getpid()), str(self._installed.binary), *self._flags()]
        self._process = ManagedProcess(_NAME, command, self._environment, self._work)
        self._process.start()
        with triton.InferenceServerClient(self.url) as client:
            self._process.wait_ready(lambda: _is_ready(client), timeout_s)

    def check(self) -> None:
        """Do nothing while the server runs.

        Raises:
            UnavailableError: it ended; the text has the last lines of its log.
        """
        if self._process is not None:
            self._process.check()

    def stop(self) -> None:
        """Let requests end, stop, and give back the shared memory. Stopping twice is harmless."""
        if self._process is not None:
            self._process.stop(_GRACE_S)
        for region in _SHARED_MEMORY.glob(f"{self._region}*"):
            region.unlink(missing_ok=True)

    def restart(self) -> None:
        """Stop and start again, with the same ports.

        Raises:
            UnavailableError: as `start`.
        """
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def _flags(self) -> list[str]:
        folders = sorted(path.parent for path in self._repository.glob("*/config.pbtxt"))
        models = [folder.name for folder in folders if any(path.name.isdecimal() for path in folder.iterdir())]
        return [
            f"--model-repository={self._repository}",
            # Polling is documented as not for production; a model changes when it is loaded by name.
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in models),
            "--disable-auto-complete-config",
            # A version that can't be loaded does not keep the others from answering.
            "--exit-on-error=false",
            "--strict-readiness=false",
            f"--exit-timeout-secs={_EXIT_S}",
            f"--backend-directory={self._backends}",
            f"--cache-directory={self._installed.caches}",
            f"--backend-config=python,shm-region-prefix-name={self._region}",
            "--backend-config=python,shm-default-byte-size=4194304",
            f"--grpc-address={self._host}",
            f"--grpc-port={self.ports.grpc}",
            f"--http-address={self._host}",
            f"--http-port={self.ports.http}",
            f"--metrics-address={self._host}",
            f"--metrics-port={self.ports.metrics}",
            "--allow-gpu-metrics=false",
        ]


def _assemble_backends(work: Path, installed: Installation) -> Path:
    """Put the backend's library and the stub of this Python into one folder, as the server wants them."""
    backends = work / "backends"
    backend = backends / "python"
    backend.mkdir(parents=True, exist_ok=True)
    for source in (*installed.backend.glob("*.so"), *installed.backend.glob("*.py"), installed.stub):
        shutil.copy2(source, backend / source.name)
    return backends


def _environment(installed: Installation) -> dict[str, str]:
    libraries = [*map(str, installed.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    packages = [str(Path(student_service.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "PYTHONPATH": os.pathsep.join(filter(None, packages)),
        # The stub looks for its interpreter's packages where the first `python3` on the path has them.
        "PATH": os.pathsep.join((str(Path(sys.prefix) / "bin"), os.environ.get("PATH", ""))),
    }


def _is_ready(client: Any) -> bool:
    try:
        return bool(client.is_server_ready())
    except InferenceServerException:
        return False
