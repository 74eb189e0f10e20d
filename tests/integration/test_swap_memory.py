"""Swapping again and again in one service: nothing grows."""

from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest

from tests.student_kit import png, publish, running_student, wait_until
from world2vlm.client import Student
from world2vlm.vlm import StudentConfig, build_student

pytestmark = pytest.mark.alone

SWAPS = 20
WORKERS = 2
# Less than two of the checkpoints: one that stayed behind each time would be seen ten times over.
BOUND_MB = 24.0


def wide_student(seed: int) -> Path:
    """A student of about 13 MB, so that a leak would show."""
    folder = Path(mkdtemp(prefix="wide-student-"))
    sizes = StudentConfig(
        frame_size=32, patch_size=8, merge_size=2, vision_layers=1, text_layers=4, vision_width=32, text_width=256
    )
    build_student(sizes, seed).save(folder)
    return folder


class Usage:
    """What this process and its children use: megabytes in memory (shared ones once), threads, open files."""

    def __init__(self) -> None:
        process = psutil.Process()
        self.memory_mb, self.threads, self.files = 0.0, 0, 0
        for each in (process, *process.children(recursive=True)):
            # One that ends meanwhile uses nothing any more.
            with suppress(psutil.NoSuchProcess):
                memory, threads, files = each.memory_full_info().pss, each.num_threads(), each.num_fds()
                self.memory_mb += memory / 1e6
                self.threads += threads
                self.files += files


def swap_forth_and_back(client: Student, swaps: int, most: int) -> Usage:
    for index in range(swaps):
        version = 3 - index % 2
        assert client.swap(version)["to"] == version
        assert client.ask("Where is the red chair?", [png()], 4).version == str(version)
    wait_until(lambda: processes() <= most)  # the last one's are ending
    return Usage()


def processes() -> int:
    """Processes that hold a checkpoint: children of the one that they are forked from."""
    mine = {each.pid for each in psutil.Process().children()}
    return len({each.pid for each in psutil.Process().children(recursive=True)} - mine)


@pytest.mark.slow
def test_twenty_swaps_leave_nothing_behind(tmp_path: Path) -> None:
    most = processes() + WORKERS
    with running_student(tmp_path, workers=WORKERS, watch_seconds=3600.0) as (_, client):
        for seed in (1, 2):
            folder = wide_student(seed)
            assert (folder / "model.safetensors").stat().st_size > 12e6
            publish(tmp_path, folder, f"seed {seed}")
        before = swap_forth_and_back(client, 6, most)  # what grows once is loaded, and each version was there
        after = swap_forth_and_back(client, SWAPS, most)
    assert after.memory_mb - before.memory_mb < BOUND_MB
    assert after.threads <= before.threads + 1  # a watch's thread that is about to end
    assert after.files <= before.files
