"""The benchmarks at their smallest: each checks its sides against each other, times them and prints the ratio."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import gates, objects, packing, teacher
from benchmarks.teach.service import check_equal
from benchmarks.timing import Result, interleave
from tests.vlm_kit import student

PACKING = ["--clips", "2", "--questions", "3", "--scenes", "1", "--repetitions", "2"]
TEACHER = ["--transitions", "2", "--side", "32", "--scenes", "1", "--trajectories", "1", "--repetitions", "1"]


def run(app: typer.Typer, arguments: list[str], path: Path) -> tuple[Any, str]:
    ended = CliRunner().invoke(app, [*arguments, "--json", str(path)])
    assert ended.exit_code == 0, ended.output
    return json.loads(path.read_text(encoding="utf-8")), ended.output


def test_it_prints_a_ratio_and_writes_it(tmp_path: Path) -> None:
    sides = ["transformers", "one a row", "packed"]
    result, output = run(packing.app, PACKING, tmp_path / "result.json")
    assert list(result["sides"]) == sides
    assert result["machine"]["cpu"] in output and result["versions"]["python"] in output
    for name, side in result["sides"].items():
        assert len(side["seconds"]) == 2
        assert side["median"] >= side["min"] > 0
        printed = re.search(rf"^{re.escape(name)} .* ([\d.]+)$", output, re.MULTILINE)
        assert printed and float(printed[1]) == pytest.approx(side["speed"], abs=0.006)
    assert result["sides"][sides[0]]["speed"] == 1


def test_the_teacher_s_parts_are_printed_and_written_with_their_claims(tmp_path: Path) -> None:
    parts = ["rooms", "motorcycle", "service"]
    chosen = [each for part in parts for each in ("--only", part)]
    result, output = run(teacher.app, [*chosen, *TEACHER], tmp_path / "result.json")
    assert list(result["parts"]) == parts
    assert list(result["parts"]["service"]["sides"]) == ["in-process", "gRPC, 1 stream", "gRPC, 4 streams"]
    assert result["parts"]["rooms"]["copy of the photo"]["nearest"] == 0
    claims = [claim for part in result["parts"].values() for claim in part["claims"]]
    assert len(claims) == 5
    for claim in claims:
        assert f"{'met   ' if claim['is_met'] else 'MISSED'} {claim['text']}" in output
    assert result["parts"]["motorcycle"]["claims"][0]["is_met"]


def test_what_the_gates_say_is_counted_and_written_with_its_claims(tmp_path: Path) -> None:
    result, output = run(gates.app, ["--crops", "1", "--rooms", "1", "--moves", "1"], tmp_path / "result.json")
    assert result["options"]["panoramas"] == ["interior", "studio"] and result["options"]["crops"] == 1
    turns = result["parts"]["turns of photographs"]
    assert (turns["right"]["judged"], turns["right"]["accepted"]) == (2, 2)
    assert turns["opposite way"]["accepted"] == 0 and turns["opposite way"]["rejected_by"]["yaw"] == 2
    claims = [claim for part in result["parts"].values() for claim in part["claims"]]
    assert len(claims) == 6
    assert all(claim["is_met"] for claim in turns["claims"])
    estimated = [title for title in result["parts"] if title.endswith("depth estimated (tiny)")]
    assert [title.split(",")[0] for title in estimated] == ["moves", "trajectories"]
    for claim in claims:
        assert f"{'met   ' if claim['is_met'] else 'MISSED'} {claim['text']}" in output


def test_the_objects_shares_are_printed_and_written(tmp_path: Path) -> None:
    result, output = run(objects.app, ["--scenes", "6", "--trajectories", "1"], tmp_path / "result.json")
    found = result["parts"]["identity"]
    assert result["options"] == {"scenes": 6, "trajectories": 1}
    assert f"{found['detections']} detections of {found['walks']} walks" in output
    assert found["reprojection"]["low"] <= found["reprojection"]["value"] <= found["reprojection"]["high"]


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
        check_equal([], [])
