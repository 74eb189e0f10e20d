"""How a world's own process is started: its interpreter, its environment, and what the environment must have."""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from teacher_service.workers import start
from world2vlm.errors import NotFoundError
from world2vlm.local import guard
from world2vlm.worlds import WorldInfo

_log = logging.getLogger(__name__)
_CHECK_SECONDS = 120.0
# Of ours: they would lead the worker to our packages, and its third-party code to our secrets.
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_OUR_PREFIX = "WORLD2VLM_"


@dataclass(frozen=True)
class WorkerOptions:
    """The options that every remote world has.

    Attributes:
        python: the interpreter of the world's own environment.
        repository: a folder to import the world's package from, where it is not installed there.
        device: which GPU the world may use, as `CUDA_VISIBLE_DEVICES` has it; empty = what the teacher may.
        at_once: start the process with the service, and not with the first request.
        start_seconds: until the process must be ready.
        request_seconds: that one request may take.
        restarts: of a process that keeps ending without an answer.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    python: Path | None = None
    repository: Path | None = None
    device: str = ""
    at_once: bool = False
    start_seconds: Annotated[float, Field(gt=0)] = 900.0
    request_seconds: Annotated[float, Field(gt=0)] = 3600.0
    restarts: Annotated[int, Field(ge=0)] = 3

    def of_the_model(self) -> dict[str, Any]:
        """The options that a world adds to these: what its worker program is told."""
        shared = {field.name for field in fields(WorkerOptions)}
        return {name: value for name, value in asdict(self).items() if name not in shared}


@dataclass(frozen=True)
class Launch:
    """One world's worker program.

    Attributes:
        world: its name; `teacher_service.workers.<world>.worker` is the program.
        options: where and how it runs.
        needs: the packages that its environment must have beside the shared ones.
        remedy: the sentence that says how to make that environment.
    """

    world: str
    options: WorkerOptions
    needs: tuple[str, ...]
    remedy: str

    def check(self) -> None:
        """Make sure that the environment is there and has what the program needs; starts it for a moment.

        Raises:
            NotFoundError: it is not, or lacks something; says how to make it.
        """
        command = [*self._program(), "--check"]
        try:
            done = subprocess.run(
                command,
                env=self.environment(),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_CHECK_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            _log.error("%s: %s", self.world, error)
            raise self._unfit() from error
        if done.returncode == start.LACKING:
            raise self.lacking(done.stdout)
        if done.returncode != 0:
            _log.error("%s: the check of its environment failed:\n%s", self.world, done.stderr)
            raise self._unfit()

    def lacking(self, output: str) -> NotFoundError:
        """The error for a program that ended because its environment lacks what its output says."""
        found = [line for line in output.splitlines() if line.startswith("lacking: ")]
        names = found[-1].removeprefix("lacking: ") if found else "packages"
        return NotFoundError(f"the environment of the world {self.world!r} lacks {names}: {self.remedy}")

    def open(self, info: WorldInfo, socket: Path) -> "subprocess.Popen[bytes]":
        """Start the program; its output comes through one pipe, and it is told to end when the calling thread ends.

        Args:
            info: what the world says about itself.
            socket: where to serve.

        Raises:
            OSError: it can't be started.
        """
        guarded = [sys.executable, guard.__file__, str(os.getpid()), *self._program()]
        told = json.dumps({**self.options.of_the_model(), "info": asdict(info)})
        return subprocess.Popen(
            [*guarded, "--socket", str(socket), "--options", told],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def environment(self) -> dict[str, str]:
        """The program's environment variables: the teacher's, without what is the teacher's alone."""
        ours = (*_OURS, *(name for name in os.environ if name.startswith(_OUR_PREFIX)))
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        if self.options.repository:
            kept["PYTHONPATH"] = str(self.options.repository)
        if self.options.device:
            kept["CUDA_VISIBLE_DEVICES"] = self.options.device
        return kept | {"PYTHONUNBUFFERED": "1", "PYTHONNOUSERSITE": "1"}

    def _unfit(self) -> NotFoundError:
        return NotFoundError(
            f"the world {self.world!r} can't run with {self.options.python}, and the log says why: {self.remedy}"
        )

    def _program(self) -> list[str]:
        return [self._python(), start.__file__, self.world, "--needs", ",".join(self.needs)]

    def _python(self) -> str:
        if self.options.python is None:
            raise NotFoundError(f"the world {self.world!r} has no environment yet: {self.remedy}")
        found = shutil.which(self.options.python)
        if found is None:
            raise NotFoundError(f"the world {self.world!r} has no interpreter at {self.options.python}: {self.remedy}")
        return found
