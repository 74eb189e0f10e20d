"""What Prometheus is told about the teacher. Each name begins with `world2vlm_teacher_`."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

OPEN = Gauge("world2vlm_teacher_open_streams", "Streams that are open.")
WAITING = Gauge("world2vlm_teacher_queue_length", "Trajectories that wait for a lane.")
TRAJECTORIES = Counter(
    "world2vlm_teacher_trajectories",
    "Trajectories that were worked on, by world and how that ended: made, cancelled, or the error's code.",
    ["world", "outcome"],
)
REJECTED = Counter(
    "world2vlm_teacher_rejected", "Trajectories that a gate rejected, by world and gate.", ["world", "gate"]
)
FRAME_SECONDS = Histogram(
    "world2vlm_teacher_frame_seconds",
    "Seconds of a trajectory by its frames, by world.",
    ["world"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
BATCH = Histogram(
    "world2vlm_teacher_batch_size",
    "Trajectories of one photo that were begun at once, by world.",
    ["world"],
    buckets=(1, 2, 4, 8, 16, 32),
)
CACHE = Counter(
    "world2vlm_teacher_cache",
    "Trajectories asked for: hit (on disk), shared (just being made for another), miss; and entries found corrupt.",
    ["outcome"],
)
CACHE_BYTES = Gauge("world2vlm_teacher_cache_bytes", "Bytes of trajectories on disk.")


def watch(open_streams: Callable[[], int], waiting: Callable[[], int]) -> None:
    """Ask for the lengths whenever metrics are read."""
    OPEN.set_function(open_streams)
    WAITING.set_function(waiting)
