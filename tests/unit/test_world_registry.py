"""Worlds by entry point: somebody else's package is built and installed here as it would be there."""

import subprocess
import sys
from pathlib import Path

import pytest

from teacher_service.paths import from_actions
from teacher_service.photos import motorcycle
from teacher_service.service import Teacher
from teacher_service.worlds.base import ImagineSpec
from teacher_service.worlds.registry import make_worlds
from world2vlm.actions import parse_actions
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.settings import TeacherSettings

PACKAGE = Path(__file__).parents[1] / "example_world"
DOCS = Path(__file__).parents[2] / "docs" / "worlds.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package in it, installed by pip from a copy of its source."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for path in PACKAGE.iterdir():
        if path.is_file():
            (source / path.name).write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(folder), str(source)], check=True, timeout=120)
    return folder


def test_an_installed_package_s_world_is_served_beside_ours(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)
    settings = TeacherSettings(worlds=("renderer", "copy"), world_options={"copy": {"dim": 0.5}})
    teacher = Teacher(make_worlds(settings))
    assert [info.name for info in teacher.describe()] == ["renderer", "copy"]
    spec = ImagineSpec(motorcycle(), from_actions(parse_actions("turn left 10 degrees")))
    frames = list(teacher.imagine("copy", spec))
    assert len(frames) == 3 and frames[0].png != frames[1].png == frames[2].png


def test_its_options_are_checked_by_its_own_dataclass(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)
    for options, message in (({"dimm": 1}, "copy: dimm: "), ({"dim": "dark"}, "copy: dim: ")):
        with pytest.raises(InvalidInputError, match=message):
            make_worlds(TeacherSettings(worlds=("copy",), world_options={"copy": options}))


def test_a_world_that_is_not_installed_is_named_beside_those_that_are() -> None:
    with pytest.raises(NotFoundError, match=r"no world 'copy' is installed; installed are .*renderer"):
        make_worlds(TeacherSettings(worlds=("renderer", "copy")))


def test_options_of_a_world_that_is_not_served_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="not served: geometric"):
        make_worlds(TeacherSettings(worlds=("renderer",), world_options={"geometric": {}}))


def test_the_documentation_shows_the_package_as_it_is() -> None:
    text = DOCS.read_text(encoding="utf-8")
    source = (PACKAGE / "world2vlm_copy.py").read_text(encoding="utf-8")
    assert source[source.index("class CopyWorld") :].strip() in text
    assert 'copy = "world2vlm_copy:make"' in text and 'copy = "world2vlm_copy:make"' in (
        PACKAGE / "pyproject.toml"
    ).read_text(encoding="utf-8")
