"""How workers share work, on Redis (or Valkey): queues to look into, short locks, and leases with a heartbeat."""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from trainer.pieces import QUEUES, Piece
from world2vlm.errors import OverloadedError

_log = logging.getLogger(__name__)
PIECE_HEADER = "piece"
_PREFIX = "world2vlm"
_LEASE_SECONDS = 15.0
_HEARTBEAT_SECONDS = 3.0
# Short, since a killed worker leaves its lock behind; one that expires too early costs a message sent twice.
_LOCK_SECONDS = 5.0
_LOCK_WAIT_SECONDS = 30.0

Send = Callable[[Piece], None]


class RedisCoordinator:
    """`trainer.runner.Coordinator` on Redis.

    Args:
        url: `redis://...`, the Celery broker's own.
        node: this worker's name; leases carry it, so that a restarted worker knows which were its own.
        send: sends one piece's message, with its key in the header `piece`.
    """

    def __init__(self, url: str, node: str, send: Send) -> None:
        # A broker that restarts is back within seconds; a task that is about to end had better wait for it.
        self._redis = redis.Redis.from_url(
            url, socket_timeout=10, decode_responses=True, retry=Retry(ExponentialBackoff(cap=1, base=0.1), 10)
        )
        self._node = node
        self._send = send

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold a lock that expires by itself; wait for it if need be.

        Raises:
            OverloadedError: it was not to be had in time.
        """
        lock = self._redis.lock(f"{_PREFIX}:lock:{name}", timeout=_LOCK_SECONDS, blocking_timeout=_LOCK_WAIT_SECONDS)
        if not lock.acquire():
            raise OverloadedError(f"the lock {name} was held for {_LOCK_WAIT_SECONDS:.0f} seconds")
        try:
            yield
        finally:
            with suppress(redis.exceptions.LockError):
                lock.release()

    @contextmanager
    def lease(self, key: str, delivery: str) -> Iterator[bool]:
        """Claim a piece and keep the claim alive while the block runs; False where another delivery holds it."""
        name, owner = f"{_PREFIX}:lease:{key}", f"{self._node}|{delivery}"
        if not self._redis.set(name, owner, px=_milliseconds(_LEASE_SECONDS), nx=True):
            # Redelivered, perhaps to another worker: whoever had this delivery before is dead.
            if self._owner(name)[1] != delivery:
                yield False
                return
            self._redis.set(name, owner, px=_milliseconds(_LEASE_SECONDS))
        ended = threading.Event()
        beat = threading.Thread(target=self._beat, args=(name, owner, ended), name="lease", daemon=True)
        beat.start()
        try:
            yield True
        finally:
            ended.set()
            beat.join()
            self._release(name, owner)

    def busy(self) -> set[str]:
        """Keys of the pieces that wait in a queue or are leased."""
        queued = (json.loads(message) for queue in QUEUES for message in self._redis.lrange(queue, 0, -1))
        leased = (name.removeprefix(f"{_PREFIX}:lease:") for name in self._leases())
        return {message["headers"].get(PIECE_HEADER, "") for message in queued} | set(leased)

    def enqueue(self, pieces: Iterable[Piece]) -> None:
        """Send pieces to their queues."""
        for piece in pieces:
            self._send(piece)

    def forget_own_leases(self) -> None:
        """Drop the leases of the worker that had this node's name before: it is dead, or this one could not start."""
        for name in self._leases():
            if self._owner(name)[0] == self._node:
                self._redis.delete(name)

    def _owner(self, name: str) -> tuple[str, str]:
        """(node, delivery) of a lease; empty where there is none."""
        node, _, delivery = str(self._redis.get(name) or "").partition("|")
        return node, delivery

    def _leases(self) -> Iterator[str]:
        return self._redis.scan_iter(f"{_PREFIX}:lease:*", count=1000)

    def _beat(self, name: str, owner: str, ended: threading.Event) -> None:
        while not ended.wait(_HEARTBEAT_SECONDS):
            # A broker that is away, or came back empty, must not stop the work: the lease is put back when it can be.
            with suppress(redis.exceptions.RedisError):
                if self._redis.get(name) in (None, owner):
                    self._redis.set(name, owner, px=_milliseconds(_LEASE_SECONDS))

    def _release(self, name: str, owner: str) -> None:
        try:
            if self._redis.get(name) == owner:
                self._redis.delete(name)
        except redis.exceptions.RedisError:
            _log.warning("a lease can't be given up now and will expire: %s", name)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
