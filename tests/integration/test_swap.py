"""Swaps of real checkpoints under real load: nothing is lost, nobody gets another version's answer, bad ones bounce."""

import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from student_service.engines.base import Engine
from student_service.engines.local import LocalEngine
from tests.student_kit import DEADLINE_S, picture, png, publish, running_student, tiny_student
from world2vlm.checkpoints import Registry
from world2vlm.client import Student, StudentReply
from world2vlm.errors import DataCorruptedError, GateRejectedError, PreconditionError
from world2vlm.store import Store
from world2vlm.vlm import Prompt, StudentModel

pytestmark = pytest.mark.alone

QUESTIONS = ("Where is the red chair?", "Is there a blue sofa?", "How many tables are on the left?")
TOKENS = 6
CLIENTS = 4


def expected_answers(seed: int) -> dict[str, str]:
    """What the student of `seed` says to each question, asked without any service."""
    model = StudentModel.load(tiny_student(seed))
    prompts = [Prompt((picture(),), question) for question in QUESTIONS]
    return {q: g.text for q, g in zip(QUESTIONS, model.answer(prompts, TOKENS), strict=True)}


@contextmanager
def load_on(client: Student) -> Iterator[list[tuple[str, StudentReply | Exception]]]:
    """Several clients that ask without a pause, half of them in streams; yields what they got, as it grows."""
    got: list[tuple[str, StudentReply | Exception]] = []
    stop = threading.Event()

    def ask(stream: bool) -> None:
        for question in itertools.cycle(QUESTIONS):
            if stop.is_set():
                return
            try:
                if stream:
                    *pieces, reply = client.stream(question, [png()], TOKENS, DEADLINE_S)
                    assert isinstance(reply, StudentReply) and "".join(map(str, pieces)) == reply.text
                else:
                    reply = client.ask(question, [png()], TOKENS, DEADLINE_S)
                got.append((question, reply))
            except Exception as error:
                got.append((question, error))

    with ThreadPoolExecutor(CLIENTS) as pool:
        futures = [pool.submit(ask, bool(index % 2)) for index in range(CLIENTS)]
        try:
            yield got
        finally:
            stop.set()
    for future in futures:
        future.result()


def wait_for_more(got: list[tuple[str, StudentReply | Exception]], more: int) -> None:
    """Let `more` further questions end."""
    goal, deadline = len(got) + more, threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if len(got) >= goal:
            return
        deadline.wait(0.01)
    pytest.fail(f"only {len(got)} of {goal} questions ended in time")


def test_swaps_under_load_lose_nothing_and_mix_nothing(tmp_path: Path) -> None:
    expected = {str(seed + 1): expected_answers(seed) for seed in range(3)}
    assert len({tuple(answers.values()) for answers in expected.values()}) == 3, "the versions must be told apart"
    with running_student(tmp_path) as (app, client):
        for seed in (1, 2):
            publish(tmp_path, tiny_student(seed), f"seed {seed}")
        with load_on(client) as got:
            wait_for_more(got, 40)
            served = []
            for change in (lambda: client.swap(2), lambda: client.swap(3), client.roll_back):
                served.append((change()["to"], len(got)))
                wait_for_more(got, 40)
        assert [version for version, _ in served] == [2, 3, 2]
        assert app.registry.serving() == 2
    assert len(got) >= 200
    failures = [reply for _, reply in got if not isinstance(reply, StudentReply)]
    assert failures == []
    answers = [(question, reply) for question, reply in got if isinstance(reply, StudentReply)]
    assert all(reply.text == expected[reply.version][question] for question, reply in answers)
    assert {reply.version for _, reply in answers} == {"1", "2", "3"}
    # Whoever asks after a swap has returned is answered by the new version; CLIENTS may have asked before.
    for (version, after), (_, until) in itertools.pairwise([*served, (0, len(got))]):
        later = [reply.version for _, reply in answers[after + CLIENTS : min(until, after + 35)]]
        assert later and set(later) == {str(version)}


