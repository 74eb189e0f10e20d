"""The servers' builder."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from world2vlm.errors import UnavailableError, World2VLMError
from world2vlm.rpc.channels import LIMITS
from world2vlm.rpc.guard import Door, Guard
from world2vlm.tls import ServerTls, read_pem

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """One servicer: its full name, itself, and the generated function that adds it to a server.

    Attributes:
        doors: by a method's name, what is asked before a call's request is read: it raises what refuses the call.
    """

    name: str
    servicer: Any
    add: Callable[[Any, grpc.aio.Server], None]
    doors: Mapping[str, Door] = field(default_factory=dict)


class Server:
    """A grpc.aio server with health checks, reflection if wanted, and error mapping.

    Make it inside a running event loop.

    Args:
        services: what it serves.
        host: address to listen on.
        port: 0 picks a free one.
        tls: how it shows itself; None = no TLS.
        with_reflection: whether clients may ask for the protocols.
        warm: called in a thread once the port is open. Until it returns, health is NOT_SERVING, and the services' calls
            are UNAVAILABLE.

    Attributes:
        port: where it listens.
    """

    def __init__(
        self,
        services: Sequence[Service],
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ServerTls | None = None,
        *,
        with_reflection: bool = True,
        warm: Callable[[], None] | None = None,
    ) -> None:
        self._services = services
        self._warm = warm
        # Without SO_REUSEPORT a second server on a taken port fails instead of taking half of its calls.
        options = [*LIMITS, ("grpc.so_reuseport", 0)]
        doors = {f"/{service.name}/{method}": door for service in services for method, door in service.doors.items()}
        self._guard = Guard(doors)
        self._server = grpc.aio.server(interceptors=[self._guard], options=options)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in services:
            service.add(service.servicer, self._server)
        if with_reflection:
            names = [service.name for service in services]
            reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        self.port = self._bind(f"{host}:{port}", tls)

    def _bind(self, address: str, tls: ServerTls | None) -> int:
        try:
            if tls is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, _credentials(tls)))
        except RuntimeError as error:
            raise UnavailableError(f"cannot listen on {address}: {error}") from error

    async def start(self) -> int:
        """Open the port, warm up, start answering and report SERVING. Returns the port.

        Raises:
            World2VLMError: what warming up raises.
        """
        names = [service.name for service in self._services]
        if self._warm is not None:
            await self._report(("", *names), health_pb2.HealthCheckResponse.NOT_SERVING)
            self._guard.close(names)
        await self._server.start()
        if self._warm is not None:
            await asyncio.to_thread(self._warm)
            self._guard.open()
        await self._report(("", *names), health_pb2.HealthCheckResponse.SERVING)
        return self.port

    async def _report(self, names: Sequence[str], status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in names:
            await self._health.set(name, status)

    async def stop(self, grace: float) -> None:
        """Report NOT_SERVING, take no new calls, let those in flight finish for `grace` seconds, then cancel them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    async def run(self, grace: float) -> None:
        """Serve until SIGTERM or SIGINT, then stop.

        Raises:
            World2VLMError: what warming up raises.
        """
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        try:
            port = await self.start()
        except World2VLMError:
            await self.stop(0)
            raise
        log.info("serving %s on port %d", ", ".join(service.name for service in self._services), port)
        await stopping.wait()
        log.info("draining for at most %g s", grace)
        await self.stop(grace)


@contextmanager
def in_background(make: Callable[[], Server], grace: float = 1.0) -> Iterator[int]:
    """Run a server on an event loop of its own in a thread, for synchronous code in the same process.

    Args:
        make: builds the server; called on that loop.
        grace: seconds that calls in flight may take at the end.

    Yields:
        The port.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="rpc", daemon=True)
    thread.start()

    async def start() -> Server:
        server = make()
        await server.start()
        return server

    try:
        server = asyncio.run_coroutine_threadsafe(start(), loop).result()
        try:
            yield server.port
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(grace), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    client_ca = read_pem(tls.client_ca) if tls.client_ca else None
    pair = (read_pem(tls.key), read_pem(tls.certificate))
    return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)
