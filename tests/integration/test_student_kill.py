"""The student service as a process: killed in the middle of a swap it comes back right, asked to stop it drains."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, Queue

import pytest

import student_service
from tests.student_kit import DEADLINE_S, TOKEN, png, publish, tiny_student
from world2vlm.checkpoints import Registry
from world2vlm.client import Student
from world2vlm.errors import UnavailableError
from world2vlm.store import Store

pytestmark = pytest.mark.alone


class Process:
    """`python -m student_service` on a free port."""

    def __init__(self, store: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WORLD2VLM_")}
        environment |= {
            "WORLD2VLM_STORE": str(store),
            "WORLD2VLM_METRICS_PORT": "-1",
            "WORLD2VLM_CONTROL_TOKEN": TOKEN,
            "WORLD2VLM_ENGINE": "local",
            "PYTHONPATH": str(Path(student_service.__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "student_service", "--port", "0"]
        self.popen = subprocess.Popen(command, cwd=store, env=environment, stderr=subprocess.PIPE, text=True)
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(self.wait_for(r"on port (\d+)")[1])

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self._lines.put(line)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line of the log that has `pattern` in it."""
        seen = []
        while True:
            try:
                seen.append(self._lines.get(timeout=DEADLINE_S))
            except Empty:
                pytest.fail(f"no {pattern!r} in the log:\n{''.join(seen)}")
            if match := re.search(pattern, seen[-1]):
                return match

    def end(self, number: int) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(DEADLINE_S)

    def client(self) -> Student:
        return Student(f"127.0.0.1:{self.port}", TOKEN, retry=False)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ExitStack]:
    """Kills at the end what a test started."""
    with ExitStack() as stack:
        yield stack


def start(processes: ExitStack, store: Path) -> Process:
    process = Process(store)
    processes.callback(process.popen.wait)
    processes.callback(process.popen.kill)
    return process


@pytest.mark.slow
def test_killed_in_the_middle_of_a_swap_it_serves_what_was_promoted_last(tmp_path: Path, processes: ExitStack) -> None:
    registry = Registry(Store(tmp_path), "student")
    for seed in range(2):
        publish(tmp_path, tiny_student(seed), f"seed {seed}")
    registry.set_serving(1, "test")
    # The new version is written down right before the flip: whoever dies earlier comes back with the old one.
    for phase, serves in (("canary", 1), ("drain", 2)):
        process = start(processes, tmp_path)
        with process.client() as client, ThreadPoolExecutor() as pool:
            assert client.ask("where?", [png()], 4).version == "1"
            swap = pool.submit(client.swap, 2)
            process.wait_for(f"version 2: {phase}")
            assert process.end(signal.SIGKILL) == -signal.SIGKILL
            if phase != "drain":
                with pytest.raises(UnavailableError):
                    swap.result(DEADLINE_S)
        assert registry.serving() == serves
    with start(processes, tmp_path).client() as client:
        assert client.ask("where?", [png()], 4).version == "2"
        assert client.serving().version == 2
        assert client.roll_back()["to"] == 1


@pytest.mark.slow
def test_asked_to_stop_it_answers_what_is_under_way(tmp_path: Path, processes: ExitStack) -> None:
    publish(tmp_path, tiny_student(), "first")
    Registry(Store(tmp_path), "student").set_serving(1, "test")
    process = start(processes, tmp_path)
    with process.client() as client:
        stream = client.stream("Where is the red chair?", [png()], 64)
        first = next(stream)
        assert isinstance(first, str)
        process.popen.send_signal(signal.SIGTERM)
        process.wait_for("draining")
        *pieces, last = stream
        assert not isinstance(last, str) and last.text == "".join([first, *map(str, pieces)])
        assert process.popen.wait(DEADLINE_S) == 0
        with pytest.raises(UnavailableError):
            client.ask("where?", [png()], 4, timeout=2)
