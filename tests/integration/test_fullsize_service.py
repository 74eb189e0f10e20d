"""Full-size students in the running service: swapped in for the built-in one and out again, typed, in batches."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.finetune_kit import make_records, run, settings
from tests.fullsize_kit import tiny_family
from tests.student_kit import picture, png, publish, running_student, wait_until
from world2vlm.errors import PreconditionError
from world2vlm.fullsize import add
from world2vlm.tasks import Question
from world2vlm.vlm import Prompt
from world2vlm.vlm.fullsize.student import FamilyStudent

TEXTS = ("Where is the red chair?", "Is there a blue sofa?", "How many tables are on the left?")


def holders() -> set[int]:
    """Processes that hold a checkpoint: children of the one that they are forked from."""
    mine = {each.pid for each in psutil.Process().children()}
    return {each.pid for each in psutil.Process().children(recursive=True)} - mine


def test_a_service_swaps_between_a_built_in_student_a_full_size_one_and_its_adapter(tmp_path: Path) -> None:
    base = tiny_family("qwen2_5_vl")
    run(settings(base, steps=1, learning_rate=0.2), make_records(tmp_path, 6), tmp_path, tmp_path / "out")
    plain = FamilyStudent.load(base).answer([Prompt((picture(),), text) for text in TEXTS], 8)
    others = holders()
    with running_student(tmp_path / "store", engine="auto", workers=0) as (app, client):
        first = [client.ask(text, [png()], 8).text for text in TEXTS]
        version = add(app.registry, tmp_path / "out").version
        assert (version, app.registry.versions()) == (3, [1, 2, 3])
        assert client.swap(2)["to"] == 2
        wait_until(lambda: len(holders() - others) == 1)
        with ThreadPoolExecutor(len(TEXTS)) as threads:
            replies = list(threads.map(lambda text: client.ask(text, [png()], 8), TEXTS))
        assert [reply.text for reply in replies] == [generation.text for generation in plain]
        assert {reply.version for reply in replies} == {"2"}
        for code in ("A1", "A2", "A3"):
            reply = client.ask(Question(code), [png(), png(50)])
            assert reply.answer is not None and 0 < reply.probability <= 1
        assert client.swap(3)["to"] == 3
        assert client.serving().kind == "lora"
        adapted = [client.ask(text, [png()], 8) for text in TEXTS]
        assert [reply.probability for reply in adapted] != [reply.probability for reply in replies]
        assert client.swap(1)["to"] == 1
        assert [client.ask(text, [png()], 8).text for text in TEXTS] == first
        retired = holders() - others
        assert client.swap(2)["to"] == 2
        wait_until(lambda: not retired & holders())  # whose memory goes back with them


def test_a_broken_full_size_checkpoint_is_refused_and_the_old_one_serves_on(tmp_path: Path) -> None:
    with running_student(tmp_path / "store") as (app, client):
        version = add(app.registry, tiny_family("idefics3")).version
        bad = tmp_path / "bad"
        bad.mkdir()
        for path in tiny_family("idefics3").iterdir():
            content = path.read_bytes()
            (bad / path.name).write_bytes(content[:-100] if path.suffix == ".safetensors" else content)
        broken = publish(tmp_path / "store", bad, "bad")
        with pytest.raises(PreconditionError, match="unfit"):
            client.swap(broken)
        assert client.serving().version == 1
        assert client.swap(version)["to"] == version
        assert client.ask("Where is the red chair?", [png()], 4).version == str(version)
