import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from world2vlm.actions import parse_actions
from world2vlm.boxes import Box
from world2vlm.bundles import Bundle, Frame, ObjectView, read_bundle, write_bundle
from world2vlm.cameras import integrate, intrinsics_from_fov
from world2vlm.errors import PreconditionError
from world2vlm.images import encode_png
from world2vlm.records import TaskRecord
from world2vlm.report import Timings, build_report, print_report, render_page
from world2vlm.report.asked import Asked
from world2vlm.report.pictures import AFTER, BEFORE, TRUE, make_exhibit, make_strip
from world2vlm.rounds import RoundPlan, RoundState
from world2vlm.store import Store
from world2vlm.tasks import TASKS, Question

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
BOX = Box(200, 200, 600, 600)
ACTIONS = tuple(parse_actions("turn left 30 degrees; move forward 0.4 meters"))
STEPS = {"imagine 0": 8.0, "dataset": 1.0, "distil": 20.0, "evaluate": 10.0, "promote": 2.0}


def summary(score: float, low: float, high: float, skill: float) -> dict[str, float]:
    return {"score": score, "n": 40, "low": low, "high": high, "skill": skill, "skill_low": skill, "skill_high": skill}


def write_round(store: Store, reasons: tuple[str, ...] = (), steps: tuple[str, ...] = tuple(STEPS)) -> RoundState:
    """A round that ran for 41 seconds: the swap from second 39 to 41."""
    state = RoundState(store, "r1")
    state.create(RoundPlan("r1", train_scenes=2, test_scenes=1, steps=10))
    dataset = {"digest": "d" * 64, "records": 80, "splits": {"train": 60, "test": 20}, "bundles": 3}
    state.write_step("dataset", {**dataset, "by_task": dict.fromkeys(TASKS, 10), "rejected": {"collision": 4}})
    training = {"version": 2, "digest": "c" * 64, "parent": 1, "recipe": "sft", "steps": 10, "metrics": {"loss": 0.5}}
    state.write_step("training", training)
    tasks = [*TASKS, "macro"]
    evaluation = {
        "before": {task: summary(0.2, 0.1, 0.3, -0.1) for task in tasks},
        "after": {task: summary(0.8, 0.7, 0.9, 0.6) for task in tasks},
        "baselines": {task: {"chance": 0.1, "text": 0.3} for task in TASKS},
        "references": {task: {"blind": 0.2, **({"nearest": 0.6} if task[0] == "D" else {})} for task in TASKS},
        "probes": {
            "before": {"grounding": 0.5, "naming": 0.75},
            "after": {"grounding": 0.45, "naming": 0.625},
        },
        "calibration": {
            "binary": {
                "n": 20,
                "temperature": 1.5,
                "before": {"ece": 0.12, "bins": [{"probability": 0.9, "right": 0.7, "n": 20}]},
                "after": {"ece": 0.031, "bins": [{"probability": 0.75, "right": 0.7, "n": 20}]},
            }
        },
        "decision": {"promote": not reasons, "reasons": list(reasons)},
    }
    state.write_step("evaluation", evaluation)
    swap = {} if reasons else {"phases_ms": {"verify": 5.0, "load": 300.0}}
    promotion = {"promoted": not reasons, "version": 2, "from": 1, "reasons": list(reasons), "swap": swap}
    state.write_step("promotion", promotion)
    at = START
    for number, name in enumerate(steps):
        at += STEPS[name]
        event = {"at": datetime.fromtimestamp(at, UTC).isoformat(), "text": name, "figures": {"seconds": STEPS[name]}}
        store.write_json(f"rounds/r1/events/{number}.json", event)
    return state


def asked(during_ms: float = 400.0, steady_ms: float = 50.0) -> list[Asked]:
    before = [Asked(START + second, 90.0, "1") for second in range(38)]
    during = [Asked(START + 39.5, during_ms, "1"), Asked(START + 40.5, 100.0, "2")]
    return [*before, *during, *(Asked(START + 42 + number / 10, steady_ms, "2") for number in range(100))]


def report_of(state: RoundState, questions: list[Asked]) -> dict:
    return build_report(state, questions, Timings(START - 9, START, START + 52), {"student": 800.5, "all": 2000.0})


