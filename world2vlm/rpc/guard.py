"""What every call of ours gets: a status from the catalogue, a request id, a trace, a line in the log, a count."""

import inspect
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from world2vlm import telemetry, tracing
from world2vlm.errors import InvalidInputError, UnavailableError, World2VLMError
from world2vlm.rpc.channels import REQUEST_ID
from world2vlm.rpc.statuses import to_status

log = logging.getLogger(__name__)

Deserializer = Callable[[bytes], Any]
Door = Callable[[], None]
"""Raises the error that refuses a call; what is refused was not even read, so that many can be refused quickly."""

# What goes into the log and back to the caller must not be able to break a line or a header.
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Stands around every behaviour that is a coroutine or an asynchronous generator.

    It also parses the requests: gRPC itself answers bytes that are no message with the parser's own words.

    Args:
        doors: by full method.
    """

    def __init__(self, doors: Mapping[str, Door]) -> None:
        self._doors = doors
        self._closed: frozenset[str] = frozenset()

    def close(self, services: Iterable[str]) -> None:
        """Refuse all calls of some services, by their full names, until `open`."""
        self._closed = frozenset(services)

    def open(self) -> None:
        """Take all calls."""
        self._closed = frozenset()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method: str = handler_call_details.method
        try:
            self._check(method)
        except World2VLMError as error:
            # gRPC reads no request of a stream of them before somebody asks for it.
            return grpc.stream_unary_rpc_method_handler(_refuse(method, error))
        make: Any
        guarded: Any
        if inspect.iscoroutinefunction(handler.unary_unary):
            make = grpc.unary_unary_rpc_method_handler
            guarded = _guard_unary(method, handler.unary_unary, handler.request_deserializer)
        elif inspect.isasyncgenfunction(handler.unary_stream):
            make = grpc.unary_stream_rpc_method_handler
            guarded = _guard_stream(method, handler.unary_stream, handler.request_deserializer)
        elif inspect.isasyncgenfunction(handler.stream_stream):
            make = grpc.stream_stream_rpc_method_handler
            guarded = _guard_streams(method, handler.stream_stream, handler.request_deserializer)
        else:
            return handler
        return make(guarded, request_deserializer=None, response_serializer=handler.response_serializer)

    def _check(self, method: str) -> None:
        if method.split("/")[1] in self._closed:
            raise UnavailableError("the service is warming up; try again in a moment")
        if method in self._doors:
            self._doors[method]()


def _refuse(method: str, error: World2VLMError) -> Callable[..., Awaitable[Any]]:
    # Those who are refused may be very many: they are counted, and no line each goes into the log.
    async def call(_: AsyncIterator[bytes], context: Any) -> Any:
        with _observed(method, context, logging.DEBUG) as observed:
            await _abort(method, context, error, observed.request_id)

    return call


def _guard_unary(
    method: str, behaviour: Callable[..., Awaitable[Any]], parse: Deserializer
) -> Callable[..., Awaitable[Any]]:
    async def call(request: bytes, context: Any) -> Any:
        with _observed(method, context) as observed:
            try:
                return await behaviour(_parse(parse, request), context)
            except Exception as error:
                await _abort(method, context, error, observed.request_id)

    return call


def _guard_stream(method: str, behaviour: Callable[..., Any], parse: Deserializer) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: bytes, context: Any) -> AsyncIterator[Any]:
        with _observed(method, context) as observed:
            try:
                async with aclosing(behaviour(_parse(parse, request), context)) as messages:
                    async for message in messages:
                        yield message
            except Exception as error:
                await _abort(method, context, error, observed.request_id)

    return call


def _guard_streams(
    method: str, behaviour: Callable[..., Any], parse: Deserializer
) -> Callable[..., AsyncIterator[Any]]:
    async def parsed(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for request in requests:
            yield _parse(parse, request)

    async def call(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        with _observed(method, context) as observed:
            try:
                async with aclosing(behaviour(parsed(requests), context)) as messages:
                    async for message in messages:
                        yield message
            except Exception as error:
                await _abort(method, context, error, observed.request_id)

    return call


def _parse(parse: Deserializer, request: bytes) -> Any:
    try:
        return parse(request)
    except DecodeError as error:
        raise InvalidInputError("the request is not a message of this call's type") from error


async def _abort(method: str, context: Any, error: Exception, request_id: str) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    named = ((REQUEST_ID, request_id),)
    if isinstance(error, World2VLMError):
        status, trailers = to_status(error)
        log.debug("%s: %s: %s", method, status.name, error)
        await context.abort(status, str(error), trailers + named)
    log.error("%s failed", method, exc_info=error)
    # Nothing of the inside goes out: the caller gets the request's id, under which the log has the rest.
    text = f"internal error in request {request_id}"
    await context.abort(grpc.StatusCode.INTERNAL, text, (("error-code", World2VLMError.code), *named))
    raise AssertionError("unreachable: abort raises")


@contextmanager
def _observed(method: str, context: Any, level: int = logging.INFO) -> Iterator[telemetry.Call]:
    """Observe one call from its start to its end; gRPC gives each a task, so a context, of its own."""
    metadata = dict(context.invocation_metadata() or ())
    call = telemetry.enter_call(_request_id(metadata))
    context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
    start = time.monotonic()
    with tracing.server_span(method, metadata) as attributes:
        cancelled = True
        try:
            yield call
            cancelled = False
        except Exception:
            cancelled = False
            raise
        finally:
            code = context.code()
            status = "CANCELLED" if cancelled else code.name if isinstance(code, grpc.StatusCode) else "OK"
            seconds = time.monotonic() - start
            telemetry.REQUESTS.labels(method, status).inc()
            telemetry.SECONDS.labels(method).observe(seconds)
            attributes |= {"rpc.grpc.status": status, "request_id": call.request_id, "version": call.version}
            # gRPC's own services (health, reflection) are asked every few seconds: nobody reads about that.
            if not method.startswith("/grpc."):
                log.log(level, "%s: %s in %.1f ms", method, status, 1000 * seconds)


def _request_id(metadata: dict[str, Any]) -> str:
    given = metadata.get(REQUEST_ID, "")
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
