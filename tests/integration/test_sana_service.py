"""Streams of one photo through the real service make one call of a real (tiny, random) SANA-WM pipeline."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import REGISTRY

from teacher_service.photos import motorcycle
from teacher_service.worlds import sana_wm
from tests.teacher_kit import eventually, serving
from tests.worlds_kit import settings, tiny_sana
from world2vlm.actions import parse_actions
from world2vlm.bundles import Frame
from world2vlm.clients.teacher import TeacherClient
from world2vlm.images import encode_png

PNG = encode_png(motorcycle().pixels)
PATHS = ("turn left 10 degrees", "turn right 10 degrees", "move forward 0.4 meters")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sana(tmp_path_factory.mktemp("weights") / "sana")


class Watched:
    """A world whose model's calls are counted, and held up for as long as `go` is not set."""

    def __init__(self, weights: Path, max_batch: int) -> None:
        self.world = sana_wm.make(settings("sana_wm", weights, max_batch=max_batch))
        self.go = threading.Event()
        self.go.set()
        # Two of each batch, with the prompt and without; two steps.
        self.calls: list[int] = []
        self.world.sampler._pipe.transformer.register_forward_hook(self._after)

    def _after(self, _model: Any, given: tuple[Any, ...], _made: Any) -> None:
        self.calls.append(len(given[0]))
        assert self.go.wait(60)


def views(frames: list[Frame]) -> NDArray[np.int64]:
    return np.stack([np.asarray(Image.open(io.BytesIO(frame.png))) for frame in frames]).astype(np.int64)


@pytest.mark.parametrize(("max_batch", "calls"), [(1, [2] * 8), (4, [2, 2, 6, 6])])
def test_streams_that_wait_are_made_in_one_call(weights: Path, max_batch: int, calls: list[int]) -> None:
    watched = Watched(weights, max_batch)
    told: list[list[tuple[int, int]]] = [[], [], []]
    with serving(watched.world) as url, TeacherClient(url) as client, ThreadPoolExecutor(4) as threads:
        # It has been warmed up.
        watched.calls.clear()
        watched.go.clear()

        def ask(index: int, path: str) -> list[Frame]:
            return client.imagine_photo(
                PNG,
                parse_actions(path),
                seed=index,
                on_progress=lambda done, total: told[index].append((done, total)),
            )

        first = threads.submit(client.imagine_photo, PNG, parse_actions(PATHS[0]), seed=9)
        eventually(lambda: watched.calls == [2])
        asked = list(map(threads.submit, [ask] * 3, range(3), PATHS))
        eventually(lambda: REGISTRY.get_sample_value("world2vlm_teacher_queue_length") == 3)
        watched.go.set()
        assert len(first.result()) == 3
        made = [each.result() for each in asked]
    assert watched.calls == calls
    alone = sana_wm.make(settings("sana_wm", weights))
    for index, path in enumerate(PATHS):
        with serving(alone) as url, TeacherClient(url) as client:
            own = client.imagine_photo(PNG, parse_actions(path), seed=index)
        # In a batch another rounding may come out.
        assert np.abs(views(made[index]) - views(own)).max() <= 1
        assert [(frame.actions_step, frame.key_frame) for frame in made[index]] == [
            (frame.actions_step, frame.key_frame) for frame in own
        ]
        # The anchor's frame comes before the model begins.
        assert told[index][:3] == [(1, len(own)), (1, 2), (2, 2)]
