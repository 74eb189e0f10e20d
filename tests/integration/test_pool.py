"""The pool's processes: what happens when they die, when the service dies, and whose turn it is on the machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from student_service import metrics
from student_service.engines.base import Engine, EngineLostError, LookedUp, Query, Update, answer
from student_service.engines.loading import choose_engine
from student_service.engines.messages import EngineFailedError
from student_service.engines.pool import PoolEngine
from student_service.engines.worker import Assignment
from tests.student_kit import DEADLINE_S, EchoEngine, png, query, tiny_student, wait_until
from world2vlm.errors import PreconditionError, UnavailableError
from world2vlm.settings import StudentSettings

pytestmark = pytest.mark.alone

_NAP_S = 1.0
QUESTION = "Where is the red chair?"


@dataclass(frozen=True)
class LoadsEcho:
    """What a pool's process loads here: an engine that echoes, and breaks or dies on command."""

    threads: int = 1

    def __call__(self, folder: Path, looked_up: LookedUp) -> Engine:
        if folder.name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if folder.name == "breaks":
            raise RuntimeError("a secret of the inside")
        looked_up["features", True] += 3
        return _Echo()

    def enter_thread(self) -> None:
        """Nothing is needed."""


class _Echo(EchoEngine):
    def step(self) -> list[Update]:
        texts = [query.text for query, _ in self._queries.values()]
        if "die" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        if "sleep" in texts:
            time.sleep(_NAP_S)
        if "break" in texts:
            raise RuntimeError("a secret of the inside")
        return super().step()


def pool_of(folder: Path, workers: int = 2) -> PoolEngine:
    return PoolEngine(Assignment(folder, LoadsEcho(), "plain", "INFO"), workers, 2 * workers)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[PoolEngine]:
    with closing(pool_of(tmp_path)) as engine:
        yield engine


def processes() -> list[psutil.Process]:
    """The pools' processes: children of the one process that all are forked from."""
    mine = {each.pid for each in psutil.Process().children()}
    return [each for each in psutil.Process().children(recursive=True) if each.pid not in mine]


def run(engine: Engine, keys: set[int]) -> dict[int, Update]:
    """The last updates of queries that were admitted."""
    ended: dict[int, Update] = {}
    while set(ended) < keys:
        ended |= {each.key: each for each in engine.step() if each.reply is not None or each.error is not None}
    return ended


def ask_until_it_answers(engine: Engine) -> str:
    texts: list[str] = []

    def answers() -> bool:
        try:
            texts.append(answer(engine, [query("again")], 8)[0].text)
        except UnavailableError:
            return False
        return True

    wait_until(answers)
    return texts[0]


def busy(pool: PoolEngine) -> list[int]:
    """How many queries each process has."""
    return [len(worker.asked) for worker in pool._workers]


def test_new_pictures_go_to_who_has_least_to_do_and_seen_ones_to_who_saw_them(pool: PoolEngine) -> None:
    for key in range(4):  # side by side, so that both processes see some
        pool.admit(key, Query((png(key),), "where?"), 8)
        assert busy(pool) == [[1, 0], [1, 1], [2, 1], [2, 2]][key]
    run(pool, set(range(4)))
    for shade, expected in [(0, [1, 0]), (1, [0, 1]), (2, [1, 0]), (3, [0, 1]), (100, [1, 0]), (101, [1, 0])]:
        pool.admit(0, Query((png(shade),), "and now?"), 8)  # one by one
        assert busy(pool) == expected
        run(pool, {0})


def test_who_has_much_to_do_gets_no_more_though_it_saw_the_pictures(pool: PoolEngine) -> None:
    for key in range(6):
        pool.admit(key, query("one two three four"), 8)
        assert busy(pool) == [[1, 0], [2, 0], [3, 0], [3, 1], [3, 2], [3, 3]][key]
    replies = [update.reply for update in run(pool, set(range(6))).values()]
    assert [reply.text for reply in replies if reply] == 6 * ["one two three four"]


