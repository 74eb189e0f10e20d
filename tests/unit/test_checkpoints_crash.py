"""Publishing checkpoints while publishers die, race and run twice."""

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import world2vlm
from world2vlm.checkpoints import Manifest, Registry
from world2vlm.store import Store

FILES = {"model.safetensors": b"weights" * 1000, "config.json": b"{}", "tokenizer/vocab.json": b"[]"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "checkpoint" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "checkpoint"


def publish(registry: Registry, folder: Path, key: str, recipe: str = "sft") -> Manifest:
    return registry.publish(folder, parent=None, kind="full", dataset_digest="", recipe=recipe, metrics={}, key=key)


class Killed(Exception):
    pass


class MortalStore(Store):
    """Dies right before a given write; each write by itself is whole or absent (see the contract suite)."""

    def __init__(self, url: Path, writes: int) -> None:
        super().__init__(url)
        self.left = writes

    def _spend(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def write_bytes(self, path: str, data: bytes) -> None:
        self._spend()
        super().write_bytes(path, data)

    def create_bytes(self, path: str, data: bytes) -> bool:
        self._spend()
        return super().create_bytes(path, data)

    def upload(self, source: Path, path: str) -> str:
        self._spend()
        return super().upload(source, path)


def test_a_publisher_may_die_at_any_write(tmp_path: Path, folder: Path) -> None:
    for writes in count():
        url = tmp_path / f"store {writes}"
        survivor = Registry(Store(url), "student")
        try:
            publish(Registry(MortalStore(url, writes), "student"), folder, "round 1")
        except Killed:
            assert survivor.versions() == []
            other = publish(survivor, folder, "round 2")
            manifest = publish(survivor, folder, "round 1")
            assert publish(survivor, folder, "round 1") == manifest
            assert survivor.versions() == sorted([manifest.version, other.version])
            assert [survivor.verify(version).version for version in survivor.versions()] == survivor.versions()
        else:
            break
    assert writes == 1 + len(FILES) + 2  # the claim, the files, the key's record, the manifest


def test_of_two_publishers_of_one_key_the_slower_yields(tmp_path: Path, folder: Path) -> None:
    url = tmp_path / "store"

    class Overtaken(Store):
        """Lets another publisher finish the same work right before it would commit its own."""

        def create_json(self, path: str, payload: Any) -> bool:
            if "/keys/" in path:
                publish(Registry(Store(url), "student"), folder, "round 1", recipe="the faster one")
            return super().create_json(path, payload)

    slower = publish(Registry(Overtaken(url), "student"), folder, "round 1", recipe="the slower one")
    registry = Registry(Store(url), "student")
    assert slower.recipe == "the faster one"
    assert registry.list() == [slower]
    assert not Store(url).exists("checkpoints/student/1")
    assert publish(registry, folder, "round 2").version == 3


PUBLISHER = """
import json, sys
from pathlib import Path
from world2vlm.checkpoints import Registry
from world2vlm.store import Store
url, folder, who, keys = sys.argv[1:]
registry = Registry(Store(url), "student")
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(keys)):
    for key in (f"shared {n}", f"{who} {n}"):
        manifest = registry.publish(
            Path(folder), parent=None, kind="full", dataset_digest="", recipe=who, metrics={}, key=key
        )
        print(json.dumps([key, manifest.version]), flush=True)
"""


def _start_publisher(store: Path, folder: Path, who: str, keys: int) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(store), str(folder), who, str(keys)],
        env={**os.environ, "PYTHONPATH": str(Path(world2vlm.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_publish_at_once(tmp_path: Path, folder: Path) -> None:
    publishers = [_start_publisher(tmp_path / "store", folder, who, 10) for who in ("a", "b")]
    for publisher in publishers:
        assert publisher.stdin is not None
        publisher.stdin.write("\n")
        publisher.stdin.flush()
    results = [dict(map(json.loads, publisher.communicate(timeout=60)[0].splitlines())) for publisher in publishers]
    a, b = results
    assert len(a) == len(b) == 20
    assert {key: version for key, version in a.items() if key in b} == {
        key: version for key, version in b.items() if key in a
    }
    versions = {**a, **b}
    assert len(set(versions.values())) == len(versions) == 30
    registry = Registry(Store(tmp_path / "store"), "student")
    assert registry.versions() == sorted(versions.values())
    for version in registry.versions():
        registry.verify(version)


@pytest.mark.parametrize("lines", [1, 4, 9])
def test_a_publisher_that_is_killed_leaves_whole_versions(tmp_path: Path, folder: Path, lines: int) -> None:
    (folder / "model.safetensors").write_bytes(os.urandom(4_000_000))
    publisher = _start_publisher(tmp_path / "store", folder, "a", 1000)
    assert publisher.stdin is not None
    assert publisher.stdout is not None
    publisher.stdin.write("\n")
    publisher.stdin.flush()
    said = [json.loads(publisher.stdout.readline()) for _ in range(lines)]
    publisher.kill()
    publisher.communicate()
    registry = Registry(Store(tmp_path / "store"), "student")
    published = registry.versions()
    assert {version for _, version in said} <= set(published)
    for version in published:
        registry.verify(version)
    manifest = publish(registry, folder, "after the crash")
    assert manifest.version > max(published)
    assert registry.verify(manifest.version) == manifest
    key, version = said[-1]
    assert publish(registry, folder, key).version == version
