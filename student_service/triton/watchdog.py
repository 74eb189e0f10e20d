"""Noticing a model that died or hangs, and bringing it back.

Triton never restarts a dead python stub, while it reports the model as ready. Only a question tells.
"""

import logging
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol

from student_service.engines.triton import probe, ready_versions
from student_service.triton.deploy import load_model
from student_service.triton.repository import BusyError, ModelRepository
from world2vlm.errors import OverloadedError, UnavailableError, World2VLMError

_log = logging.getLogger(__name__)


class Process(Protocol):
    """The server's process."""

    url: str

    def check(self) -> None:
        """Raise UnavailableError where it has ended."""
        ...

    def restart(self) -> None:
        """Stop it if it runs, and start it."""
        ...


@dataclass(frozen=True)
class Incident:
    """What was dead, as `model/version` or `server`, and what brought it back."""

    what: str
    remedy: Literal["reload", "restart"]


@dataclass
class Watchdog:
    """Asks every version of every model one question a round, and brings back what does not answer.

    Its methods belong to the thread that started the server: the server ends with the thread that starts it.

    Args:
        server: the server's process.
        repository: its model repository.
        patience: rounds in a row that a version may leave its question unanswered; a busy one may miss one.
        answer_s: how long an answer may take.
        load_s: how long loading a model may take.
    """

    server: Process
    repository: ModelRepository
    patience: int = 2
    answer_s: float = 10.0
    load_s: float = 120.0
    _missed: Counter[tuple[str, int]] = field(default_factory=Counter)

    def run(self, stop: threading.Event, interval_s: float = 5.0) -> None:
        """Check every `interval_s` seconds until `stop` is set."""
        while not stop.wait(interval_s):
            for incident in self.check():
                _log.warning("%s was dead; a %s brought it back", incident.what, incident.remedy)

    def check(self) -> list[Incident]:
        """One round.

        Raises:
            UnavailableError: the server can't be started again.
        """
        try:
            self.server.check()
        except UnavailableError as error:
            _log.error("%s", error)
            self._restart()
            return [Incident("server", "restart")]
        incidents: list[Incident] = []
        for model, number in self._serving():
            if not self._is_alive(model, number) and self._missed[model, number] >= self.patience:
                incidents += self._recover(model, number)
        return incidents

    def _serving(self) -> list[tuple[str, int]]:
        """What must answer: whatever Triton calls ready, and what was accepted; not what is being deployed."""
        accepted = self.repository.accepted()
        found: list[tuple[str, int]] = []
        for model in self.repository.models:
            numbers = {accepted[model]} if model in accepted else set()
            with suppress(UnavailableError):
                numbers |= set(ready_versions(self.server.url, model))
            found += [(model, number) for number in sorted(numbers & set(self.repository.versions(model)))]
        return found

    def _is_alive(self, model: str, number: int) -> bool:
        try:
            probe(self.server.url, model, number, self.answer_s)
        except OverloadedError:
            pass  # a model that refuses is alive
        except World2VLMError as error:
            self._missed[model, number] += 1
            _log.warning("%s/%d does not answer (%d): %s", model, number, self._missed[model, number], error)
            return False
        del self._missed[model, number]
        return True

    def _recover(self, model: str, number: int) -> list[Incident]:
        """Load anew what looks changed; where that doesn't help, start the whole server anew."""
        what = f"{model}/{number}"
        try:
            with self.repository.alone():
                if number not in self.repository.versions(model):
                    return []
                self.repository.touch(model, number)
                load_model(self.server.url, model, self.load_s)
            if self._is_alive(model, number):
                return [Incident(what, "reload")]
        except BusyError as error:
            _log.warning("%s stays dead for now: %s", what, error)
            return []
        except World2VLMError as error:
            _log.warning("%s can't be loaded: %s", what, error)
        self._restart()
        return [Incident(what, "restart")]

    def _restart(self) -> None:
        self._missed.clear()
        self.server.restart()
