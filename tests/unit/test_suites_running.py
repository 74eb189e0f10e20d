"""A real checkpoint on tiny published files, from the command's function down, and the export for other harnesses."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner

from tests.suites_kit import encoded, sat_row, vsi_row, write_jsonl, write_parquet, write_video
from tests.vlm_kit import student
from trainer.evaluating import BENCHMARKS, check_benchmark, export_held_out
from trainer.suites import SUITES, Order
from trainer.suites.running import SuiteRun, evaluate_suite
from world2vlm.checkpoints import Registry
from world2vlm.cli import build_app
from world2vlm.datasets import publish_dataset
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.records import TaskRecord
from world2vlm.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suites")
    registry = Registry(Store(folder / "store"), "student")
    given = {"parent": None, "kind": "full", "dataset_digest": "", "recipe": "none", "metrics": {}}
    for seed in range(2):
        student(seed).save(folder / f"checkpoint{seed}")
        registry.publish(folder / f"checkpoint{seed}", key=str(seed), **given)  # type: ignore[arg-type]
    return folder / "store"


@pytest.fixture
def sat(tmp_path: Path) -> Path:
    rows = [
        sat_row(f"Q{index}?", ["left", "right"], "left", image_bytes=[encoded((index, 0, 0))]) for index in range(6)
    ]
    return write_parquet(tmp_path / "sat/SAT_test.parquet", rows).parent


def test_a_checkpoint_is_asked_and_compared(store: Path, sat: Path) -> None:
    run = SuiteRun(SUITES["sat"], str(sat), Order.CIRCULAR)
    tables, result = evaluate_suite(Registry(Store(store), "student"), 1, run, against=2)
    assert result["rows"]["overall"]["n"] == 6
    assert result["rows"]["overall"]["listed_first"] == 1
    assert set(result["against"]["changes"]["overall"]) == {"value", "low", "high", "p"}
    assert result["pictures"] == {"most": 2, "questions_cut": 0}
    shown = [reply["shown"] for reply in result["answers"][0]["replies"]]
    assert sorted(shown) == [["left", "right"], ["right", "left"]]
    assert len(tables) == 2
    assert evaluate_suite(Registry(Store(store), "student"), 1, run, against=2)[1] == result  # seeded all through


def test_a_video_is_cut_to_what_the_student_takes_and_the_result_says_so(store: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "scannet/s0.mp4")
    options = ["A. one", "B. two"]
    rows = [vsi_row(0, "object_counting", "3"), vsi_row(1, "object_rel_distance", "B", options)]
    write_jsonl(tmp_path / "test.jsonl", rows)
    _, result = evaluate_suite(Registry(Store(store), "student"), 1, SuiteRun(SUITES["vsi-bench"], str(tmp_path)))
    assert result["pictures"] == {"most": 2, "questions_cut": 2}
    assert [answer["images_used"] for answer in result["answers"]] == [2, 2]


def run(store: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> str:
    """What the command prints; raises what it raises."""
    monkeypatch.setenv("WORLD2VLM_STORE", str(store))
    done = CliRunner().invoke(build_app(), ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_a_table_and_writes_three_files(
    store: Path, sat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out/sat.json"
    given = ("--checkpoint", "1", "--benchmark", "sat", "--data", sat, "--circular", "--limit", "4", "--out", out)
    text = run(store, monkeypatch, *given)
    header = text.splitlines()[0]
    for column in ("95% interval", "mean over orders", "unparsed", "chance", "first", "frequent", "longest", "blind"):
        assert f" {column} " in header
    assert json.loads(out.read_text())["rows"]["overall"]["n"] == 4
    assert text in out.with_suffix(".md").read_text()
    assert out.with_suffix(".svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--benchmark", "vqa"), "unknown benchmark 'vqa'; known are held-out, sat, vsi-bench, mindcube"),
        (("--benchmark", "sat", "--data", ".", "--revision", "v1"), "--revision is for data sets on the hub"),
        (("--benchmark", "sat", "--data", "nowhere"), "hf download array/SAT"),
        (("--benchmark", "sat", "--data", "x", "--circular", "--unshuffled"), "exclude each other"),
        (("--revision", "v1"), "held-out takes --dataset and --out only"),
        (("--circular",), "held-out takes --dataset and --out only"),
    ],
)
def test_the_command_refuses(
    arguments: tuple[str, ...], says: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInputError, match=says):
        run(store, monkeypatch, "--checkpoint", "1", *arguments)


def test_all_suites_are_benchmarks() -> None:
    for name in BENCHMARKS:
        check_benchmark(name)
    assert set(BENCHMARKS) == {"held-out", *SUITES}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    store = Store(tmp_path / "store")
    store.write_bytes("bundles/s1/a.png", encoded((9, 9, 9)))
    records = [
        TaskRecord.create("D2", "Will the chair leave?", "yes", ["s1/a.png"], {"scene": "s1", "box": [1, 2, 3, 4]}),
        TaskRecord.create("A4", "True?", "false", ["s1/a.png", "s1/a.png"], {"scene": "s1"}),
        TaskRecord.create("A4", "True or not?", "true", ["s1/a.png", "s1/a.png"], {"scene": "s1"}),
    ]
    worlds = [{"world": "renderer", "licence": "Apache-2.0"}]
    publish_dataset(store, {"train": records[:1], "test": records}, {"worlds": worlds})
    assert export_held_out(store, "", tmp_path / "held_out.parquet") == 3
    return tmp_path / "held_out.parquet"


def lmms_task() -> ModuleType:
    path = ROOT / "integrations/lmms_eval/world2vlm_heldout/utils.py"
    spec = importlib.util.spec_from_file_location("lmms_task_utils", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lmms_eval_task_scores_exported_questions_as_we_do(exported: Path) -> None:
    utils = lmms_task()
    rows = sorted(parquet.read_table(exported).to_pylist(), key=lambda row: str(row["question"]))
    assert [row["task"] for row in rows] == ["A4", "A4", "D2"]
    assert [len(utils.doc_to_visual(row)) for row in rows] == [2, 2, 1]
    assert utils.doc_to_visual(rows[0])[0].getpixel((0, 0)) == (9, 9, 9)
    assert utils.doc_to_text(rows[2]) == "Will the chair leave?"
    results = [utils.process_results(row, [said]) for row, said in zip(rows, ["true", "hm", "yes"], strict=True)]
    assert [result["world2vlm_score"] for result in results] == [1, 0, 1]
    assert [result["world2vlm_unparsed"] for result in results] == [0, 1, 0]
    assert utils.mean_over_tasks([result["world2vlm_macro"] for result in results]) == 0.75


def test_the_lmms_eval_task_names_what_its_functions_are_called() -> None:
    text = (ROOT / "integrations/lmms_eval/world2vlm_heldout/world2vlm_heldout.yaml").read_text()
    utils = lmms_task()
    named = [word.removeprefix("utils.") for word in text.split() if word.startswith("utils.")]
    assert len(named) == 4 and all(callable(getattr(utils, name)) for name in named)


def test_exporting_from_an_empty_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="name a dataset"):
        export_held_out(Store(tmp_path / "store"), "", tmp_path / "x.parquet")
