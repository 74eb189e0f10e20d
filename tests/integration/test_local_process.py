"""The supervisor of one process, on real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from world2vlm.errors import UnavailableError
from world2vlm.local.process import ManagedProcess

pytestmark = pytest.mark.alone

POLITE = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye') or 0))\n"
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
FOREVER = "print('ready', flush=True)\nwhile True:\n    time.sleep(0.05)\n"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], ManagedProcess]]:
    """Makes a process from a program's text; ends it after the test."""
    made: list[ManagedProcess] = []

    def build(program: str) -> ManagedProcess:
        (tmp_path / "program.py").write_text(program)
        made.append(ManagedProcess("program", ["program"], {"PYTHONPATH": str(tmp_path)}, tmp_path / "logs"))
        return made[-1]

    yield build
    for process in made:
        process.stop(grace_s=0)


def is_ready(process: ManagedProcess) -> Callable[[], bool]:
    return lambda: "ready" in process.tail()


def test_starts_logs_and_stops_in_order(make: Callable[[str], ManagedProcess]) -> None:
    process = make(POLITE + FOREVER)
    process.start()
    process.wait_ready(is_ready(process), timeout_s=20)
    process.check()
    process.stop(grace_s=20)
    assert process.tail() == "ready\nbye"


def test_one_that_ignores_sigterm_is_killed(make: Callable[[str], ManagedProcess]) -> None:
    process = make(STUBBORN + FOREVER)
    process.start()
    process.wait_ready(is_ready(process), timeout_s=20)
    process.stop(grace_s=0.3)
    with pytest.raises(UnavailableError, match="exit code -9"):
        process.check()


def test_its_children_go_with_it(make: Callable[[str], ManagedProcess], tmp_path: Path) -> None:
    child = "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    process = make(POLITE + child + f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n" + FOREVER)
    process.start()
    process.wait_ready(is_ready(process), timeout_s=20)
    process.stop(grace_s=20)
    wait_gone(int((tmp_path / "pid").read_text()))


def test_one_that_dies_is_reported_with_the_end_of_its_log(make: Callable[[str], ManagedProcess]) -> None:
    process = make("raise SystemExit('the port is taken')")
    process.start()
    with pytest.raises(UnavailableError, match=r"(?s)program ended with exit code 1.*the port is taken"):
        process.wait_ready(lambda: False, timeout_s=20)


def test_one_that_is_never_ready_is_reported(make: Callable[[str], ManagedProcess]) -> None:
    process = make(POLITE + FOREVER)
    process.start()
    with pytest.raises(UnavailableError, match="not ready within 0 s"):
        process.wait_ready(lambda: False, timeout_s=0.2)


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(POLITE + FOREVER)
    supervisor = (
        "import pathlib, time\n"
        "from world2vlm.local.process import ManagedProcess\n"
        f"process = ManagedProcess('program', ['program'], {{}}, pathlib.Path({str(tmp_path)!r}))\n"
        "process.start()\n"
        "process.wait_ready(lambda: 'ready' in process.tail(), 20)\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}
    with subprocess.Popen([sys.executable, "-c", supervisor], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_gone(pid)


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
