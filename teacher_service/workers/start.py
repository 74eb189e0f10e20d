"""`python start.py WORLD --socket PATH --options JSON`: a world's own process, in the world's own environment.

That environment does not have this package, and must not see the folder that this package is installed in: the numpy
or torch there are not its own. So the few modules that a worker shares with the teacher are found by their place
beside this file, and nothing else is. Packages whose `__init__` would import more than that are entered without it.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

# How this process ends where the environment lacks something; the launcher tells that from a crash.
LACKING = 3

_ROOT = Path(__file__).resolve().parents[2]
_SHARED = ("world2vlm", "world2vlm.rpc", "teacher_service", "teacher_service.workers")
_NEEDS = ("numpy", "PIL", "grpc", "grpc_health", "google.protobuf")


def main() -> int:
    """Check the environment, then load the world and serve it until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world")
    parser.add_argument("--needs", default="", help="packages of the world's own, separated by commas")
    parser.add_argument("--check", action="store_true", help="only say what the environment lacks")
    parser.add_argument("--socket", help="where to serve")
    parser.add_argument("--options", default="{}", help="the world's options as a JSON object")
    arguments = parser.parse_args()
    lacking = [name for name in (*_NEEDS, *filter(None, arguments.needs.split(","))) if not _is_there(name)]
    if lacking:
        print(f"lacking: {', '.join(lacking)}")
        return LACKING
    share()
    serving = importlib.import_module("teacher_service.workers.serving")
    if not arguments.check:
        worker = importlib.import_module(f"teacher_service.workers.{arguments.world}.worker")
        options = json.loads(arguments.options)
        serving.serve(worker.load(options), options, arguments.socket)
    return 0


def share(names: Sequence[str] = _SHARED) -> None:
    """Make packages of ours importable by their place, without running their `__init__`."""
    for name in names:
        package = ModuleType(name)
        package.__path__ = [str(_ROOT.joinpath(*name.split(".")))]
        sys.modules[name] = package


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the parent of `name`
        return False


if __name__ == "__main__":
    del sys.path[0]  # this folder: its modules go by their full names
    sys.exit(main())
