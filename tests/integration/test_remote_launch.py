"""The launcher of remote worlds: environments that are not there, processes that end, hang or outlive nobody.

Around the stand-ins of tests/data/standins.
"""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from teacher_service.worlds import hy_worldplay, svc
from tests.remote_kit import STANDINS, Controls, frames_of, make_world, options, remote_world, spec, wait_until
from world2vlm.errors import InvalidInputError, NotFoundError, UnavailableError

pytestmark = pytest.mark.slow


@pytest.fixture(params=(svc.NAME, hy_worldplay.NAME))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", [svc.NAME])
def test_a_worker_that_keeps_ending_is_given_up(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Controls(tmp_path).tell("load", "fail")
    with remote_world(name, tmp_path) as world, caplog.at_level(logging.ERROR):
        with pytest.raises(UnavailableError, match=r"ended 2 times .* not started again") as caught:
            frames_of(world, spec("turn left 9 degrees"))
        assert "secret" not in str(caught.value)
    assert caplog.text.count("RuntimeError: secret of the inside") == 2


@pytest.mark.parametrize("name", [svc.NAME])
def test_a_worker_that_is_never_ready_misses_its_deadline(name: str, tmp_path: Path) -> None:
    Controls(tmp_path).tell("load", "hang")
    with remote_world(name, tmp_path, start_seconds=1.0) as world:
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="still starting"):
            frames_of(world, spec("turn left 9 degrees"))
        assert time.monotonic() - start < 10
        with pytest.raises(UnavailableError, match="not started again"):
            wait_until(lambda: not frames_of(world, spec("turn left 9 degrees", is_cancelled=lambda: True)) and False)


def test_closing_ends_the_process_and_what_comes_later_is_refused(name: str, tmp_path: Path) -> None:
    with remote_world(name, tmp_path, at_once=True) as world:
        wait_until(lambda: world.worker.pid is not None)
        pid = world.worker.pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(UnavailableError, match="closed"):
        frames_of(world, spec("turn left 9 degrees"))


def test_a_worker_dies_with_the_teacher(tmp_path: Path) -> None:
    Controls(tmp_path).tell("load", "hang")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.remote_kit import *\n"
        "world = make_world('svc', options('svc', Path(sys.argv[1]), at_once=True))\n"
        "while world.worker.pid is None: time.sleep(0.01)\n"
        "print(world.worker.pid, flush=True)\ntime.sleep(600)\n"
    )
    teacher = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"STANDIN_CONTROLS": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert teacher.stdout is not None
    pid = int(teacher.stdout.readline())
    # The launcher's guard has become the worker, which hangs in its load.
    wait_until(lambda: b"start.py" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1])
    teacher.kill()
    teacher.wait()

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        except FileNotFoundError:
            return True

    wait_until(is_gone, 10)


# Environments that are not there.


def test_a_world_without_an_environment_says_how_to_make_it(name: str) -> None:
    with pytest.raises(NotFoundError, match=rf"python3.10 -m venv.*requirements.txt.*world_options.{name}.python"):
        make_world(name, {})


def test_a_missing_interpreter_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no interpreter at .*absent.*pip install -r"):
        make_world(name, options(name, tmp_path, python=str(tmp_path / "absent")))


def test_an_interpreter_that_is_none_is_named_and_one_on_the_path_is_found(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"can't run with /bin/false, and the log says why: .*pip install -r"):
        make_world(name, options(name, tmp_path, python="/bin/false"))
    with pytest.raises(NotFoundError, match="can't run with false"):
        make_world(name, options(name, tmp_path, python="false"))


def test_a_missing_package_is_named(name: str, tmp_path: Path) -> None:
    package = {svc.NAME: "seva", hy_worldplay.NAME: "hyvideo"}[name]
    with pytest.raises(NotFoundError, match=rf"lacks {package}: .*pip install -r"):
        make_world(name, options(name, tmp_path, repository=None))


def test_a_package_that_vanishes_later_is_named_as_well(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.symlink_to(STANDINS)
    with remote_world(svc.NAME, tmp_path, repository=str(clone)) as world:
        clone.unlink()
        with pytest.raises(NotFoundError, match="lacks seva"):
            frames_of(world, spec("turn left 9 degrees"))


def test_weights_that_must_be_given_are_asked_for(name: str, tmp_path: Path) -> None:
    required = {svc.NAME: "vae", hy_worldplay.NAME: "action_weights"}[name]
    with pytest.raises(NotFoundError, match=f"world_options.{name}.{required}"):
        make_world(name, options(name, tmp_path, **{required: ""}))


def test_unknown_and_bad_options_are_refused(name: str, tmp_path: Path) -> None:
    for changes in ({"untold": 1}, {"units_per_metre": 0}, {"steps": -1}, {"start_seconds": 0}):
        with pytest.raises(InvalidInputError, match=f"world_options.{name}: {next(iter(changes))}"):
            make_world(name, options(name, tmp_path, **changes))


def test_a_worker_sees_neither_our_secrets_nor_our_packages(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD2VLM_CONTROL_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    world = make_world(name, options(name, tmp_path, device="3"))
    environment = world.worker.launch.environment()
    assert not any(key.startswith("WORLD2VLM_") for key in environment)
    assert environment["PYTHONPATH"] == str(STANDINS)
    assert environment["CUDA_VISIBLE_DEVICES"] == "3"
