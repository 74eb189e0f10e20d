"""Putting a checkpoint into a Triton server that keeps answering, and taking it out again.

Verify, stage, rename in, load, canary; then what is older than the one before goes. Whatever is wrong on the way, the
new version's folders are taken out and the old one, which answered all the time, keeps answering. A deployment that is
killed leaves nothing that the next one does not clean up.
"""

import logging
import time
from contextlib import closing
from dataclasses import dataclass

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from student_service import canary
from student_service.engines.base import answer
from student_service.engines.triton import Served, TritonEngine, ready_versions
from student_service.triton import wire
from student_service.triton.repository import Deployment, ModelRepository
from world2vlm.checkpoints import Registry
from world2vlm.errors import GateRejectedError, PreconditionError, UnavailableError, World2VLMError
from world2vlm.store import Store

_log = logging.getLogger(__name__)
_STOP_S = 30.0
_POLL_S = 0.02


def load_model(url: str, model: str, timeout_s: float) -> None:
    """Let Triton bring a model in line with its folder: start new and changed versions, stop those that went.

    The config is the folder's: one that came with the call would be a change of its own.

    Raises:
        PreconditionError: Triton refuses it; or what the model itself raised, for example DataCorruptedError.
        UnavailableError: Triton does not answer in time. It goes on with it all the same.
    """
    try:
        with triton.InferenceServerClient(url) as client:
            client.load_model(model, client_timeout=timeout_s)
    except InferenceServerException as error:
        raise wire.read_load_error(error) from error


@dataclass(frozen=True)
class Deployer:
    """Changes which checkpoint a Triton server serves, one change at a time, across processes.

    Args:
        repository: the server's model repository.
        url: `host:port` of its gRPC endpoint.
        store: folder or fsspec URL of the store, as the server reaches it.
        student: the registry's name in it.
        keep: versions that stay loaded, the newest among them. With 2, rolling back takes no loading, and a service
            that asks one version by number finds it until the next deployment; 1 gives the memory back at once.
        load_timeout_s: how long loading may take.
    """

    repository: ModelRepository
    url: str
    store: str
    student: str
    keep: int = 2
    load_timeout_s: float = 300.0

    def deploy(self, version: int) -> dict[str, int]:
        """Let a checkpoint answer.

        Returns:
            Triton's number of the new version, by model.

        Raises:
            NotFoundError: no such checkpoint.
            DataCorruptedError: a file differs from its manifest.
            GateRejectedError: the canary rejects it.
            PreconditionError: it is unfit, or another change is under way.
            UnavailableError: Triton does not answer.
        """
        with self.repository.alone():
            self._clean_up()
            deployment = self.describe(version)
            added: dict[str, int] = {}
            try:
                for model in self.repository.models:
                    added[model] = self.repository.add(model, deployment)
                    self._load(model)
                    self._try_out(model, Served(added[model], version, deployment.digest))
            except BaseException as error:
                _log.warning("version %d is taken out again: %s", version, error)
                self._take_out(added)
                raise
            self.repository.accept(added)
            self._retire()
            _log.info("version %d serves as %s", version, added)
            return added

    def describe(self, version: int) -> Deployment:
        """Verify a checkpoint and say where it is.

        Raises:
            NotFoundError: no such checkpoint.
            DataCorruptedError: a file differs from its manifest.
            PreconditionError: it is a LoRA adapter.
        """
        manifest = Registry(Store(self.store), self.student).verify(version)
        if manifest.kind != "full":
            raise PreconditionError(f"version {version} is a LoRA adapter; Triton is given full checkpoints only")
        return Deployment(self.store, self.student, version, manifest.digest)

    def roll_back(self) -> dict[str, int]:
        """Let the version answer that answered before; it is loaded still.

        Returns:
            Triton's number of that version, by model.

        Raises:
            PreconditionError: there is none, or another change is under way.
            UnavailableError: Triton does not answer.
        """
        with self.repository.alone():
            self._clean_up()
            before: dict[str, int] = {}
            for model in self.repository.models:
                *older, _ = self.repository.versions(model) or [0]
                if not older:
                    raise PreconditionError(f"{model} has no version before this one; deploy the older checkpoint")
                before[model] = older[-1]
            # First the decision, then the deed: killed in between, the next change finishes it.
            self.repository.accept(before)
            self._clean_up()
            return before

    def _clean_up(self) -> None:
        for model in self.repository.clean_up():
            self._load(model)

    def _load(self, model: str) -> None:
        """Let Triton load what came and stop what went; it goes on stopping after it has answered the call."""
        load_model(self.url, model, self.load_timeout_s)
        deadline = time.monotonic() + _STOP_S
        while gone := set(ready_versions(self.url, model)) - set(self.repository.versions(model)):
            if time.monotonic() > deadline:
                raise UnavailableError(f"Triton still answers with versions {sorted(gone)} of {model}")
            time.sleep(_POLL_S)

    def _try_out(self, model: str, expected: Served) -> None:
        """Ask as everybody asks, without naming a version: it must be the new one that answers, and in good form."""
        with closing(TritonEngine(self.url, model=model)) as engine:
            try:
                replies = answer(engine, canary.canary_queries(), canary.MAX_NEW_TOKENS)
            except UnavailableError as error:
                raise PreconditionError(f"{model} is unfit: the canary's questions make it fail") from error
            canary.judge(replies, 0)
            if engine.served != expected:
                raise GateRejectedError(canary.GATE, 0, f"{engine.served} answers in place of {expected}")

    def _take_out(self, numbers: dict[str, int]) -> None:
        for model, number in numbers.items():
            self.repository.remove(model, number)
            if self.repository.versions(model):
                try:
                    self._load(model)
                except World2VLMError:
                    # The folder is gone, so the next load stops it; the reason of the refusal matters more now.
                    _log.exception("%s: version %d may be loaded still", model, number)

    def _retire(self) -> None:
        for model in self.repository.models:
            if old := self.repository.versions(model)[: -self.keep]:
                for number in old:
                    self.repository.remove(model, number)
                self._load(model)
