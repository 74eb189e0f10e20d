import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from world2vlm import __version__
from world2vlm.cli import build_app
from world2vlm.tasks import TASKS

ANSWERS = {
    "A1": "move forward 0.4 meters",
    "A2": "turn left 30 degrees",
    "A3": "turn left 30 degrees; move forward 0.4 meters",
    "A4": "true",
    "D1": "[100, 200, 300, 400]",
    "D2": "yes",
    "D3": "turn right 20 degrees",
    "D4": "no",
}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "world2vlm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def line(task: str, response: str) -> dict[str, str]:
    return {"task_type": task, "answer": ANSWERS[task], "response": response}


def test_version() -> None:
    assert run("--version").stdout == f"world2vlm {__version__}\n"


def test_help_is_quick_and_names_all_shared_commands() -> None:
    run("--help")  # byte code is compiled now
    started = time.perf_counter()
    done = run("--help")
    assert time.perf_counter() - started < 2.0  # 0.5 s on a machine that is free
    assert done.returncode == 0
    for command in ("demo", "up", "ask", "score", "serve"):
        assert command in done.stdout


def test_no_help_has_words_in_brackets() -> None:
    """They would be taken for markup and left out."""

    def helps(command: Any) -> Iterator[str]:
        yield command.help or ""
        yield from (getattr(option, "help", None) or "" for option in command.params)
        for inner in getattr(command, "commands", {}).values():
            yield from helps(inner)

    found = list(helps(typer.main.get_command(build_app())))
    assert len(found) > 50
    assert not [text for text in found if re.search(r"\[[a-z]", text)]


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("torch", "grpc", "celery", "numpy")
    code = f"import sys, world2vlm.cli as c; c.build_app(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_score_right_answers_of_all_tasks(tmp_path: Path) -> None:
    assert set(ANSWERS) == set(TASKS)
    file = write_lines(tmp_path / "answers.jsonl", *(line(task, answer) for task, answer in ANSWERS.items()))
    for options in ((), ("--reward", "world2vlm")):
        done = run("score", file, *options)
        assert done.returncode == 0, done.stderr
        scores = [json.loads(text) for text in done.stdout.splitlines()]
        assert [score["overall"] for score in scores] == pytest.approx([1.0] * len(ANSWERS))


def test_the_two_yardsticks_differ(tmp_path: Path) -> None:
    wordy = line("A1", "I think it is move forward 0.4 meters")
    file = write_lines(tmp_path / "answers.jsonl", wordy, "", line("A1", "move backward 0.4 meters"))
    strict = [json.loads(text) for text in run("score", file).stdout.splitlines()]
    published = [json.loads(text) for text in run("score", file, "--reward", "world2vlm").stdout.splitlines()]
    wrong = {"overall": 0.0, "direction": 0.0}
    assert strict == [{**wrong, "parsed": 0.0}, {**wrong, "parsed": 1.0}]
    assert [score["overall"] for score in published] == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("{", "line 2"),
        ({"task_type": "A1", "answer": "move forward 1 meters"}, "line 2: 'response' must be a text"),
        ({"task_type": "Z9", "answer": "yes", "response": "yes"}, "line 2: unknown task 'Z9'"),
        ({"task_type": "D2", "answer": "perhaps", "response": "yes"}, "line 2: not an answer to D2"),
        ([1], "line 2: not a JSON object"),
    ],
)
def test_score_names_a_broken_line(tmp_path: Path, broken: object, says: str) -> None:
    done = run("score", write_lines(tmp_path / "answers.jsonl", line("D2", "yes"), broken))
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_score_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run("score", tmp_path / "none.jsonl")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "none.jsonl" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "either a QUESTION or a --task"),
        (("where?", "--task", "D2"), "either a QUESTION or a --task"),
        (("--task", "D2"), "task D2 needs actions"),
        (("--task", "D2", "--actions", "jump 3 meters"), "unknown action"),
        (("--task", "D2", "--box", "[1, 2]"), "not a box"),
        (("where?", "--image", "/nowhere.png"), "/nowhere.png: cannot be read"),
        (("where?", "--url", "127.0.0.1:1"), ""),
    ],
)
def test_ask_refuses_in_one_line(arguments: tuple[str, ...], says: str) -> None:
    done = run("ask", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
