"""What the tests of rounds share: a real teacher, a real worker, a real broker, and waiting for files."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainer.pieces import NO_TRAINING, next_step
from trainer.plans import make_plan
from world2vlm.broker import EmbeddedBroker
from world2vlm.health import is_serving
from world2vlm.rounds import RoundPlan, RoundState
from world2vlm.store import Store

DEADLINE_S = 120.0


def wait_for(condition: Callable[[], object], what: str, seconds: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def module(name: str, *arguments: str, log: Path, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m name` in a process group of its own, with settings; kill the group at the end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WORLD2VLM_")}
    environment |= {f"WORLD2VLM_{key.upper()}": str(value) for key, value in settings.items()}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", name, *arguments],
            env=environment, cwd=log.parent, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a whole process group, as the machine's end would."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_broker(broker: EmbeddedBroker) -> None:
    """SIGKILL to the server; its owner will start it again."""
    os.kill(int((broker.folder / "valkey.pid").read_text()), signal.SIGKILL)


@contextmanager
def teacher(folder: Path) -> Iterator[str]:
    """A teacher service; yields its URL."""
    url = f"127.0.0.1:{(port := free_port())}"
    with module("teacher_service", log=folder / "teacher.log", port=port, metrics_port=-1) as process:
        wait_for(lambda: process.poll() is not None or is_serving(url, 1.0), "the teacher serves")
        assert process.poll() is None, (folder / "teacher.log").read_text()
        yield url


@contextmanager
def worker(folder: Path, broker_url: str, teacher_url: str, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A worker on the store in `folder`."""
    given = {"store": folder / "store", "redis_url": broker_url, "teacher_url": teacher_url, "metrics_port": -1}
    with module("trainer", "worker", log=folder / "worker.log", **{**given, **settings}) as process:
        yield process


def create_job(folder: Path, job: str = "job") -> RoundState:
    """A job of 7 scenes with 2 trajectories each, a shard a scene."""
    plan = make_plan(
        job, student="student", train_scenes=4, test_scenes=2, calibration_scenes=1, trajectories_per_scene=2,
        scenes_per_shard=1, recipe=NO_TRAINING,
    )  # fmt: skip
    return create(folder, plan)


def create(folder: Path, plan: RoundPlan) -> RoundState:
    state = RoundState(Store(folder / "store"), plan.id)
    state.create(plan)
    return state


def wait_until_over(state: RoundState, process: subprocess.Popen[bytes], folder: Path) -> None:
    try:
        wait_for(lambda: process.poll() is not None or next_step(state) in ("done", "stopped"), "the round is over")
        assert process.poll() is None, "the worker ended"
    except AssertionError as error:
        raise AssertionError((folder / "worker.log").read_text()[-8000:]) from error
    assert next_step(state) == "done", state.stopped()


def content(folder: Path, *prefixes: str) -> dict[str, bytes]:
    """All files of a store under some prefixes."""
    store = Store(folder / "store")
    return {path: store.read_bytes(path) for prefix in prefixes for path in store.list(prefix)}
