import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord, parse_records, read_records, to_line, write_records

RECORD = TaskRecord.create(
    "D2", "does it disappear?", "yes", ["scenes/1/traj_0/frames/000.png"], {"scene": "1", "frames": [0, 3]}
)
PUBLISHED = {
    "task_type": "A1",
    "messages": [
        {"role": "user", "content": "<image><image>How many meters?"},
        {"role": "assistant", "content": "move forward 0.5 meters"},
    ],
    "images": ["a.png", "b.png"],
}

words = st.text(min_size=1).filter(lambda text: "<image>" not in text and text.strip())
metas = st.dictionaries(words, st.none() | st.integers() | words | st.lists(st.floats(-9, 9)), max_size=3)
records = st.builds(TaskRecord.create, words, words.map(str.strip), words, st.lists(words, max_size=2), metas)


def test_the_published_format_is_read_and_written() -> None:
    record = TaskRecord.from_json(PUBLISHED)
    assert record == TaskRecord("A1", "<image><image>How many meters?", "move forward 0.5 meters", ("a.png", "b.png"))
    assert record.question == "How many meters?"
    assert record.to_json() == PUBLISHED


def test_meta_is_one_key_more() -> None:
    assert set(RECORD.to_json()) == {*PUBLISHED, "meta"}
    assert RECORD.to_json()["meta"] == {"scene": "1", "frames": [0, 3]}


@given(st.lists(records, max_size=5))
def test_records_read_back_as_they_were(batch: list[TaskRecord]) -> None:
    data = "".join(f"{to_line(record)}\n" for record in batch).encode()
    assert parse_records(data, "tasks.jsonl") == batch
    assert [record.question for record in batch] == [
        TaskRecord.from_json(record.to_json()).question for record in batch
    ]


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tasks.jsonl"
    write_records(path, [RECORD])
    write_records(str(path), [RECORD, RECORD])
    assert read_records(path) == [RECORD, RECORD]
    assert [found.name for found in path.parent.iterdir()] == ["tasks.jsonl"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    write_records(path, [RECORD])
    bad = TaskRecord.create("D2", "?", "yes", [], {"figure": float("nan")})
    with pytest.raises(InvalidInputError):
        write_records(path, [RECORD, bad])
    assert read_records(path) == [RECORD]


def _without(key: str) -> bytes:
    return json.dumps({name: value for name, value in PUBLISHED.items() if name != key}).encode()


def _with(**changes: object) -> bytes:
    return json.dumps({**PUBLISHED, **changes}).encode()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "Expecting"),
        (b"\xff", "utf-8"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (_without("task_type"), "'task_type'"),
        (_without("messages"), "'messages'"),
        (_without("images"), "'images'"),
        (_with(task_type=""), "needs a task_type"),
        (_with(messages=[]), "'messages'"),
        (_with(messages=[1, 2]), "'messages'"),
        (_with(messages=list(reversed(PUBLISHED["messages"]))), "'messages'"),
        (_with(messages=[{"role": "user"}, {"role": "assistant", "content": "x"}]), "'messages'"),
        (_with(images=["a.png"]), "2 <image> tags for 1 images"),
        (_with(images="ab"), "'images'"),
        (_with(images=[1, 2]), "'images'"),
        (_with(meta=[]), "'meta'"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, complaint: str) -> None:
    path = tmp_path / "tasks.jsonl"
    good = to_line(RECORD).encode()
    path.write_bytes(b"\n".join([good, b"", line, good]))
    with pytest.raises(InvalidInputError, match=r"tasks\.jsonl, line 3: ") as raised:
        read_records(path)
    assert complaint in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere\.jsonl"):
        read_records(tmp_path / "nowhere.jsonl")