def test_a_step_that_waits_for_news_can_be_ended(pool: PoolEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("student_service.engines.pool._NEWS_S", DEADLINE_S)
    pool.admit(0, query("sleep"), 8)
    for _ in range(2):
        pool.wake()
        assert pool.step() == []
    (update,) = pool.step()
    assert update.reply is not None and update.reply.text == "sleep"


def test_a_process_that_dies_takes_its_queries_with_it_and_is_replaced(pool: PoolEngine) -> None:
    before = {each.pid for each in processes()}
    pool.admit(0, Query((png(0),), "die"), 8)
    pool.admit(1, Query((png(1),), "a b c"), 8)
    assert busy(pool) == [1, 1]
    ended = run(pool, {0, 1})
    assert isinstance(ended[0].error, EngineLostError)
    assert ended[1].reply is not None and ended[1].reply.text == "a b c"
    assert ask_until_it_answers(pool) == "again"
    wait_until(lambda: len({each.pid for each in processes()} - before) == 1)


def test_what_was_not_sent_to_a_process_that_died_another_one_answers(pool: PoolEngine) -> None:
    pool.admit(0, Query((png(0),), "a b c"), 8)
    gone = pool._workers[0]
    gone.process.kill()
    assert gone.connection.poll(DEADLINE_S)  # its end of the connection is closed
    pool.admit(1, Query((png(1),), "d e"), 8)
    assert busy(pool) == [1, 1]
    replies = [update.reply for update in run(pool, {0, 1}).values()]
    assert sorted(reply.text for reply in replies if reply) == ["a b c", "d e"]


def test_while_no_process_is_left_it_says_so_and_then_answers_again(tmp_path: Path) -> None:
    with closing(pool_of(tmp_path, workers=1)) as engine:
        engine.serve()
        for _ in range(6):  # each time it answers in between, so it is started again for ever
            engine.admit(0, query("die"), 8)
            assert isinstance(run(engine, {0})[0].error, EngineLostError)
            with pytest.raises(UnavailableError, match="try again"):
                engine.admit(1, query("too early"), 8)
            assert ask_until_it_answers(engine) == "again"


def test_one_that_never_answers_is_not_started_for_ever(tmp_path: Path) -> None:
    with closing(pool_of(tmp_path, workers=1)) as engine:
        for _ in range(4):
            wait_until(lambda: _admits(engine, "die"))
            assert isinstance(run(engine, {0})[0].error, EngineLostError)
        assert engine._workers == []
        with pytest.raises(UnavailableError):
            engine.admit(1, query("anybody?"), 8)


def _admits(engine: Engine, text: str) -> bool:
    try:
        engine.admit(0, query(text), 8)
    except UnavailableError:
        return False
    return True


def test_killed_from_outside_while_idle_it_is_replaced(pool: PoolEngine) -> None:
    for each in processes():
        each.kill()
    assert ask_until_it_answers(pool) == "again"


@pytest.mark.parametrize(("folder", "why"), [("dies", "dies"), ("breaks", "cannot be loaded")])
def test_a_checkpoint_that_cannot_be_loaded_is_unfit(tmp_path: Path, folder: str, why: str) -> None:
    before = {each.pid for each in processes()}
    with pytest.raises(PreconditionError, match=f"unfit.*{why}") as raised:
        pool_of(tmp_path / folder)
    assert "secret" not in str(raised.value)
    wait_until(lambda: {each.pid for each in processes()} <= before)


def test_what_breaks_in_a_process_tells_nothing_of_its_inside(pool: PoolEngine) -> None:
    with pytest.raises(EngineFailedError) as raised:
        answer(pool, [query("break")], 8)
    assert "secret" not in str(raised.value)
    assert answer(pool, [query("go on")], 8)[0].text == "go on"


def test_dropped_queries_leave_no_news_under_a_key_that_is_given_out_again(pool: PoolEngine) -> None:
    for _ in range(20):
        pool.admit(0, query("old " * 5), 8)
        pool.drop(0)
        pool.admit(0, query("new"), 8)
        reply = run(pool, {0})[0].reply
        assert reply is not None and reply.text == "new"


def test_a_candidate_stands_back_until_it_serves(pool: PoolEngine) -> None:
    # The thread that answers is the process's second one until then.
    quiet = [_nicenesses(each.pid) for each in processes()]
    assert quiet and all(max(each) == 19 for each in quiet)
    pool.serve()
    wait_until(lambda: all(set(_nicenesses(each.pid)) == {10} for each in processes()))


def _nicenesses(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks]


def test_lookups_in_its_caches_are_counted_here(pool: PoolEngine) -> None:
    counter = metrics.FEATURES.labels("hit")._value
    before = counter.get()
    for key, shade in enumerate(range(0, 64, 16)):
        pool.admit(key, Query((png(shade),), "x"), 8)
    run(pool, {0, 1, 2, 3})
    assert counter.get() == before + 6


def test_closing_ends_the_processes(tmp_path: Path) -> None:
    before = {each.pid for each in processes()}
    engine = pool_of(tmp_path)
    started = {each.pid for each in processes()} - before
    assert len(started) == 2
    engine.close()
    engine.close()
    wait_until(lambda: not started & {each.pid for each in processes()})


_SERVICE = """
import sys, time
from pathlib import Path
from student_service.engines.loading import choose_engine
from world2vlm.settings import StudentSettings
if __name__ == "__main__":
    engine = choose_engine(StudentSettings.load(engine="local", workers=2))(Path(sys.argv[1]))
    print("ready", flush=True)
    time.sleep(600)
"""


def test_the_processes_end_when_the_service_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(_SERVICE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [".", *sys.path]))}
    command = [sys.executable, str(script), str(tiny_student())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as service:
        assert service.stdout is not None and service.stdout.readline() == "ready\n"
        children = psutil.Process(service.pid).children(recursive=True)
        assert len(children) >= 3
        service.kill()
    psutil.wait_procs(children, DEADLINE_S)
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in children)


def test_a_small_student_has_a_process_a_core_and_the_settings_say_otherwise(tmp_path: Path) -> None:
    for workers, expected in [(0, min(4, len(os.sched_getaffinity(0)))), (1, 1), (3, 3)]:
        engine = choose_engine(StudentSettings.load(engine="local", workers=workers, max_batch=5))(tiny_student())
        with closing(engine):
            assert isinstance(engine, PoolEngine)
            assert (len(engine._workers), engine.capacity) == (expected, 5)
