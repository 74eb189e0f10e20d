"""The benchmarks at their smallest: each checks its sides against each other, times them and prints the ratio."""

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import packing, teacher
from benchmarks.timing import Result, interleave
from tests.vlm_kit import student

PACKING = ["--clips", "2", "--questions", "3", "--scenes", "1", "--repetitions", "2"]
TEACHER = ["--scenes", "1", "--trajectories", "1", "--repetitions", "2"]


@pytest.mark.parametrize(
    ("app", "arguments", "sides"),
    [
        (packing.app, PACKING, ["transformers", "one a row", "packed"]),
        (teacher.app, TEACHER, ["in-process", "gRPC, 1 stream", "gRPC, 4 streams"]),
    ],
)
def test_it_prints_a_ratio_and_writes_it(
    app: typer.Typer, arguments: list[str], sides: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    run = CliRunner().invoke(app, [*arguments, "--json", str(path)])
    assert run.exit_code == 0, run.output
    result = json.loads(path.read_text(encoding="utf-8"))
    assert list(result["sides"]) == sides
    assert result["machine"]["cpu"] in run.output and result["versions"]["python"] in run.output
    for name, side in result["sides"].items():
        assert len(side["seconds"]) == 2
        assert side["median"] >= side["min"] > 0
        printed = re.search(rf"^{re.escape(name)} .* ([\d.]+)$", run.output, re.MULTILINE)
        assert printed and float(printed[1]) == pytest.approx(side["speed"], abs=0.006)
    assert result["sides"][sides[0]]["speed"] == 1


def test_sides_take_turns() -> None:
    order: list[str] = []
    seconds = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 3
    assert {side: len(times) for side, times in seconds.items()} == {"a": 3, "b": 3}


def test_speeds_are_ratios_of_medians() -> None:
    result = Result("x", "things", 10, {}, {"a": [4.0, 100.0, 2.0], "b": [1.0, 2.0, 50.0]})
    assert result.speeds == {"a": 1.0, "b": 2.0}
    assert result.as_json()["sides"]["b"]["per_second"] == 5.0


def test_sides_that_differ_are_not_timed() -> None:
    model = student()
    weight = next(model.model.parameters())
    with pytest.raises(SystemExit, match="b does not compute the same step"):
        packing.check_equal(model, {"a": lambda: weight.sum(), "b": lambda: 1.01 * weight.sum()})
    with pytest.raises(SystemExit, match="does not give the frames"):
        teacher.check_equal([], [])
