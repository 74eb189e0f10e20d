"""The distribution carries what the code opens, and declares what the code imports, at one version each."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXTRA_OF = {"teacher_service": "teacher", "student_service": "student", "trainer": "trainer"}
PACKAGES = ("world2vlm", *EXTRA_OF)
# What Triton's stub process brings along for a `model.py`.
HOST_MODULES = {"triton_python_backend_utils"}
# What a setting names and its user installs.
OPTIONAL_MODULES = {"mlflow", "wandb"}


@cache
def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def lines_of(*extras: str) -> list[str]:
    """The base dependencies and those of extras, with what `world2vlm[extra]` in them stands for."""
    lines = list(project()["dependencies"])
    for extra in extras:
        for line in project()["optional-dependencies"][extra]:
            inner = re.fullmatch(r"world2vlm\[([\w,-]+)\]", line)
            lines += lines_of(*inner[1].split(",")) if inner else [line]
    return lines


def name_of(requirement: str) -> str:
    return re.split(r"[\[=<>~!; ]", requirement)[0].lower().replace("_", "-")


def declared(*extras: str) -> set[str]:
    return {name_of(line) for line in lines_of(*extras)}


def imports_of(path: Path, *, at_start: bool) -> Iterator[str]:
    """Top-level names that a file imports: all of them, or those that importing the file itself imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_start else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def distributions_of(module: str) -> set[str]:
    found = metadata.packages_distributions().get(module, [f"({module}: not installed)"])
    return {name.lower().replace("_", "-") for name in found}


def undeclared(paths: list[Path], allowed: set[str], *, at_start: bool = False) -> set[str]:
    assert paths
    modules = {module for path in paths for module in imports_of(path, at_start=at_start)}
    third_party = modules - set(sys.stdlib_module_names) - set(PACKAGES) - HOST_MODULES - OPTIONAL_MODULES
    return {module for module in third_party if not distributions_of(module) & allowed}


@pytest.mark.parametrize("package", EXTRA_OF)
def test_a_service_imports_only_what_its_extra_brings(package: str) -> None:
    assert not undeclared(list((ROOT / package).rglob("*.py")), declared(EXTRA_OF[package]))


def test_the_shared_package_starts_with_the_base_dependencies_alone() -> None:
    shared = ROOT / "world2vlm"
    # What runs the model, or processes of all three services, is imported late and by those who have the extras.
    late = {"vlm", "local", "demo"}
    files = [path for path in shared.rglob("*.py") if not late & set(path.relative_to(shared).parts)]
    assert not undeclared(files, declared(), at_start=True)
    assert not undeclared(list(shared.rglob("*.py")), declared(*EXTRA_OF.values(), "tracing"))


def test_the_student_model_runs_in_both_images_that_hold_it() -> None:
    files = set((ROOT / "world2vlm" / "vlm").rglob("*.py"))
    onnx = {path for path in files if path.name.startswith("onnx_")}  # the trainer has no use for it
    assert not undeclared(list(files - onnx), declared("model"))
    assert not undeclared(list(onnx), declared("student"))
    assert declared("model") <= declared("student") & declared("trainer")


def test_every_dependency_is_pinned_once_and_installed_so() -> None:
    pins: dict[str, str] = {}
    for line in lines_of(*project()["optional-dependencies"]):
        assert re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.]+", line), f"not pinned: {line}"
        name, version = name_of(line), line.split("==")[1]
        assert pins.setdefault(name, version) == version, f"pinned twice: {line}"
    if find_spec("pytriton") is None:  # not made for every machine; its tests are skipped then
        del pins["nvidia-pytriton"]
    installed = {name: metadata.version(name).split("+")[0] for name in pins}
    assert installed == pins, "the environment is not what pyproject.toml says: make setup"


def test_the_grpc_family_fits_tritonclient() -> None:
    """The trap that pip falls into: newer grpcio helpers pull protobuf 7 in, and tritonclient back to 2023."""
    assert metadata.version("tritonclient") == "2.73.0"
    assert metadata.version("protobuf").startswith("6.")
    for helper in ("grpcio-health-checking", "grpcio-reflection", "grpcio-tools"):
        assert tuple(map(int, metadata.version(helper).split(".")[:2])) < (1, 82)


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = "import sys, world2vlm.cli; print(sorted({'torch', 'transformers', 'celery', 'scipy'} & sys.modules.keys()))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert finished.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The built wheel; built from a copy, so that the checkout stays clean."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out)]
    subprocess.run([*build, str(source)], check=True, timeout=300)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name not in ("Dockerfile", "README.md")
    }
    assert ours - set(wheel.namelist()) == set()
    assert not [name for name in wheel.namelist() if name.startswith(("tests/", "benchmarks/"))]


def test_the_wheel_has_the_commands_and_the_licence(wheel: zipfile.ZipFile) -> None:
    folder = next(name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
    entries = wheel.read(f"{folder}/entry_points.txt").decode()
    assert "world2vlm = world2vlm.cli:main" in entries
    for package, extra in EXTRA_OF.items():
        assert f"{extra} = {package}.cli:register" in entries
    assert b"Apache License" in wheel.read(f"{folder}/licenses/LICENSE")
