"""The swap's states, on engines that echo: what is refused, what stays, what is written down."""

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from student_service import canary, memory
from student_service.batching import Batcher
from student_service.engines.base import Engine, Query, Reply, Update
from student_service.slots import Serving
from student_service.swap import Swapper, SwapReport
from tests.student_kit import DEADLINE_S, EchoEngine, publish, query
from world2vlm.checkpoints import Registry
from world2vlm.errors import DataCorruptedError, GateRejectedError, NotFoundError, PreconditionError
from world2vlm.store import Store

# What the canary takes for an answer, question by question.
FORMS = dict(
    zip(
        [question.text for question in canary.canary_questions()],
        [
            "move left 1 meters", "turn left 5 degrees", "turn left 5 degrees", "true",
            "[1, 2, 3, 4]", "no", "move left 1 meters", "yes",
        ],
        strict=True,
    )
)  # fmt: skip


class WellFormedEngine(EchoEngine):
    """Answers the canary in its form."""

    is_well_formed = True

    def admit(self, key: int, query: Query, max_new_tokens: int, streams: bool = False) -> None:
        super().admit(key, query, max_new_tokens, streams)
        if self.is_well_formed and query.text in FORMS:
            self._queries[key] = query, FORMS[query.text].split()


class Service:
    """A swapper over a registry of small files; `engines` maps a checkpoint's content to what it loads as."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry(Store(folder / "store"), "student")
        self.serving = Serving()
        self.batcher = Batcher(max_batch=4)
        self.engines: dict[str, Callable[[], Engine]] = {}
        self.reports: list[SwapReport] = []
        self.flips: list[tuple[int, float | None]] = []
        self.swapper = self.restart()

    def restart(self) -> Swapper:
        self.serving = Serving()
        return Swapper(
            self.registry,
            self.serving,
            self.batcher,
            self.load,
            drain_timeout_s=1.0,
            on_flip=lambda version, served_s: self.flips.append((version, served_s)),
            on_swap=self.reports.append,
        )

    def load(self, folder: Path) -> Engine:
        return self.engines[(folder / "weights").read_text()]()

    def publish(self, name: str, engine: Callable[[], Engine]) -> int:
        self.engines[name] = engine
        source = self.folder / name
        source.mkdir()
        (source / "weights").write_text(name)
        return publish(self.folder / "store", source, name)

    def ask(self) -> int:
        with self.serving.lease() as slot:
            return self.batcher.submit(slot, query("hello"), 8).result(DEADLINE_S).version


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    service.publish("one", WellFormedEngine)
    service.swapper.swap(1)
    yield service
    service.batcher.close()


def test_a_swap_goes_through_its_phases(service: Service) -> None:
    service.publish("two", WellFormedEngine)
    report = service.swapper.swap(2)
    assert (report.from_version, report.to_version) == (1, 2)
    assert list(report.phases_ms) == ["verify", "load", "warm", "canary", "drain", "release"]
    assert all(milliseconds >= 0 for milliseconds in report.phases_ms.values())
    assert service.ask() == 2
    assert service.registry.serving() == 2
    assert service.reports[-1] == report


def test_a_swap_to_what_serves_does_nothing(service: Service) -> None:
    assert service.swapper.swap(1) == SwapReport(1, 1, {})
    assert len(service.registry.history()) == 1


def test_an_unknown_version_is_not_found(service: Service) -> None:
    with pytest.raises(NotFoundError):
        service.swapper.swap(9)
    assert service.ask() == 1


def test_a_changed_file_is_found_before_anything_loads(service: Service) -> None:
    service.publish("two", lambda: pytest.fail("a corrupted checkpoint was loaded"))
    (service.folder / "store/checkpoints/student/2/weights").write_text("twO")
    with pytest.raises(DataCorruptedError, match="weights"):
        service.swapper.swap(2)
    assert service.ask() == 1 and service.registry.serving() == 1


def refuse() -> Engine:
    raise PreconditionError("unfit")


class FailsEngine(EchoEngine):
    def step(self) -> list[Update]:
        raise ValueError("shapes differ")


class NotANumberEngine(WellFormedEngine):
    def step(self) -> list[Update]:
        return [replace(u, reply=u.reply and replace(u.reply, probability=math.nan)) for u in super().step()]


@pytest.mark.parametrize(
    ("engine", "error"),
    [
        (refuse, PreconditionError),
        (FailsEngine, PreconditionError),
        (NotANumberEngine, GateRejectedError),
        (EchoEngine, GateRejectedError),  # never answers in a task's form
    ],
)
def test_an_unfit_checkpoint_is_refused_and_the_old_one_stays(
    service: Service, engine: Callable[[], Engine], error: type[Exception]
) -> None:
    made: list[Engine] = []

    def make() -> Engine:
        made.append(engine())
        return made[-1]

    service.publish("two", make)
    with pytest.raises(error):
        service.swapper.swap(2)
    assert service.ask() == 1 and service.registry.serving() == 1
    assert all(candidate.closed for candidate in made)  # type: ignore[attr-defined]
    # The refusal leaves nothing locked.
    service.publish("three", WellFormedEngine)
    assert service.swapper.swap(3).from_version == 1


def test_what_cannot_be_written_down_does_not_serve(service: Service) -> None:
    service.publish("two", WellFormedEngine)
    record = service.folder / "store/checkpoints/student/serving.json"
    record.unlink()
    record.mkdir()
    (record / "in-the-way").touch()
    with pytest.raises(OSError):
        service.swapper.swap(2)
    assert service.ask() == 1


def test_a_second_swap_meanwhile_is_refused(service: Service) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slow() -> Engine:
        loading.set()
        assert go_on.wait(DEADLINE_S)
        return WellFormedEngine()

    service.publish("two", slow)
    service.publish("three", WellFormedEngine)
    first = threading.Thread(target=service.swapper.swap, args=(2,))
    first.start()
    assert loading.wait(DEADLINE_S)
    for change in (lambda: service.swapper.swap(3), service.swapper.roll_back):
        with pytest.raises(PreconditionError, match="under way"):
            change()
    assert service.ask() == 1
    go_on.set()
    first.join()
    assert service.ask() == 2


def test_the_swap_waits_until_the_old_is_drained(service: Service) -> None:
    engine = WellFormedEngine()
    service.publish("two", lambda: engine)
    service.publish("three", WellFormedEngine)
    service.swapper.swap(2)
    with service.serving.lease() as slot:
        report = service.swapper.swap(3)  # gives up waiting after a second, not on the swap
        assert report.phases_ms["drain"] >= 1000
        assert service.ask() == 3
        assert slot.version == 2 and not engine.closed
    assert engine.closed


def test_rolling_back_returns_to_the_version_before(service: Service) -> None:
    with pytest.raises(PreconditionError, match="before"):
        service.swapper.roll_back()
    service.publish("two", WellFormedEngine)
    service.swapper.swap(2)
    report = service.swapper.roll_back()
    assert (report.from_version, report.to_version) == (2, 1)
    assert service.ask() == 1
    assert [(p.version, p.reason) for p in service.registry.history()] == [
        (1, "swap"), (2, "swap"), (1, "roll back"),
    ]  # fmt: skip


def test_warming_serves_every_batch_size_and_every_task(service: Service) -> None:
    engine = WellFormedEngine()
    service.publish("two", lambda: engine)
    service.swapper.swap(2)
    texts = [question.text for question in canary.canary_questions()]
    warmed = engine.batches[: -len(texts)]
    assert [len(batch) for batch in warmed] == [1, 2, 4, 4]
    assert {text for batch in warmed for text in batch} == set(texts)
    assert engine.batches[-len(texts) :] == [[text] for text in texts], "the canary goes one by one"


def test_warm_queries_ask_for_the_tasks_forms_with_pictures_of_their_own() -> None:
    queries = list(islice(canary.warm_queries(), 16))
    assert [query.task for query in queries[:8]] == [question.task for question in canary.canary_questions()]
    assert len({query.images[0] for query in queries}) == 16
    assert all(query.task == "" for query in canary.canary_queries())


def test_rolling_back_does_not_measure_the_old_by_the_new(service: Service) -> None:
    service.publish("two", EchoEngine)  # answers nothing in its form
    service.publish("three", WellFormedEngine)
    service.registry.set_serving(2, "by hand")
    service.restart().start(service.folder)
    assert service.ask() == 2
    swapper = service.swapper = service.restart()
    swapper.start(service.folder)
    swapper.swap(3)
    with pytest.raises(GateRejectedError):
        swapper.swap(2)
    assert swapper.roll_back().to_version == 2


def test_a_rejected_version_gives_way_and_the_reason_is_kept(service: Service) -> None:
    service.publish("two", WellFormedEngine)
    service.swapper.swap(2)
    assert service.swapper.reject(1, "it does not serve") is None
    report = service.swapper.reject(2, "3 of 10 requests failed by its fault")
    assert report is not None and (report.from_version, report.to_version) == (2, 1)
    assert service.ask() == 1
    last = service.registry.history()[-1]
    assert (last.version, last.rejected) == (1, 2)
    assert last.reason == "version 2 rolled back: 3 of 10 requests failed by its fault"
    with pytest.raises(PreconditionError, match="before"):
        service.swapper.roll_back()
    with pytest.raises(PreconditionError, match="no other version"):
        service.swapper.reject(1, "it fails, too")
    assert service.ask() == 1
    assert service.swapper.swap(2).to_version == 2, "whoever asks for it gets it again"


def test_a_rejected_version_gives_way_to_an_older_one_where_the_last_is_corrupted(service: Service) -> None:
    for name in ("two", "three"):
        service.swapper.swap(service.publish(name, WellFormedEngine))
    (service.folder / "store/checkpoints/student/2/weights").write_text("twO")
    report = service.swapper.reject(3, "its canary fails")
    assert report is not None and report.to_version == 1
    assert service.registry.rejected() == {3}


def test_a_restart_does_not_try_what_was_rejected(service: Service) -> None:
    service.publish("two", WellFormedEngine)
    service.swapper.swap(2)
    service.swapper.reject(2, "its canary fails")
    (service.folder / "store/checkpoints/student/1/weights").unlink()
    with pytest.raises(PreconditionError, match="no checkpoint can serve"):
        service.restart().start(service.folder)


def test_a_rejection_waits_for_the_swap_that_is_under_way(service: Service) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slow() -> Engine:
        loading.set()
        assert go_on.wait(DEADLINE_S)
        return WellFormedEngine()

    service.publish("two", WellFormedEngine)
    service.publish("three", slow)
    service.swapper.swap(2)
    with ThreadPoolExecutor() as pool:
        swap = pool.submit(service.swapper.swap, 3)
        assert loading.wait(DEADLINE_S)
        rejection = pool.submit(service.swapper.reject, 2, "its canary fails")
        go_on.set()
        assert swap.result(DEADLINE_S).to_version == 3
        assert rejection.result(DEADLINE_S) is None, "somebody else was quicker"
    assert service.ask() == 3


def test_a_flip_says_what_needs_watching(service: Service) -> None:
    service.publish("two", WellFormedEngine)
    service.swapper.swap(2)
    service.swapper.roll_back()
    swapper = service.restart()
    swapper.start(service.folder)
    assert [version for version, _ in service.flips] == [1, 2, 1, 1]
    first, second, back, restarted = (served_s for _, served_s in service.flips)
    assert first is not None and second is not None and max(first, second) < 5.0
    assert back is None and restarted is not None


def test_the_canary_is_asked_again_of_what_serves(service: Service) -> None:
    engine = WellFormedEngine()
    service.publish("two", lambda: engine)
    service.swapper.swap(2)
    asked = len(engine.batches)
    service.swapper.ask_canary(1)
    assert len(engine.batches) == asked
    service.swapper.ask_canary(2)
    assert len(engine.batches) == asked + 8
    engine.is_well_formed = False
    with pytest.raises(GateRejectedError):
        service.swapper.ask_canary(2)


def test_a_prepared_candidate_serves_nobody(service: Service) -> None:
    service.publish("two", WellFormedEngine)
    service.publish("three", FailsEngine)
    slot = service.swapper.prepare(2)
    assert slot.version == 2 and service.ask() == 1 and service.registry.serving() == 1
    slot.retire()
    with pytest.raises(PreconditionError):
        service.swapper.prepare(3)


def test_a_late_drain_gives_its_memory_back_in_the_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = threading.Event()
    service.publish("two", WellFormedEngine)
    with service.serving.lease():
        report = service.swapper.swap(2)
        assert "release" not in report.phases_ms
        monkeypatch.setattr(memory, "give_back", given_back.set)
    assert given_back.wait(DEADLINE_S)


def test_a_restart_serves_what_was_promoted_last(service: Service) -> None:
    service.publish("two", WellFormedEngine)
    service.publish("three", WellFormedEngine)
    service.swapper.swap(2)
    assert service.restart().start(service.folder).to_version == 2
    assert service.ask() == 2
    assert len(service.registry.history()) == 2


def test_a_start_passes_over_a_corrupted_version(service: Service) -> None:
    service.publish("two", WellFormedEngine)
    service.publish("three", refuse)
    service.swapper.swap(2)
    service.registry.set_serving(3, "by hand")
    (service.folder / "store/checkpoints/student/2/weights").write_text("twO")
    assert service.restart().start(service.folder).to_version == 1
    assert service.ask() == 1
    assert service.registry.history()[-1].version == 1
    (service.folder / "store/checkpoints/student/1/weights").unlink()
    with pytest.raises(PreconditionError, match="no checkpoint can serve"):
        service.restart().start(service.folder)


def test_the_first_start_publishes_the_base_student_once(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.engines["base"] = EchoEngine
    base = tmp_path / "base"
    base.mkdir()
    (base / "weights").write_text("base")
    with pytest.raises(PreconditionError, match="no base student"):
        service.swapper.start(tmp_path / "nowhere")
    assert service.swapper.start(base) == SwapReport(None, 1, service.reports[0].phases_ms)
    assert service.restart().start(base).to_version == 1
    assert service.registry.versions() == [1]
    assert service.registry.get(1).recipe == "base-student"
    service.batcher.close()


def test_the_canary_asks_each_task_once_with_its_images() -> None:
    questions = canary.canary_questions()
    assert sorted(question.task for question in questions) == ["A1", "A2", "A3", "A4", "D1", "D2", "D3", "D4"]
    assert [len(q.images) for q in canary.canary_queries()] == [1 if q.task == "D2" else 2 for q in questions]


def test_the_canary_lets_one_answer_lose_its_form_but_not_two() -> None:
    replies = [Reply(FORMS[question.text], 0.5, 1, 1) for question in canary.canary_questions()]
    assert canary.judge(replies, parsed_before=8) == 8
    replies[0] = Reply("perhaps", 0.5, 1, 1)
    assert canary.judge(replies, parsed_before=8) == 7
    replies[1] = Reply("move forward 1 meters", 0.5, 1, 1)  # a move is no answer to A2
    with pytest.raises(GateRejectedError) as caught:
        canary.judge(replies, parsed_before=8)
    assert (caught.value.gate, caught.value.figure) == ("canary", 6)
    assert canary.judge(replies, parsed_before=7) == 6
