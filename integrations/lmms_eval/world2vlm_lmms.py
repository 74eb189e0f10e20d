"""A served student as a model of lmms-eval: `--model world2vlm --model_args url=localhost:50052`.

lmms-eval could load the checkpoint itself, as a Qwen3-VL; but it would show two pictures as two, and a student of
World2VLM's was trained on two views as one clip of two frames. So it is asked where it is served: there its inputs are
built as in training.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from tqdm import tqdm

from world2vlm.client import Student

MANIFEST = ModelManifest(model_id="world2vlm", simple_class_path="world2vlm_lmms.ServedStudent")


class ServedStudent(lmms):  # type: ignore[misc]
    """Asks a student service in free text; of more than two pictures it is shown the first and the last.

    Args:
        url: the service's `host:port`.
        _others: what lmms-eval gives every model (batch size, device).
    """

    is_simple = True

    def __init__(self, url: str = "localhost:50052", **_others: Any) -> None:
        super().__init__()
        self._student = Student(url)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Answer all requests, in order."""
        return [self._ask(*request.args) for request in tqdm(requests, desc="Asking the student")]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not offered: the service gives answers, not the probabilities of given ones."""
        raise NotImplementedError("the student service answers; it does not rate answers that it is given")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not offered: every question stands alone."""
        raise NotImplementedError("the student service answers every question on its own")

    def _ask(
        self,
        text: str,
        options: Mapping[str, Any],
        doc_to_visual: Callable[[Any], list[Any]],
        doc_id: int,
        task: str,
        split: str,
    ) -> str:
        pictures = doc_to_visual(self.task_dict[task][split][doc_id])
        shown = pictures if len(pictures) <= 2 else [pictures[0], pictures[-1]]
        return self._student.ask(text, shown, int(options.get("max_new_tokens", 0))).text
