"""The benchmark of full-size serving at its smallest shape, on whatever runs the tests."""

import json
from pathlib import Path

from typer.testing import CliRunner

from benchmarks.serve import fullsize


def test_it_measures_the_decoder_beside_generate(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    arguments = ["--clients", "1,3", "--requests", "3", "--tokens", "4", "--json", str(path)]
    ended = CliRunner().invoke(fullsize.app, arguments)
    assert ended.exit_code == 0, ended.output
    result = json.loads(path.read_text())
    assert (result["shape"], result["tokens"]) == ("tiny", 4)
    assert all(result[f"ours, {clients} clients, the same answers"] == 1 for clients in (1, 3))
    assert result["generate(), requests/s"] > 0 and result["ours, 3 clients, requests/s"] > 0
    assert 0 < result["share of the limit"] < 1
    assert "share of the limit" in ended.output
