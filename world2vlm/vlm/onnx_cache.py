"""Exported graphs in a cache folder, one subfolder for each architecture: a whole one, or none.

A process of its own exports, so that neither the time nor the memory that tracing takes is the server's. The graphs of
the shipped student's architecture ship with it; `python -m world2vlm.vlm.onnx_cache` makes them anew where a test says
that they are out of date.
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from world2vlm.errors import InvalidInputError, PreconditionError
from world2vlm.files import canonical_json, sha256_file, temporary_name
from world2vlm.vlm.onnx_weights import weight_shapes
from world2vlm.vlm.processor import ClipProcessor

SHIPPED = Path(__file__).parent / "graphs"
"""Cache folder in this package, with one architecture in it: the shipped student's."""
READ, EXTEND = "read.onnx", "extend.onnx"
WEIGHTS = "weights.json"
"""Names of the weights that each graph uses, by the graph's file name."""
UNFIT = 3
"""Exit status of the exporting process where the checkpoint is at fault; its error output ends with the reason."""
_RECORD = "export.json"
_FILES = (READ, EXTEND, WEIGHTS)
_EXPORTER = "world2vlm.vlm.onnx_export"
# What a graph depends on beside the architecture. The first is this package's own: count on when the graphs change.
_MAKERS = {"graphs": "3", **{name: version(name) for name in ("torch", "transformers", "onnxscript")}}
_NOT_ARCHITECTURE = {"dtype", "torch_dtype", "transformers_version", "_name_or_path"}
_TIMEOUT_S = 3600.0

_log = logging.getLogger(__name__)


def find_export(folder: Path, processor: ClipProcessor, cache: Path) -> Path:
    """The graphs for a checkpoint folder, made where the cache has none or not whole ones.

    Args:
        folder: the checkpoint's files.
        processor: the checkpoint's own.
        cache: the cache folder; several processes may share it.

    Returns:
        A folder with `read.onnx`, `extend.onnx` and `weights.json`.

    Raises:
        InvalidInputError: the files are no fit student.
        PreconditionError: the export fails, or the cache folder cannot be written.
    """
    digest = _digest(folder, processor)
    if _is_whole(SHIPPED / digest):
        return SHIPPED / digest
    found = cache / digest
    if not _is_whole(found):
        try:
            _make(folder, found)
        except OSError as error:
            raise PreconditionError(f"the cache of ONNX graphs cannot be written: {error.strerror}") from error
    return found


def _digest(folder: Path, processor: ClipProcessor) -> str:
    """Over all that the graphs are made of: never the weights' values."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"config.json cannot be read ({type(error).__name__})") from error
    positions, first = processor.clip_positions()
    content = {
        "makers": _MAKERS,
        "config": _architecture(config),
        "weights": weight_shapes(folder),
        "prefix": [processor.clip_ids(), positions.tolist(), first],
        "patches": [processor.grid, int(processor.image_processor.patch_size)],
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _architecture(config: Any) -> Any:
    """A config without what says nothing about the graphs: how the weights are stored, and who wrote it."""
    if not isinstance(config, dict):
        return config
    return {key: _architecture(value) for key, value in config.items() if key not in _NOT_ARCHITECTURE}


def _is_whole(export: Path) -> bool:
    try:
        digests = json.loads((export / _RECORD).read_bytes())
        return bool(digests == {name: sha256_file(export / name) for name in _FILES})
    except (OSError, ValueError):
        return False


def _make(folder: Path, target: Path) -> None:
    """Export beside the target, then rename: what is killed meanwhile leaves a folder that nobody reads."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    temporary = target.with_name(temporary_name())
    temporary.mkdir()
    try:
        started = time.monotonic()
        _export(folder, temporary)
        record = {name: sha256_file(temporary / name) for name in _FILES}
        (temporary / _RECORD).write_text(canonical_json(record), encoding="utf-8")
        for name in (*_FILES, _RECORD):
            with (temporary / name).open("rb") as file:
                os.fsync(file.fileno())
        if not _is_whole(target):  # another process may have been as quick
            shutil.rmtree(target, ignore_errors=True)
            with suppress(FileExistsError):
                temporary.rename(target)
        _log.info("exported the student's architecture to ONNX in %.1f s", time.monotonic() - started)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _export(folder: Path, out: Path) -> None:
    command = [sys.executable, "-m", _EXPORTER, str(folder.resolve()), str(out.resolve())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise PreconditionError(f"the export to ONNX took longer than {_TIMEOUT_S:g} s") from error
    if done.returncode == 0:
        return
    if done.returncode == UNFIT:
        raise InvalidInputError(done.stderr.strip().rpartition("\n")[2])
    _log.error("the export to ONNX failed:\n%s", done.stderr)
    raise PreconditionError("the student cannot be exported to ONNX")


def _sweep(cache: Path) -> None:
    """Remove what processes left behind that were killed while they exported."""
    for left in cache.glob(".*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _TIMEOUT_S:
                shutil.rmtree(left, ignore_errors=True)


def _ship() -> None:
    """Replace what ships by the shipped student's graphs."""
    from world2vlm.base_student import BASE_STUDENT
    from world2vlm.vlm.student import load_processor

    shutil.rmtree(SHIPPED, ignore_errors=True)
    find_export(BASE_STUDENT, load_processor(BASE_STUDENT), SHIPPED)


if __name__ == "__main__":
    _ship()
