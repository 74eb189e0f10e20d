"""`world2vlm up`: the local stack in the foreground."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.tls_kit import make_authority, needs_openssl
from world2vlm.health import is_serving

pytestmark = [pytest.mark.slow, pytest.mark.alone]

START_SECONDS = 180


@pytest.fixture
def up(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with running_up(tmp_path) as process:
        yield process


@contextmanager
def running_up(tmp_path: Path, **settings: object) -> Iterator[subprocess.Popen[str]]:
    """`world2vlm up` in `tmp_path` on free ports, with more settings; ends it at the end."""
    ports = free_ports(2)
    shared = "".join(f'{name} = "{value}"\n' for name, value in settings.items())
    (tmp_path / "world2vlm.toml").write_text(
        f"{shared}[teacher]\nport = {ports[0]}\nmetrics_port = -1\n[student]\nport = {ports[1]}\nmetrics_port = -1\n"
        "[trainer]\nmetrics_port = -1\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WORLD2VLM_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "world2vlm", "up"],
        cwd=tmp_path,
        env={**inherited, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.terminate()
    process.communicate(timeout=120)


def test_it_serves_until_it_is_told_to_stop(up: subprocess.Popen[str]) -> None:
    urls = wait_for_urls(up)
    assert all(is_serving(url) for url in urls.values())
    children = psutil.Process(up.pid).children(recursive=True)
    assert len(children) >= 4  # Valkey, teacher, student, worker
    up.send_signal(signal.SIGINT)
    out, errors = up.communicate(timeout=120)
    assert (up.returncode, out) == (0, "stopped\n"), errors
    wait_until(lambda: not any(child.is_running() for child in children))


@needs_openssl
def test_it_serves_with_mtls_by_the_settings(tmp_path: Path) -> None:
    ours = make_authority(tmp_path / "certificates")
    (certificate, key), (shown, shown_key) = ours.certificate("server"), ours.certificate("operator")
    served = {"tls_cert": certificate, "tls_key": key, "tls_client_ca": ours.ca}
    with running_up(tmp_path, **served) as up:
        assert up.wait(START_SECONDS) == 2
    with running_up(tmp_path, **served, tls_ca=ours.ca, tls_client_cert=shown, tls_client_key=shown_key) as up:
        urls = wait_for_urls(up)
        assert all(is_serving(url, tls=ours.client("operator")) for url in urls.values())
        assert not any(is_serving(url, tls=tls) for url in urls.values() for tls in (None, ours.client()))


def test_it_ends_when_one_of_its_processes_dies(up: subprocess.Popen[str]) -> None:
    wait_for_urls(up)
    children = psutil.Process(up.pid).children(recursive=True)
    (teacher,) = (child for child in children if "teacher_service" in child.cmdline())
    teacher.kill()
    _out, errors = up.communicate(timeout=120)
    assert up.returncode == 2
    assert "teacher ended with exit code -9" in errors
    wait_until(lambda: not any(child.is_running() for child in children))


def wait_for_urls(up: subprocess.Popen[str]) -> dict[str, str]:
    """Read the lines that `up` prints once everything is ready."""
    assert up.stdout is not None
    lines = []
    for line in up.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    else:
        raise AssertionError(up.communicate(timeout=START_SECONDS)[1])
    return dict(re.findall(r"^(teacher|student) +(\S+)$", "".join(lines), flags=re.MULTILINE))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