def write_test_bundle(root: Path) -> str:
    rng = np.random.default_rng(0)
    intrinsics = intrinsics_from_fov(90, 128, 128)
    steps = ((), ACTIONS[:1], ACTIONS[1:])
    view = ObjectView(3, "chair", "red", BOX, 0.1)
    frames = tuple(
        Frame(
            encode_png(rng.integers(0, 255, (128, 128, 3), dtype=np.uint8)),
            pose,
            intrinsics,
            (128, 128),
            step,
            True,
            (view,),
        )
        for pose, step in zip(integrate(ACTIONS), steps, strict=True)
    )
    bundle = Bundle("room_1", "000", frames, {"world": "renderer"})
    write_bundle(root, bundle)
    return bundle.relative_path.as_posix()


def record(task: str, question: Question, answer: str, folder: str) -> TaskRecord:
    images = [f"{folder}/frames/000.png", f"{folder}/frames/002.png"][: TASKS[task].images]
    meta = {"frames": [0, 2], "instance": 3, "box": list(BOX.corners)}
    return TaskRecord.create(task, question.text, answer, images, meta)


def sample(before: str, after: str) -> dict:
    return {"before": {"answer": before, "score": 0.0}, "after": {"answer": after, "score": 1.0}}


def pixels(uri: str) -> np.ndarray:
    import base64

    data = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_report_has_the_promised_shape(tmp_path: Path) -> None:
    report = report_of(write_round(Store(tmp_path)), asked())
    assert {"machine", "versions", "seconds", "baselines", "before", "after", "swap", "dataset", "checkpoint"} <= set(
        report
    )
    for side in ("before", "after"):
        assert set(report[side]) == set(TASKS)
        assert {"score", "n", "low", "high", "skill"} <= set(report[side]["A1"])
    assert {"digest", "records", "by_task", "rejected"} <= set(report["dataset"])
    assert {"version", "digest", "parent"} <= set(report["checkpoint"])
    assert report["seconds"] == {
        "start": 9.0, "imagine": 8.0, "dataset": 1.0, "distil": 20.0, "evaluate": 10.0, "promote": 2.0, "total": 61.0,
    }  # fmt: skip
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_swap_figures_come_from_the_questions(tmp_path: Path) -> None:
    swap = report_of(write_round(Store(tmp_path)), [*asked(), Asked(START + 60, 10.0, "", "unavailable: gone")])["swap"]
    assert (swap["from"], swap["to"], swap["queries"], swap["failed"]) == (1, 2, 141, 1)
    assert swap["errors"] == ["unavailable: gone"]
    assert swap["versions_seen"] == ["1", "2"]
    assert (swap["queries_during"], swap["queries_steady"]) == (2, 101)
    assert swap["p50_steady_ms"] == 50.0
    assert swap["p99_during_ms"] == pytest.approx(397.0)


def test_a_refused_checkpoint_is_reported_with_its_reason(tmp_path: Path) -> None:
    report = report_of(write_round(Store(tmp_path), reasons=("A1 fell by 0.2",)), asked())
    assert report["swap"]["promoted"] is False
    assert report["swap"]["to"] == report["swap"]["from"] == 1
    console = Console(record=True, width=140, file=io.StringIO())
    print_report(console, report)
    text = console.export_text()
    assert "Not promoted, version 1 keeps serving" in text
    assert "A1 fell by 0.2" in text


def test_an_unfinished_round_has_no_report(tmp_path: Path) -> None:
    state = RoundState(Store(tmp_path), "r1")
    state.create(RoundPlan("r1", train_scenes=2, test_scenes=1, steps=10))
    with pytest.raises(PreconditionError, match=r"dataset\.json"):
        report_of(state, [])
    without_evaluation = write_round(Store(tmp_path / "other"), steps=("imagine 0", "dataset", "distil", "promote"))
    with pytest.raises(PreconditionError, match="evaluate"):
        report_of(without_evaluation, [])


