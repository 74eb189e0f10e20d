"""Suites fetched from a hub on this machine: what is read, what is kept, and what is refused."""

import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_kit import Files, Hub, contents, packed, serving
from tests.suites_kit import (
    MOVED,
    VIEWS,
    WAYS,
    cube_files,
    cube_row,
    encoded,
    sat_row,
    vsi_row,
    write_jsonl,
    write_parquet,
    write_video,
)
from tests.vlm_kit import student
from trainer.suites import SUITES, SuiteItem
from trainer.suites.hub import locate
from trainer.suites.running import SuiteRun, evaluate_suite
from world2vlm.checkpoints import Registry
from world2vlm.errors import InvalidInputError, NotFoundError, UnavailableError
from world2vlm.store import Store

SAT, VSI, CUBE = SUITES["sat"], SUITES["vsi-bench"], SUITES["mindcube"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the three suites and an empty cache."""
    with serving() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
        template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf/hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "hf/assets"))
        server.publish(SAT.repository, sat_published(tmp_path / "made/sat"))
        server.publish(VSI.repository, vsi_published(tmp_path / "made/vsi-bench"))
        server.publish(CUBE.repository, cube_published(tmp_path / "made/mindcube"))
        yield server


def sat_published(folder: Path, question: str = "Did it move?") -> Files:
    rows = [sat_row(f"{question} {number}", ["yes", "no"], "no") for number in range(4)]
    write_parquet(folder / "SAT_test.parquet", rows)
    return {**contents(folder), "README.md": b"SAT", "SAT_train.parquet": b"gigabytes"}


def vsi_published(folder: Path) -> Files:
    rows = [
        {**vsi_row(0, "object_rel_direction_hard", "C", WAYS), "dataset": "arkitscenes"},
        vsi_row(1, "room_size_estimation", "30.9"),
        {**vsi_row(2, "object_counting", "3"), "dataset": "scannetpp"},
    ]
    for number, row in enumerate(rows):
        write_video(folder / row["dataset"] / "s0.mp4", frames=5 + number)
    files = contents(write_jsonl(folder / "test.jsonl", rows).parent)
    videos = {name: data for name, data in files.items() if name.endswith(".mp4")}
    archives = {f"{name.split('/')[0]}.zip": packed({name: data}) for name, data in videos.items()}
    return {"test.jsonl": files["test.jsonl"], **archives, "test_debiased.parquet": b"", "create_pq.py": b"raise"}


def cube_published(folder: Path) -> Files:
    rows = [cube_row(f"among_q{number}", MOVED, "B", VIEWS) for number in range(3)]
    return {"data.zip": packed({**contents(cube_files(folder, rows)), "data/setup.py": b"raise"}), "README.md": b""}


def texts(items: list[SuiteItem]) -> list[tuple[str, ...]]:
    return [(item.id, item.question, item.truth, *item.choices) for item in items]


def pixels(items: list[SuiteItem]) -> list[bytes]:
    return [picture.tobytes() for item in items for picture in item.pictures.load(2)]


@pytest.mark.parametrize(
    ("name", "fetched"),
    [
        ("sat", ["SAT_test.parquet"]),
        ("vsi-bench", ["arkitscenes.zip", "scannet.zip", "scannetpp.zip", "test.jsonl"]),
        ("mindcube", ["data.zip"]),
    ],
)
def test_what_is_fetched_reads_as_from_a_folder(name: str, fetched: list[str], hub: Hub, tmp_path: Path) -> None:
    suite = SUITES[name]
    located = locate(suite)
    assert hub.fetched() == fetched
    assert (located.repository, located.revision) == (suite.repository, next(iter(hub.commits[suite.repository])))
    ours, theirs = suite.read(located.path), suite.read(tmp_path / "made" / name)
    assert texts(ours) == texts(theirs) and pixels(ours) == pixels(theirs)
    assert not list((tmp_path / "hf").rglob("*.py"))
    assert locate(suite) == located
    assert hub.fetched() == []  # once


def test_without_a_network_the_cache_is_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    located = locate(CUBE)
    hub.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert locate(CUBE) == locate(CUBE, revision=located.revision) == located
    assert not hub.asked
    with pytest.raises(UnavailableError, match=r"array/SAT .*HF_HUB_OFFLINE.*hf download array/SAT SAT_test\."):
        locate(SAT)


def test_a_revision_is_pinned(hub: Hub, tmp_path: Path) -> None:
    first = next(iter(hub.commits[SAT.repository]))
    second = hub.publish(SAT.repository, sat_published(tmp_path / "newer", "Did it turn?"))
    for revision, commit, question in (("", second, "Did it turn?"), (first, first, "Did it move?")):
        located = locate(SAT, revision=revision)
        assert located.revision == commit
        assert SAT.read(located.path)[0].question.startswith(question)
    with pytest.raises(NotFoundError, match="array/SAT has no revision 'v9'"):
        locate(SAT, revision="v9")
    with pytest.raises(InvalidInputError, match="--revision is for data sets on the hub"):
        locate(SAT, str(tmp_path / "newer"), first)


def test_another_data_set_is_named_as_on_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("somebody/SAT-copy", sat_published(tmp_path / "copy"))
    assert locate(SAT, "somebody/SAT-copy").repository == "somebody/SAT-copy"
    with pytest.raises(NotFoundError, match="'somebody/else' is no folder here, and the hub has no data set of that"):
        locate(SAT, "somebody/else")
    with pytest.raises(NotFoundError, match="is no folder here"):
        locate(SAT, "not--a/name")
    with pytest.raises(NotFoundError, match=r"somebody/SAT-copy has no data\.zip at revision [0-9a-f]{40}"):
        locate(CUBE, "somebody/SAT-copy")
    hub.publish("somebody/empty", {"README.md": b""})
    with pytest.raises(NotFoundError, match=r"somebody/empty has no SAT_test\.parquet or data/test-\*\.parquet"):
        locate(SAT, "somebody/empty")
    # A folder goes before a data set of the same name.
    monkeypatch.chdir(tmp_path)
    Path("somebody/SAT-copy").mkdir(parents=True)
    hub.asked.clear()
    assert (locate(SAT, "somebody/SAT-copy").repository, hub.asked) == ("", [])


def test_a_gated_data_set_says_where_its_terms_are(hub: Hub) -> None:
    hub.gated.add(SAT.repository)
    with pytest.raises(UnavailableError, match=f"accept its terms at {hub.endpoint}/datasets/array/SAT, then log in"):
        locate(SAT)


def test_a_hub_that_fails_or_is_away_says_how_to_get_the_files(hub: Hub) -> None:
    hub.broken = True
    with pytest.raises(UnavailableError, match=r"500 .*hf download MLL-Lab/MindCube .*unzip"):
        locate(CUBE)
    hub.shutdown()
    hub.server_close()
    with pytest.raises(UnavailableError, match=r"cannot be fetched now: .*hf download MLL-Lab/MindCube"):
        locate(CUBE)


def linked() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("data/link.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def damaged() -> bytes:
    archive = packed({"data/a.jpg": encoded(), "data/b.jpg": encoded()})
    second = archive.rindex(b"PK\x03\x04")
    return archive[:second] + b"PK\x03\x05" + archive[second + 4 :]


@pytest.mark.parametrize(
    ("archive", "says"),
    [
        (packed({"data/a.jpg": b"", "../../outside.jpg": b"x"}), r"'../../outside\.jpg' leaves the folder; refused"),
        (packed({"/proc/outside.jpg": b"x"}), "'/proc/outside.jpg' leaves the folder; refused"),
        (linked(), "'data/link.jpg' is a link or a device; refused"),
        (packed({"data/bomb.jpg": bytes(1 << 22)}), "would grow to 4,194,304; refused"),
        (damaged(), "cannot be unpacked: .*; delete .*blobs.* and try again"),
        (b"no archive", "cannot be unpacked: File is not a zip file"),
    ],
    ids=["above", "absolute", "link", "bomb", "damaged", "no-zip"],
)
def test_an_archive_that_is_unsafe_or_broken_leaves_nothing(
    archive: bytes, says: str, hub: Hub, tmp_path: Path
) -> None:
    good = next(iter(hub.commits[CUBE.repository]))
    hub.publish(CUBE.repository, {"data.zip": archive})
    with pytest.raises(InvalidInputError, match=f"data.zip: .*{says}"):
        locate(CUBE)
    assert [path.suffix for path in (tmp_path / "hf/assets").rglob("*") if path.is_file()] == [".lock"]
    assert not list(tmp_path.rglob("outside*"))
    assert len(CUBE.read(locate(CUBE, revision=good).path)) == 3


def test_a_cache_that_cannot_be_written_is_said(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "hf/assets").mkdir(parents=True)
    (tmp_path / "hf/assets/world2vlm").write_text("in the way")
    with pytest.raises(UnavailableError, match="the archives of MLL-Lab/MindCube cannot be unpacked"):
        locate(CUBE)


def environment(hub: Hub, folder: Path) -> dict[str, str]:
    """The same hub and cache for another process."""
    return {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf")}


_KILLED = """
import os, re, signal, sys
from trainer.suites import SUITES
from trainer.suites.hub import locate

def die(event, arguments):
    global left
    if event == sys.argv[1] and re.search(sys.argv[2], str(arguments[0])):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

left = int(sys.argv[3])
sys.addaudithook(die)
locate(SUITES["mindcube"])
"""


@pytest.mark.parametrize(
    ("event", "path", "nth"),
    [("open", r"/data\.zip$", 1), ("os.rename", r"\.part/", 2), ("os.rename", r"\.part$", 1)],
    ids=["before-unpacking", "while-unpacking", "before-publishing"],
)
def test_a_kill_leaves_nothing_half_read(event: str, path: str, nth: int, hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, event, path, str(nth)]
    assert subprocess.run(command, env=environment(hub, tmp_path), check=False).returncode == -signal.SIGKILL
    unpacked = tmp_path / "hf/assets/world2vlm/MLL-Lab--MindCube/unpacked"
    assert not unpacked.exists() or not [path for path in unpacked.iterdir() if not path.name.startswith(".")]
    assert hub.fetched() == ["data.zip"]
    located = locate(CUBE)
    assert hub.fetched() == []
    assert len(pixels(CUBE.read(located.path))) == 6
    assert sorted(path.name for path in unpacked.iterdir()) == [f".{located.revision}.lock", located.revision]


def test_the_command_fetches_scores_and_says_what_it_read(hub: Hub, tmp_path: Path) -> None:
    registry = Registry(Store(tmp_path / "store"), "student")
    student(0).save(tmp_path / "checkpoint")
    registry.publish(
        tmp_path / "checkpoint", parent=None, kind="full", dataset_digest="", recipe="none", metrics={}, key="0"
    )
    commit = next(iter(hub.commits[CUBE.repository]))
    command = [sys.executable, "-m", "world2vlm", "evaluate", "--benchmark", "mindcube", "--checkpoint"]
    done = subprocess.run(
        [*command, "1", "--out", str(tmp_path / "out.json")],
        env={**environment(hub, tmp_path), "WORLD2VLM_STORE": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"fetching {CUBE.repository} from the hub" in done.stderr
    assert not re.search(r"Fetching|Downloading|Reconstruct|http://", done.stderr)
    assert f"Questions: {CUBE.repository} at {commit}" in (tmp_path / "out.md").read_text()
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result.pop("repository"), result.pop("revision")) == (CUBE.repository, commit)
    _, local = evaluate_suite(registry, 1, SuiteRun(CUBE, str(tmp_path / "made/mindcube")))
    assert (local.pop("repository"), local.pop("revision")) == ("", "")
    assert result == json.loads(json.dumps(local))
    hub.asked.clear()
    with pytest.raises(NotFoundError, match="version 9"):
        evaluate_suite(registry, 9, SuiteRun(VSI))
    assert not hub.asked  # gigabytes are not fetched for nothing
