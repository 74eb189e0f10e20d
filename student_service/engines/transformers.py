"""The engine in this process: transformers' generate on the shared student model."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from student_service.engines.base import Query, Reply
from world2vlm.errors import PreconditionError, World2VLMError
from world2vlm.vlm import Prompt, StudentModel


def limit_threads(threads: int) -> None:
    """Let torch use `threads` threads for one operation, in the whole process."""
    torch.set_num_threads(threads)


class TransformersEngine:
    """One student model in memory."""

    def __init__(self, model: StudentModel) -> None:
        self._model: StudentModel | None = model

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "TransformersEngine":
        """Load a verified checkpoint folder onto a torch device.

        Raises:
            PreconditionError: the checkpoint is unfit.
        """
        try:
            return cls(StudentModel.load(folder, device))
        except World2VLMError as error:
            raise PreconditionError(f"the checkpoint is unfit: {error}") from error

    def answer(
        self, queries: Sequence[Query], max_new_tokens: int, on_text: Callable[[int, str], None] | None = None
    ) -> list[Reply]:
        """See `Engine.answer`."""
        if not queries:
            return []
        prompts = [Prompt(query.images, query.text) for query in queries]
        listener = _Listener(on_text) if on_text is not None else None
        generations = self._loaded().answer(prompts, max_new_tokens=max_new_tokens, on_text=listener)
        if listener is not None:
            listener.complete([generation.text for generation in generations])
        return [Reply(g.text, g.probability, g.prompt_tokens, g.answer_tokens) for g in generations]

    def count_tokens(self, text: str) -> int:
        """See `Engine.count_tokens`."""
        return self._loaded().count_tokens(text)

    def close(self) -> None:
        """See `Engine.close`."""
        self._model = None

    def _loaded(self) -> StudentModel:
        if self._model is None:
            raise RuntimeError("the engine is closed")
        return self._model


class _Listener:
    """Hands pieces on, and in the end what the model held back: characters whose last bytes never came."""

    def __init__(self, on_text: Callable[[int, str], None]) -> None:
        self._on_text = on_text
        self._said: defaultdict[int, str] = defaultdict(str)

    def __call__(self, index: int, text: str) -> None:
        self._said[index] += text
        self._on_text(index, text)

    def complete(self, texts: Sequence[str]) -> None:
        for index, text in enumerate(texts):
            if rest := text[len(self._said[index]) :]:
                self._on_text(index, rest)
