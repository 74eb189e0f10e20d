"""Asking a student process: the command line, and the program in README.md, word for word."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from world2vlm.health import is_serving
from world2vlm.images import encode_png
from world2vlm.local.process import ManagedProcess

pytestmark = [pytest.mark.slow, pytest.mark.alone]

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def student_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("student")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        "WORLD2VLM_STORE": str(folder / "store"),
        "WORLD2VLM_PORT": url.rpartition(":")[2],
        "WORLD2VLM_METRICS_PORT": "-1",
        "OMP_NUM_THREADS": "1",
    }
    process = ManagedProcess("student", ["student_service"], environment, folder / "logs")
    process.start()
    try:
        process.wait_ready(lambda: is_serving(url, 1.0), timeout_s=120)
        yield url
    finally:
        process.stop(grace_s=20)


@pytest.fixture
def view(tmp_path: Path) -> Path:
    path = tmp_path / "view.png"
    path.write_bytes(encode_png(np.full((96, 128, 3), 120, dtype=np.uint8)))
    return path


def ask(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "world2vlm", "ask", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_typed_question(student_url: str, view: Path) -> None:
    about = ("--actions", "turn left 30 degrees", "--object", "chair", "--box", "[100, 300, 400, 800]")
    done = ask("--task", "D2", *about, "--image", view, "--url", student_url)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r".*\nprobability [01]\.\d{3}, checkpoint version 1\n", done.stdout)


def test_a_question_in_words(student_url: str, view: Path) -> None:
    done = ask("Where is the red chair?", "--image", view, "--image", view, "--url", student_url)
    assert done.returncode == 0, done.stderr
    assert "checkpoint version 1" in done.stdout


def test_the_service_says_what_is_wrong(student_url: str, view: Path) -> None:
    done = ask("--task", "A1", "--image", view, "--url", student_url)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "images" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_program_in_the_readme_runs(student_url: str, view: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "localhost:50052" in program
    program = program.replace("localhost:50052", student_url)
    done = subprocess.run([sys.executable, "-c", program], cwd=view.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("leaves the view", "stays in view"))
    assert "version 1" in done.stdout
