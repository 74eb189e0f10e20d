"""The benchmark of fine-tuning at its smallest: it runs, and says so where TRL is missing."""

import json
from importlib.util import find_spec
from pathlib import Path

from typer.testing import CliRunner

from benchmarks import training

SMALL = ["--records", "64", "--rooms", "1", "--repetitions", "1", "--layers", "1", "--only", "lora"]


def test_it_trains_and_writes_what_it_found(tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    run = CliRunner().invoke(training.app, [*SMALL, "--result", str(path)])
    assert run.exit_code == 0, run.output
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["machine"]["cpu"] in run.output
    ours = result["parts"]["lora"]["ours"]
    assert len(ours["loss"]) == result["parts"]["lora"]["steps"] == 8
    assert ours["samples_per_s"] > 0 and ours["loss"][-1] < ours["loss"][0]
    if find_spec("trl") is None:
        assert "TRL is left out" in run.output and "trl" not in result["parts"]["lora"]
    else:
        assert result["parts"]["lora"]["loss_curves_apart"] < 1e-3
