"""Kombu's Redis transport, with one repair for brokers that die."""

from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError as RedisConnectionError


class Channel(redis.Channel):
    """A channel that says so when its connection is gone.

    When a broker dies, Kombu 5.7 gives back messages on a connection that it has closed already and fails with an
    AttributeError, which ends the worker. A connection error is what it is, and Celery reconnects after one.
    """

    def _connparams(self, asynchronous: bool = False) -> Any:
        if self.connection.client is None:
            raise RedisConnectionError("the connection to the broker is closed")
        return super()._connparams(asynchronous)  # type: ignore[no-untyped-call]


class Transport(redis.Transport):
    """The Redis transport with the repaired channel."""

    Channel = Channel
