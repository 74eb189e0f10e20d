"""What operators see: logs, progress and Prometheus metrics."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from prometheus_client import Counter, Histogram, start_http_server

from world2vlm.errors import UnavailableError

log = logging.getLogger(__name__)

REQUESTS = Counter("world2vlm_requests", "Calls answered, by method and gRPC status.", ["method", "status"])
SECONDS = Histogram("world2vlm_request_seconds", "Seconds from a call's start to its end, by method.", ["method"])

_PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PROGRESS_EVERY_S = 5.0
# The hub's clients: a line for each request, with the signed address of each file.
_CHATTY = ("httpx", "httpx2")

Advance = Callable[[int], None]


@dataclass
class Call:
    """A call that this process answers.

    Attributes:
        request_id: what its caller and the log know it by.
        version: the checkpoint that answered; empty until that is known, or where none is involved.
    """

    request_id: str
    version: str = ""


_call: ContextVar[Call | None] = ContextVar("call", default=None)


def enter_call(request_id: str) -> Call:
    """Begin a call: from here on what its task logs, and the tasks that it starts, carries its id."""
    call = Call(request_id)
    _call.set(call)
    return call


def answered_by(version: int) -> None:
    """Note the checkpoint version that answered the current call, if there is one."""
    if (call := _call.get()) is not None:
        call.version = str(version)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message; the call's id and version, the exception, where known."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (call := _call.get()) is not None:
            line |= {"request_id": call.request_id} | ({"version": call.version} if call.version else {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(log_format: Literal["plain", "json"] = "plain", level: str = "INFO") -> None:
    """Send the root logger to stderr, replacing what was set before."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(_PLAIN))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def serve_metrics(port: int, host: str = "127.0.0.1") -> int | None:
    """Serve Prometheus metrics over HTTP in a thread; 0 picks a free port, a negative port serves none.

    Returns:
        The port, or None.

    Raises:
        UnavailableError: the port is taken, or the address is not this machine's.
    """
    if port < 0:
        return None
    try:
        server, _thread = start_http_server(port, addr=host)
    except OSError as error:
        raise UnavailableError(f"cannot serve metrics on {host}:{port} (metrics_port): {error.strerror}") from error
    log.info("metrics on http://%s:%d/metrics", host, server.server_port)
    return int(server.server_port)


@contextmanager
def progress(description: str, total: int) -> Iterator[Advance]:
    """Show the progress of `total` steps: a bar on a terminal, else a log line every few seconds and at the end.

    Yields:
        A function that takes how many more steps are done.
    """
    if sys.stderr.isatty():
        with _bar(description, total) as advance:
            yield advance
    else:
        with _lines(description, total) as advance:
            yield advance


@contextmanager
def _bar(description: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(description, total=total)
        yield lambda steps: bars.advance(task, steps)


@contextmanager
def _lines(description: str, total: int) -> Iterator[Advance]:
    start = last = time.monotonic()
    done = 0

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        if time.monotonic() - last >= _PROGRESS_EVERY_S:
            last = time.monotonic()
            log.info("%s: %d of %d", description, done, total)

    yield advance
    log.info("%s: %d of %d in %.1f s", description, done, total, time.monotonic() - start)
