"""One suite for every kind of store, then what only a folder must withstand: several processes, and death."""

import hashlib
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

import world2vlm
from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError
from world2vlm.store import Store


@pytest.fixture(params=["folder", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    urls = {
        "folder": str(tmp_path / "store"),
        "file": f"file://{tmp_path}/store",
        "memory": f"memory://{uuid.uuid4().hex}/store",
    }
    return Store(urls[request.param], cache=tmp_path / "cache")


def test_what_is_written_is_read(store: Store) -> None:
    store.write_bytes("a/b/c.bin", b"\x00one")
    assert store.read_bytes("a/b/c.bin") == b"\x00one"
    store.write_bytes("a/b/c.bin", b"two")
    assert store.read_bytes("a/b/c.bin") == b"two"


def test_what_is_missing_is_not_found(store: Store) -> None:
    store.write_bytes("a/b", b"1")
    for path in ("x", "a", "a/b/c", "a/c"):
        with pytest.raises(NotFoundError, match=path):
            store.read_bytes(path)
    with pytest.raises(NotFoundError):
        store.local("x")


def test_files_and_folders_exist(store: Store) -> None:
    assert not store.exists("a")
    store.write_bytes("a/b", b"")
    assert store.exists("a")
    assert store.exists("a/b")
    assert not store.exists("a/bc")


def test_listing_is_recursive_and_sorted(store: Store) -> None:
    assert store.list() == []
    for path in ("b", "a/2/x", "a/10", "ab/c"):
        store.write_bytes(path, b"")
    assert store.list() == ["a/10", "a/2/x", "ab/c", "b"]
    assert store.list("a") == ["a/10", "a/2/x"]
    assert store.list("b") == ["b"]
    assert store.list("nowhere") == []


def test_children_are_the_names_one_level_down(store: Store) -> None:
    for path in ("b", "a/2/x", "a/10", "ab/c"):
        store.write_bytes(path, b"")
    assert store.children() == ["a", "ab", "b"]
    assert store.children("a") == ["10", "2"]
    assert store.children("nowhere") == []
    assert store.children("b") == []


def test_creating_succeeds_once(store: Store) -> None:
    assert store.create_bytes("a/b", b"first")
    assert not store.create_bytes("a/b", b"second")
    assert store.read_bytes("a/b") == b"first"
    assert store.list() == ["a/b"]


def test_deleting_takes_a_file_or_a_folder_and_nothing_else(store: Store) -> None:
    for path in ("a/1", "a/b/2", "ab/3", "c"):
        store.write_bytes(path, b"")
    store.delete("a")
    assert store.list() == ["ab/3", "c"]
    store.delete("c")
    assert store.list() == ["ab/3"]
    store.delete("nowhere")
    assert store.list() == ["ab/3"]


def test_json(store: Store) -> None:
    payload = {"name": "Stühle", "numbers": [1, 0.5, None]}
    store.write_json("a.json", payload)
    assert store.read_json("a.json") == payload
    assert not store.create_json("a.json", {})
    assert store.read_json("a.json") == payload


@pytest.mark.parametrize("payload", [float("nan"), {"a": float("inf")}, object()], ids=["nan", "inf", "object"])
def test_what_is_not_json_is_refused_before_anything_is_written(store: Store, payload: object) -> None:
    with pytest.raises(InvalidInputError, match=r"a\.json"):
        store.write_json("a.json", payload)
    assert not store.exists("a.json")


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe\x00", b""])
def test_broken_json_is_corrupted_data(store: Store, data: bytes) -> None:
    store.write_bytes("a.json", data)
    with pytest.raises(DataCorruptedError, match=r"a\.json"):
        store.read_json("a.json")


def test_uploading_says_what_was_copied(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 3_000_000)
    assert store.upload(source, "a/weights") == hashlib.sha256(b"w" * 3_000_000).hexdigest()
    assert store.read_bytes("a/weights") == source.read_bytes()


def test_a_local_copy_has_the_stores_content(store: Store) -> None:
    store.write_bytes("a/b/c", b"old")
    store.write_bytes("a/d", b"d")
    assert store.local("a/b/c").read_bytes() == b"old"
    store.write_bytes("a/b/c", b"new")
    folder = store.local("a")
    assert (folder / "b/c").read_bytes() == b"new"
    assert (folder / "d").read_bytes() == b"d"


def test_two_stores_of_one_root_are_one(store: Store) -> None:
    store.write_bytes("a", b"1")
    assert Store(store.root).read_bytes("a") == b"1"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", ".hidden", "a/.b", "a\\b", "a\0"])
def test_paths_stay_in_the_store(store: Store, path: str) -> None:
    for action in (
        lambda: store.write_bytes(path, b""),
        lambda: store.read_bytes(path),
        lambda: store.delete(path),
        lambda: store.local(path),
        lambda: store.exists(path),
    ):
        with pytest.raises(InvalidInputError):
            action()


def test_a_remote_copy_is_downloaded_once(tmp_path: Path) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}", cache=tmp_path)
    store.write_bytes("a", b"1")
    first = store.local("a")
    inode = first.stat().st_ino
    assert store.local("a").stat().st_ino == inode
    assert not store.is_local
    first.write_bytes(b"cut short by a crash")
    assert store.local("a").read_bytes() == b"1"


def test_a_local_copy_is_the_file_itself(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_bytes("a/b", b"1")
    assert store.is_local
    assert store.local("a") == tmp_path / "a"


def test_unfinished_files_are_never_listed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".0123").write_bytes(b"half")
    store = Store(tmp_path)
    assert store.list() == []
    assert store.children("a") == []
    assert not store.exists("a")


def test_a_failed_upload_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write_bytes("a", b"old")
    with pytest.raises(FileNotFoundError):
        store.upload(tmp_path / "nowhere", "a")
    assert store.read_bytes("a") == b"old"
    assert os.listdir(tmp_path / "store") == ["a"]


def test_of_many_creators_one_wins(tmp_path: Path) -> None:
    store = Store(tmp_path)
    start = threading.Barrier(8)
    won: list[tuple[int, str]] = []

    def create(who: int) -> None:
        start.wait(10)
        won.extend((who, name) for name in map(str, range(20)) if store.create_bytes(name, str(who).encode()))

    threads = [threading.Thread(target=create, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for _, name in won) == sorted(map(str, range(20)))
    assert all(store.read_bytes(name) == str(who).encode() for who, name in won)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    contents = [bytes([letter]) * 2_000_000 for letter in b"ab"]
    store.write_bytes("file", contents[0])

    def write() -> None:
        for n in range(40):
            store.write_bytes("file", contents[n % 2])

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        assert store.read_bytes("file") in contents
    writer.join()


UPLOADER = """
import sys
from pathlib import Path
from world2vlm.store import Store
Store(sys.argv[1]).upload(Path(sys.argv[2]), "file")
"""


def test_a_writer_that_is_killed_midway_leaves_the_old_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write_bytes("file", b"old")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen(
        [sys.executable, "-c", UPLOADER, store.root, str(pipe)],
        env={**os.environ, "PYTHONPATH": str(Path(world2vlm.__file__).parents[1])},
    )
    with pipe.open("wb", buffering=0) as source:
        # More than a pipe and a buffer hold: when this returns, part of it has been copied, and more is awaited.
        source.write(b"n" * 4_000_000)
        writer.kill()
        writer.wait(10)
    assert store.read_bytes("file") == b"old"
    assert store.list() == ["file"]
    assert len(os.listdir(tmp_path / "store")) == 2
    store.write_bytes("file", b"new")
    assert store.read_bytes("file") == b"new"
