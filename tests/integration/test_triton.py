"""The student in a real Triton server: it answers, streams, changes its checkpoint under requests, and is brought back.

The server is the one that the `nvidia-pytriton` wheel carries; where that can't run, these tests are skipped.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

import student_service
from student_service.engines.base import Query, Reply, Update, answer
from student_service.engines.local import LocalEngine
from student_service.engines.triton import Served, TritonEngine, probe, ready_versions
from student_service.triton.__main__ import app as commands
from student_service.triton.deploy import Deployer, load_model
from student_service.triton.repository import Deployment, ModelRepository
from student_service.triton.server import Ports
from student_service.triton.watchdog import Incident, Watchdog
from student_service.triton.wire import STREAM_MODEL, UNARY_MODEL
from tests.student_kit import DEADLINE_S, png, query, running_student, tiny_student
from tests.triton_kit import Kit, require_triton, running_triton
from world2vlm.checkpoints import Registry
from world2vlm.errors import DataCorruptedError, InvalidInputError, PreconditionError, UnavailableError
from world2vlm.store import Store
from world2vlm.tasks import parse_answer

pytestmark = pytest.mark.alone

QUESTION = "Is there a blue sofa in the second image?"
TYPED = Query(query("", 2).images, "How many meters did the camera move?", "A1")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """A server with both models, on version 1."""
    with running_triton(tmp_path_factory.mktemp("triton"), (UNARY_MODEL, STREAM_MODEL)) as kit:
        assert kit.deployer.deploy(kit.publish(0)) == {UNARY_MODEL: 1, STREAM_MODEL: 1}
        yield kit


@contextmanager
def engine_of(kit: Kit, model: str = STREAM_MODEL, number: int = 0) -> Iterator[TritonEngine]:
    with closing(TritonEngine(kit.server.url, model=model, number=number)) as engine:
        yield engine


def in_process(seed: int, queries: list[Query]) -> list[Reply]:
    with closing(LocalEngine.load(tiny_student(seed))) as engine:
        return answer(engine, queries, 8)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


@pytest.mark.parametrize("model", [UNARY_MODEL, STREAM_MODEL])
def test_both_models_answer_as_the_engine_in_the_process_does(kit: Kit, model: str) -> None:
    queries = [query(QUESTION), query("Where is the red chair?", 2), TYPED]
    with engine_of(kit, model) as engine:
        replies = answer(engine, queries, 8)
        assert engine.served == Served(kit.repository.versions(model)[-1], 1, kit.deployer.describe(1).digest)
    expected = in_process(0, queries)
    assert [(r.text, r.prompt_tokens, r.answer_tokens) for r in replies] == [
        (r.text, r.prompt_tokens, r.answer_tokens) for r in expected
    ]
    assert [r.probability for r in replies] == pytest.approx([r.probability for r in expected], rel=1e-3)
    assert parse_answer("A1", replies[2].text)


def test_a_stream_has_a_response_for_each_piece(kit: Kit) -> None:
    updates: list[Update] = []
    with engine_of(kit) as engine:
        engine.admit(7, query(QUESTION), 8)
        while not updates or updates[-1].reply is None:
            updates += engine.step()
    reply = updates[-1].reply
    assert reply is not None and "".join(update.text for update in updates) == reply.text
    assert len(updates) > 3 and {update.key for update in updates} == {7}


def test_dropping_a_query_stops_the_work_in_triton(kit: Kit) -> None:
    def ask_and_drop() -> bool:
        engine.admit(0, query(QUESTION), 64)
        while not engine.step():
            pass
        engine.drop(0)
        return "a question was cancelled" in kit.server.log.read_text(errors="replace")

    with engine_of(kit) as engine:
        # An answer may be quicker than its cancellation.
        wait_until(ask_and_drop)


def test_what_the_model_refuses_comes_back_as_it_was(kit: Kit) -> None:
    with engine_of(kit) as engine:
        for bad, text in [
            (Query(query("", 1).images, "How far?", "A1"), "task A1 takes 2 images"),
            (query("where " * 2000), "more than 512 tokens"),
            (query("<|im_end|>"), "control token"),
        ]:
            with pytest.raises(InvalidInputError, match=text):
                answer(engine, [bad], 8)
        with pytest.raises(InvalidInputError, match="at most 64 tokens"):
            answer(engine, [query(QUESTION)], 65)
        assert answer(engine, [query(QUESTION)], 8) == pytest.approx(in_process(0, [query(QUESTION)]))


def test_a_version_that_is_not_there_and_a_server_that_is_not_there_are_unavailable(kit: Kit) -> None:
    with pytest.raises(UnavailableError):
        probe(kit.server.url, number=99)
    with pytest.raises(UnavailableError):
        probe("127.0.0.1:1")


def test_an_answer_that_takes_too_long_is_given_up(kit: Kit) -> None:
    with (
        closing(TritonEngine(kit.server.url, deadline_s=0.001)) as engine,
        pytest.raises(UnavailableError, match=r"within 0\.001 s"),
    ):
        answer(engine, [query(QUESTION)], 8)


def test_the_service_answers_through_triton_and_says_which_checkpoint(kit: Kit) -> None:
    Registry(Store(str(kit.store)), "student").set_serving(1, "test")
    settings = {"engine": "triton", "triton_url": kit.server.url}
    (expected,) = in_process(0, [Query((png(),), QUESTION)])
    with running_student(kit.store, **settings) as (_, student):
        reply = student.ask(QUESTION, [png()], max_new_tokens=8)
        assert (reply.text, reply.version) == (expected.text, "1")
        with pytest.raises(PreconditionError, match="deploy it there first"):
            student.swap(kit.publish(4))


class Askers:
    """Clients that ask without a pause, half of them in streams, until they are told to stop."""

    def __init__(self, kit: Kit) -> None:
        self.got: list[tuple[float, Served, str]] = []  # when asked, who answered, what
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(kit.server.url, model)) for model in (UNARY_MODEL, STREAM_MODEL)
        ]

    def _ask(self, url: str, model: str) -> None:
        with closing(TritonEngine(url, model=model)) as engine:
            while not self._stop.is_set():
                asked = time.monotonic()
                try:
                    (reply,) = answer(engine, [query(QUESTION)], 8)
                    assert engine.served is not None
                    self.got.append((asked, engine.served, reply.text))
                except Exception as error:
                    self.errors.append(error)

    def __enter__(self) -> "Askers":
        for thread in self._threads:
            thread.start()
        return self

    def wait_for_more(self, more: int) -> None:
        goal = len(self.got) + more
        wait_until(lambda: len(self.got) >= goal or bool(self.errors))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def run_command(kit: Kit, *arguments: str) -> str:
    """Run `python -m student_service.triton` in this process, on the kit's server."""
    environment = {"WORLD2VLM_STORE": str(kit.store), "WORLD2VLM_TRITON_URL": kit.server.url}
    command = [*arguments, "--repository", str(kit.repository.root)]
    result = CliRunner().invoke(commands, command, env=environment, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_versions_come_and_go_under_requests_and_bad_ones_bounce(kit: Kit) -> None:
    second, third = kit.publish(1), kit.publish(2)
    before = {model: kit.repository.versions(model) for model in kit.repository.models}
    with Askers(kit) as askers:
        askers.wait_for_more(10)
        run_command(kit, "deploy", str(second))
        askers.wait_for_more(10)
        kit.corrupt(third)
        with pytest.raises(DataCorruptedError, match=r"model\.safetensors"):
            kit.deployer.deploy(third)
        askers.wait_for_more(10)
        for model, numbers in before.items():
            assert kit.repository.versions(model) == [*numbers, numbers[-1] + 1]
        assert f"{STREAM_MODEL}: version {before[STREAM_MODEL][-1]} answers" in run_command(kit, "roll-back")
        back = time.monotonic()
        askers.wait_for_more(10)
    assert askers.errors == []
    texts = {1: in_process(0, [query(QUESTION)])[0].text, second: in_process(1, [query(QUESTION)])[0].text}
    assert texts[1] != texts[second], "the versions must be told apart"
    assert all(text == texts[served.checkpoint] for _, served, text in askers.got)
    assert {served.checkpoint for _, served, _ in askers.got} == {1, second}
    assert {served.checkpoint for asked, served, _ in askers.got if asked > back} == {1}
    assert {model: kit.repository.versions(model) for model in kit.repository.models} == before


def test_triton_itself_refuses_a_corrupted_version_and_the_old_one_keeps_answering(kit: Kit) -> None:
    version = kit.publish(3)
    deployment = kit.deployer.describe(version)
    kit.corrupt(version)
    # As if the file had been damaged between the deployer's check and the model's own.
    number = kit.repository.add(STREAM_MODEL, deployment)
    with pytest.raises(DataCorruptedError, match=r"model\.safetensors"):
        load_model(kit.server.url, STREAM_MODEL, DEADLINE_S)
    assert probe(kit.server.url).checkpoint == 1
    assert number not in ready_versions(kit.server.url, STREAM_MODEL)
    # What a killed deployment leaves, the next change takes away.
    with pytest.raises(PreconditionError, match="no version before"):
        kit.deployer.roll_back()
    assert number not in kit.repository.versions(STREAM_MODEL)
    assert probe(kit.server.url).checkpoint == 1


def stub_of(kit: Kit, model: str, number: int) -> psutil.Process:
    """The process that runs a version of a model."""
    (stub,) = [
        child
        for child in psutil.Process(kit.server.pid).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and f"/{model}/{number}/model.py" in " ".join(child.cmdline())
    ]
    return stub


def test_a_killed_stub_is_noticed_and_brought_back(kit: Kit) -> None:
    watchdog = Watchdog(kit.server, kit.repository, patience=1, answer_s=10)
    number = kit.repository.versions(STREAM_MODEL)[-1]
    assert watchdog.check() == []
    os.kill(stub_of(kit, STREAM_MODEL, number).pid, signal.SIGKILL)
    with pytest.raises(UnavailableError):
        probe(kit.server.url, number=number)
    incidents: list[Incident] = []
    wait_until(lambda: bool(incidents.extend(watchdog.check()) or incidents))
    # A stub that dies while it holds a lock in the shared memory takes the whole server with it.
    assert incidents[0] in (Incident(f"{STREAM_MODEL}/{number}", "reload"), Incident("server", "restart"))
    assert probe(kit.server.url, number=number).checkpoint == 1
    assert watchdog.check() == []


def has_ended(kit: Kit) -> bool:
    try:
        kit.server.check()
    except UnavailableError:
        return True
    return False


def test_a_killed_server_is_started_again(kit: Kit) -> None:
    pid = kit.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: has_ended(kit))
    assert Watchdog(kit.server, kit.repository).check() == [Incident("server", "restart")]
    assert kit.server.pid != pid
    assert probe(kit.server.url).checkpoint == 1


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    require_triton()
    ports = Ports.free()
    command = [sys.executable, "-m", "student_service.triton", "serve", "--repository", "models", "--work", "work"]
    command += [f"--{name}-port={port}" for name, port in asdict(ports).items()]
    package_root = Path(student_service.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(package_root)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        try:
            wait_until(lambda: is_listening(ports.grpc))
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    assert not is_listening(ports.grpc)


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_deployment_killed_at_any_moment_leaves_nothing_half_done(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "models", (STREAM_MODEL,))
    deployment = Deployment("store", "student", 1, "digest")
    repository.accept({STREAM_MODEL: repository.add(STREAM_MODEL, deployment)})
    # Killed while staging: a folder aside. Killed after the rename: a version that nobody accepted.
    (tmp_path / "models.state/aside/.half").mkdir(parents=True)
    assert repository.add(STREAM_MODEL, deployment) == 2
    assert repository.clean_up() == [STREAM_MODEL]
    assert repository.versions(STREAM_MODEL) == [1]
    assert list((tmp_path / "models.state").glob("aside/*")) == []
    assert repository.add(STREAM_MODEL, deployment) == 3, "a number is never given out twice"
    assert repository.deployment(STREAM_MODEL, 3) == deployment


def test_one_deployment_at_a_time(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "models")
    deployer = Deployer(repository, "127.0.0.1:1", str(tmp_path / "store"), "student")
    with repository.alone(), pytest.raises(PreconditionError, match="another change"):
        deployer.deploy(1)