@contextmanager
def two_versions(tmp_path: Path, spoil: Callable[[Path], None]) -> Iterator[Student]:
    """A service on version 1, and a version 2 made of a spoiled copy of another student."""
    spoiled = tmp_path / "spoiled"
    shutil.copytree(tiny_student(1), spoiled)
    spoil(spoiled)
    with running_student(tmp_path / "store") as (_, client):
        assert publish(tmp_path / "store", spoiled, "spoiled") == 2
        yield client


def still_answers_on_the_first(client: Student) -> None:
    reply = client.ask(QUESTIONS[0], [png()], TOKENS)
    assert (reply.version, reply.text) == ("1", expected_answers(0)[QUESTIONS[0]])
    assert client.serving().version == 1


def test_a_flipped_byte_is_data_loss_and_the_old_keeps_answering(tmp_path: Path) -> None:
    with two_versions(tmp_path, lambda folder: None) as client, load_on(client) as got:
        weights = tmp_path / "store/checkpoints/student/2/model.safetensors"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
        with pytest.raises(DataCorruptedError, match=r"model\.safetensors"):
            client.swap(2)
        wait_for_more(got, 10)
        still_answers_on_the_first(client)
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
        assert client.swap(2)["to"] == 2
    assert all(isinstance(reply, StudentReply) for _, reply in got)


def nan_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "mlp" in name)
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def huge_weights(folder: Path) -> None:
    """Finite numbers that overflow on the way: only the canary can tell."""
    weights = {name: value * 1e30 for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(section: str, key: str, value: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config[section][key] = value
        (folder / "config.json").write_text(json.dumps(config))

    return change


def missing_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if "mlp" in name)]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "spoil",
    [
        nan_weight,
        huge_weights,
        missing_tensor,
        change_config("text_config", "hidden_size", 64),
        change_config("text_config", "num_hidden_layers", 2),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "model.safetensors").write_bytes(b"nothing of the kind"),
        lambda folder: (folder / "tokenizer.json").unlink(),
    ],
    ids=["nan", "overflow", "missing tensor", "wrong width", "wrong depth", "no config", "no weights", "no tokenizer"],
)
def test_an_unfit_checkpoint_fails_the_precondition(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    with two_versions(tmp_path, spoil) as client:
        with pytest.raises((PreconditionError, GateRejectedError)):
            client.swap(2)
        still_answers_on_the_first(client)


def test_a_second_swap_meanwhile_is_refused(tmp_path: Path) -> None:
    loading, go_on = threading.Event(), threading.Event()
    go_on.set()

    def load(folder: Path) -> Engine:
        loading.set()
        assert go_on.wait(DEADLINE_S)
        return LocalEngine.load(folder)

    with running_student(tmp_path, load) as (_, client), ThreadPoolExecutor() as pool:
        publish(tmp_path, tiny_student(1), "second")
        loading.clear()
        go_on.clear()
        first = pool.submit(client.swap, 2)
        assert loading.wait(DEADLINE_S)
        for change in (lambda: client.swap(2), client.roll_back):
            with pytest.raises(PreconditionError, match="another swap is under way"):
                change()
        still_answers_on_the_first(client)
        go_on.set()
        assert first.result(DEADLINE_S)["to"] == 2
        assert client.ask(QUESTIONS[0], [png()], TOKENS).version == "2"


def test_a_restart_serves_what_was_promoted_last(tmp_path: Path) -> None:
    with running_student(tmp_path) as (_, client):
        publish(tmp_path, tiny_student(1), "second")
        publish(tmp_path, tiny_student(2), "third, never promoted")
        client.swap(2)
    with running_student(tmp_path) as (_, client):
        assert client.ask(QUESTIONS[0], [png()], TOKENS).version == "2"
        assert Registry(Store(tmp_path), "student").versions() == [1, 2, 3]