def test_half_a_sequence_is_not_right(tmp_path: Path) -> None:
    folder = write_test_bundle(tmp_path)
    asked = record("A3", Question("A3"), "turn right 30 degrees; move forward 0.6 meters", folder)
    said = {"answer": "turn right 30 degrees; move left 0.6 meters", "score": 0.5}
    exhibit = make_exhibit(tmp_path, asked, {"before": said, "after": {**said, "score": 1.0}})
    assert (exhibit.before.right, exhibit.after.right) == (False, True)


def test_exhibit_draws_the_true_and_the_given_boxes(tmp_path: Path) -> None:
    folder = write_test_bundle(tmp_path)
    question = Question("D1", ACTIONS, "chair", BOX)
    exhibit = make_exhibit(
        tmp_path,
        record("D1", question, "[100, 100, 300, 300]", folder),
        sample("[500, 500, 900, 900]", "[100, 120, 300, 320]"),
    )
    assert [picture.caption for picture in exhibit.pictures] == ["source", "imagined"]
    assert (exhibit.before.right, exhibit.after.right) == (False, True)
    image = pixels(exhibit.pictures[1].uri)
    for colour, box in (
        (TRUE, Box(100, 100, 300, 300)),
        (BEFORE, Box(500, 500, 900, 900)),
        (AFTER, Box(100, 120, 300, 320)),
    ):
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        # The lower edge, where no label lies.
        y, x1, x2 = (round(value * 256 / 1000) for value in (box.y2, box.x1, box.x2))
        edge = image[y - 1 : y + 2, x1 + 6 : x2 - 6]
        assert np.abs(edge - wanted).sum(axis=-1).min() < 90


def test_exhibit_survives_an_answer_that_is_no_box(tmp_path: Path) -> None:
    folder = write_test_bundle(tmp_path)
    exhibit = make_exhibit(
        tmp_path,
        record("D1", Question("D1", ACTIONS, "chair", BOX), "[100, 100, 300, 300]", folder),
        sample("<b>somewhere</b>", "[1, 2, 3, 4]"),
    )
    assert exhibit.before.text == "<b>somewhere</b>"


def test_one_image_questions_show_what_came(tmp_path: Path) -> None:
    folder = write_test_bundle(tmp_path)
    question = Question("D2", ACTIONS, "chair", BOX)
    exhibit = make_exhibit(tmp_path, record("D2", question, "no", folder), sample("yes", "no"))
    assert [picture.caption for picture in exhibit.pictures] == ["source", "what came, not shown to the student"]


def test_strip_shows_key_frames_with_their_actions(tmp_path: Path) -> None:
    folder = write_test_bundle(tmp_path)
    strip = make_strip(tmp_path, folder)
    assert [picture.caption for picture in strip.pictures] == ["source", *map(str, ACTIONS)]
    assert len(read_bundle(tmp_path / folder).frames) == len(strip.pictures)


def test_page_is_whole_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    folder = write_test_bundle(tmp_path)
    question = Question("D1", ACTIONS, "chair", BOX)
    exhibit = make_exhibit(tmp_path, record("D1", question, "[1, 2, 3, 4]", folder), sample("<script>", "[1, 2, 3, 4]"))
    report = report_of(write_round(Store(tmp_path / "store")), asked())
    page = render_page(report, asked(), [make_strip(tmp_path, folder)], [exhibit])
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)
    assert "http" not in page
    # The first nine questions were asked more than half a minute before the swap.
    assert page.count('<circle class="') == len(asked()) - 9
    assert "binary, n = 20: ECE 0.120 → 0.031" in page
    assert page.count('class="interval"') == 2 * len(TASKS)
    for task in TASKS:
        assert f">{task}</text>" in page
    assert "no held-out question" not in page


def test_the_page_says_which_tasks_nobody_could_ask(tmp_path: Path) -> None:
    report = report_of(write_round(Store(tmp_path / "store")), asked())
    assert report["dataset"]["missing_tasks"] == []
    report["dataset"]["missing_tasks"] = ["D1", "D4"]
    for side in ("before", "after"):
        del report[side]["D1"], report[side]["D4"]
    page = render_page(report, asked(), [], [])
    assert page.count("no held-out question") == 2 and "6 tasks" in page
