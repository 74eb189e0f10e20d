"""A whole round against real processes: `world2vlm demo --mini`, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from world2vlm.checkpoints import Registry
from world2vlm.datasets import load_dataset
from world2vlm.demo.load import typed_question
from world2vlm.store import Store
from world2vlm.tasks import TASKS

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "demo"
    command = [sys.executable, "-m", "world2vlm", "demo", "--mini", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Held-out rooms" in done.stdout
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def test_no_question_was_lost_and_every_answer_names_its_version(report: dict[str, Any]) -> None:
    swap = report["swap"]
    assert swap["failed"] == 0, swap["errors"]
    assert swap["queries"] >= 200
    assert swap["versions_seen"] == sorted({str(swap["from"]), str(swap["to"])})
    assert swap["p99_steady_ms"] > 0


def test_the_new_checkpoint_serves_or_is_refused_with_a_reason(report: dict[str, Any], out: Path) -> None:
    swap, checkpoint = report["swap"], report["checkpoint"]
    assert swap["promoted"] is not bool(swap["reasons"])
    assert swap["to"] == (checkpoint["version"] if swap["promoted"] else checkpoint["parent"])
    registry = Registry(Store(out / "store"), report["round"]["student"])
    assert registry.serving() == swap["to"]
    assert registry.verify(checkpoint["version"]).digest == checkpoint["digest"]


def test_scores_have_intervals_baselines_and_skill_for_all_tasks(report: dict[str, Any]) -> None:
    for side in ("before", "after"):
        assert set(report[side]) == set(TASKS)
        for figures in report[side].values():
            assert figures["n"] > 0
            assert 0 <= figures["low"] <= figures["score"] <= figures["high"] <= 1
            assert figures["skill"] <= 1
    assert all("chance" in report["baselines"][task] for task in TASKS)


def test_the_client_asks_what_the_records_ask(report: dict[str, Any], out: Path) -> None:
    records = load_dataset(Store(out / "store"), report["dataset"]["digest"]).splits["test"]
    assert {record.task_type for record in records} == set(TASKS)
    assert all(typed_question(record).text == record.question for record in records)


def test_dataset_time_and_memory_are_reported(report: dict[str, Any]) -> None:
    dataset = report["dataset"]
    assert sum(dataset["by_task"].values()) == dataset["records"] > 0
    assert set(report["seconds"]) == {"start", "imagine", "dataset", "distil", "evaluate", "promote", "total"}
    assert report["machine"]["cores"] >= 1
    assert {"teacher", "student", "worker", "all"} <= set(report["memory_peak_mb"])


def test_the_page_shows_every_task(out: Path) -> None:
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 2 * len(TASKS)
    assert page.count("<circle") >= 200


def test_a_folder_that_is_no_demonstration_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "store" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    command = [sys.executable, "-m", "world2vlm", "demo", "--mini", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert precious.read_text() == "mine"
