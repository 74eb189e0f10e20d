"""gRPC at both ends: the servers' builder, channels, and the one mapping between domain errors and statuses."""

import asyncio
import inspect
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from world2vlm import errors, telemetry
from world2vlm.errors import GateRejectedError, InvalidInputError, World2VLMError

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 << 20
_LIMITS = [("grpc.max_send_message_length", MAX_MESSAGE_BYTES), ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
_STATUS: dict[type[World2VLMError], grpc.StatusCode] = {
    errors.InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.GateRejectedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DataCorruptedError: grpc.StatusCode.DATA_LOSS,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
}
_BY_CODE = {kind.code: kind for kind in _STATUS}
# For errors that gRPC itself raises and that carry no `error-code`.
_BY_STATUS: dict[grpc.StatusCode, type[World2VLMError]] = {
    **{status: kind for kind, status in _STATUS.items() if kind is not GateRejectedError},
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.UnavailableError,
}

Metadata = tuple[tuple[str, str], ...]


def to_status(error: World2VLMError) -> tuple[grpc.StatusCode, Metadata]:
    """Return the status and the trailers that carry a domain error."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), grpc.StatusCode.INTERNAL)
    trailers: Metadata = (("error-code", error.code),)
    if isinstance(error, GateRejectedError):
        trailers += (("gate", error.gate), ("figure", repr(float(error.figure))))
    return status, trailers


def raise_domain_error(error: grpc.RpcError) -> NoReturn:
    """Raise the domain error that a failed call carries: the inverse of `to_status`, on the client."""
    call: Any = error
    trailers = dict(call.trailing_metadata() or ())
    text = call.details() or call.code().name
    kind = _BY_CODE.get(trailers.get("error-code", "")) or _BY_STATUS.get(call.code(), World2VLMError)
    if kind is GateRejectedError:
        raise GateRejectedError(trailers.get("gate", ""), float(trailers.get("figure", "nan")), text) from error
    raise kind(text) from error


class _Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Ends every call of ours with a status from the catalogue, and counts it."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method: str = handler_call_details.method
        make: Any
        guarded: Any
        if inspect.iscoroutinefunction(handler.unary_unary):
            make, guarded = grpc.unary_unary_rpc_method_handler, _guard_unary(method, handler.unary_unary)
        elif inspect.isasyncgenfunction(handler.unary_stream):
            make, guarded = grpc.unary_stream_rpc_method_handler, _guard_stream(method, handler.unary_stream)
        else:
            return handler
        return make(guarded, handler.request_deserializer, handler.response_serializer)


def _guard_unary(method: str, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: Any) -> Any:
        with _counted(method, context):
            try:
                return await behaviour(request, context)
            except Exception as error:
                await _abort(method, context, error)

    return call


def _guard_stream(method: str, behaviour: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        with _counted(method, context):
            try:
                async with aclosing(behaviour(request, context)) as messages:
                    async for message in messages:
                        yield message
            except Exception as error:
                await _abort(method, context, error)

    return call


async def _abort(method: str, context: Any, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, World2VLMError):
        status, trailers = to_status(error)
        log.debug("%s: %s: %s", method, status.name, error)
        await context.abort(status, str(error), trailers)
    log.error("%s failed", method, exc_info=error)
    # Nothing of the inside goes out: the caller gets the method, the log has the rest.
    await context.abort(grpc.StatusCode.INTERNAL, "internal error", (("error-code", World2VLMError.code),))
    raise AssertionError("unreachable: abort raises")


@contextmanager
def _counted(method: str, context: Any) -> Iterator[None]:
    start = time.monotonic()
    cancelled = True
    try:
        yield
        cancelled = False
    except Exception:
        cancelled = False
        raise
    finally:
        code = context.code()
        status = "CANCELLED" if cancelled else code.name if isinstance(code, grpc.StatusCode) else "OK"
        telemetry.REQUESTS.labels(method, status).inc()
        telemetry.SECONDS.labels(method).observe(time.monotonic() - start)


@dataclass(frozen=True)
class Service:
    """One servicer: its full name, itself, and the generated function that adds it to a server."""

    name: str
    servicer: Any
    add: Callable[[Any, grpc.aio.Server], None]


@dataclass(frozen=True)
class Tls:
    """PEM files of a server's certificate and private key."""

    certificate: Path
    key: Path


class Server:
    """A grpc.aio server with health checks, reflection and error mapping. Make it inside a running event loop."""

    def __init__(
        self, services: Sequence[Service], host: str = "127.0.0.1", port: int = 0, tls: Tls | None = None
    ) -> None:
        self._services = services
        # Without SO_REUSEPORT a second server on a taken port fails instead of taking half of its calls.
        options = [*_LIMITS, ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(interceptors=[_Interceptor()], options=options)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in services:
            service.add(service.servicer, self._server)
        names = [service.name for service in services]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        self.port = self._bind(f"{host}:{port}", tls)

    def _bind(self, address: str, tls: Tls | None) -> int:
        try:
            if tls is None:
                return int(self._server.add_insecure_port(address))
            pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
            return int(self._server.add_secure_port(address, grpc.ssl_server_credentials([pair])))
        except (RuntimeError, OSError) as error:
            raise errors.UnavailableError(f"cannot listen on {address}: {error}") from error

    async def start(self) -> int:
        """Start answering and report SERVING. Returns the port."""
        await self._server.start()
        for service in self._services:
            await self._health.set(service.name, health_pb2.HealthCheckResponse.SERVING)
        return self.port

    async def stop(self, grace: float) -> None:
        """Report NOT_SERVING, take no new calls, let those in flight finish for `grace` seconds, then cancel them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    async def run(self, grace: float) -> None:
        """Serve until SIGTERM or SIGINT, then stop."""
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        port = await self.start()
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


def channel(url: str, ca: Path | None = None) -> grpc.Channel:
    """Open a synchronous channel to `host:port`, with TLS where a CA file is given."""
    if ca is None:
        return grpc.insecure_channel(url, options=_LIMITS)
    return grpc.secure_channel(url, grpc.ssl_channel_credentials(_read(ca)), options=_LIMITS)


def aio_channel(url: str, ca: Path | None = None) -> grpc.aio.Channel:
    """Open an asynchronous channel to `host:port`, with TLS where a CA file is given."""
    if ca is None:
        return grpc.aio.insecure_channel(url, options=_LIMITS)
    return grpc.aio.secure_channel(url, grpc.ssl_channel_credentials(_read(ca)), options=_LIMITS)


def _read(ca: Path) -> bytes:
    try:
        return ca.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read the CA file {ca}: {error}") from error
