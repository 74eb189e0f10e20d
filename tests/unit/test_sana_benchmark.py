"""The SANA-WM benchmark at its smallest: a tiny pipeline on a CPU, its sides checked against each other."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.teach import sana
from tests.worlds_kit import tiny_sana

SMALL = ["--width", "64", "--height", "64", "--frames", "9", "--steps", "1", "--paths", "2", "--repetitions", "2"]


def test_it_prints_frames_a_second_and_the_share_of_the_peak(tmp_path: Path) -> None:
    arguments = ["--model", str(tiny_sana(tmp_path / "sana")), "--device", "cpu", *SMALL]
    run = CliRunner().invoke(sana.app, [*arguments, "--json", str(tmp_path / "result.json")])
    assert run.exit_code == 0, run.output
    assert "2 paths are the same by diffusers and by ours, byte for byte" in run.output
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert list(result["sides"]) == ["diffusers", "batch of 1", "batch of 2"]
    assert result["amount"] == 18 and result["counted_tflop"] > 0
    for name, side in result["sides"].items():
        share = result["counted_tflop"] / side["median"] / result["peak_tflops"]
        assert side["share_of_peak"] == pytest.approx(share) and 0 < share < 1
        assert f"{name:<16}{share:>8.1%} of that" in run.output


def test_sides_that_differ_are_not_timed() -> None:
    black, white = np.zeros((9, 8, 8, 3), np.uint8), np.full((9, 8, 8, 3), 255, np.uint8)
    with pytest.raises(SystemExit, match="does not make the frames"):
        sana.check_equal([black], [white], [white])
