"""What Prometheus is told about the student. Each name begins with `world2vlm_student_`, but for two older ones."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from world2vlm.errors import OverloadedError, World2VLMError

VERSION = Gauge("world2vlm_checkpoint_version", "The checkpoint version that answers.")
SWAPS = Counter("world2vlm_swaps", "Swaps that took place, the first start among them.")
SWAP_SECONDS = Histogram(
    "world2vlm_student_swap_seconds",
    "Seconds of a swap, by phase.",
    ["phase"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
REQUESTS = Counter(
    "world2vlm_student_requests",
    "Questions that ended, by task (`text`: free, `unread`: refused unread), `ok` or the error's code, and version.",
    ["task", "status", "version"],
)
QUEUE = Gauge("world2vlm_student_queue_length", "Questions that wait for the engine.")
BATCH = Histogram(
    "world2vlm_student_batch_size",
    "Questions that the engine works on, whenever it has news of one.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
FIRST_TEXT = Histogram(
    "world2vlm_student_first_token_seconds",
    "Seconds from queueing a streamed question to the first text of its answer.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
TOKENS = Counter("world2vlm_student_tokens", "Tokens of answers; its rate is the service's tokens a second.")
SPEED = Histogram(
    "world2vlm_student_tokens_per_second",
    "Tokens a second of one answer, waiting not counted.",
    buckets=(1, 3, 10, 30, 100, 300, 1000, 3000),
)
FEATURES = Counter(
    "world2vlm_student_feature_cache", "Questions' images looked up among those seen before: hit or miss.", ["outcome"]
)
PICTURES = Counter(
    "world2vlm_student_picture_cache", "Pictures looked up among those decoded before: hit or miss.", ["outcome"]
)

_CACHES = {"features": FEATURES, "pictures": PICTURES}


@dataclass
class Request:
    """One question under way; `version` is to be set once a checkpoint has answered it."""

    version: str = ""


@contextmanager
def request(task: str) -> Iterator[Request]:
    """Count one question when the block ends, however it ends; `task` is empty for free text."""
    counted, status = Request(), "ok"
    try:
        yield counted
    except World2VLMError as error:
        status = error.code
        raise
    except asyncio.CancelledError:
        status = "cancelled"
        raise
    except Exception:
        status = World2VLMError.code
        raise
    finally:
        REQUESTS.labels(task or "text", status, counted.version).inc()


def refused() -> None:
    """Count one question that was refused before it was read."""
    REQUESTS.labels("unread", OverloadedError.code, "").inc()


def answered(tokens: int, generate_ms: float, first_text_ms: float | None) -> None:
    """Note how fast an answer of so many tokens came, and its first text where it was streamed."""
    if first_text_ms is not None:
        FIRST_TEXT.observe(first_text_ms / 1000)
    TOKENS.inc(tokens)
    if generate_ms > 0:
        SPEED.observe(1000 * tokens / generate_ms)


def watch_queue(length: Callable[[], int]) -> None:
    """Ask `length` for the queue's length whenever metrics are read."""
    QUEUE.set_function(length)


def stepped(queries: int) -> None:
    """Note that the engine has news, of some of so many queries."""
    BATCH.observe(queries)


def looked_up(cache: str, found: bool, count: int) -> None:
    """Note so many lookups in the cache of `features` or of `pictures`."""
    _CACHES[cache].labels("hit" if found else "miss").inc(count)


def swapped(version: int, phases_ms: Mapping[str, float]) -> None:
    """Note that a version serves, and the milliseconds of each phase on the way there."""
    VERSION.set(version)
    SWAPS.inc()
    for phase, milliseconds in phases_ms.items():
        SWAP_SECONDS.labels(phase).observe(milliseconds / 1000)
