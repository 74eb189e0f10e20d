"""OpenTelemetry traces, handed on from process to process as W3C `traceparent` in gRPC metadata.

Nothing is recorded until a process exports its spans: a service whose settings have `otlp_endpoint`, or an application
around the client that has set up OpenTelemetry itself. Without the extra `tracing` there are no spans at all.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from world2vlm.errors import InvalidInputError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

# The tracer of an application's own set-up, which does nothing where there is none.
_outer: Any = None
try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    pass
else:
    _outer = trace.get_tracer("world2vlm")
    _propagator = TraceContextTextMapPropagator()

# Set while this process records its own spans.
_tracer: Any = None

Attributes = dict[str, str | int | float]


@contextmanager
def exporting(service: str, endpoint: str | None) -> Iterator[None]:
    """Export this process's spans while the block runs, and what is left of them at its end.

    Args:
        service: the name that the spans carry.
        endpoint: an OTLP collector's gRPC URL, such as `http://localhost:4317`; None exports nothing.

    Raises:
        InvalidInputError: an endpoint without the extra `tracing`.
    """
    if endpoint is None:
        yield
        return
    with recording(_make_provider(service, endpoint)):
        yield


@contextmanager
def recording(provider: "TracerProvider") -> Iterator[None]:
    """Hand this process's spans to `provider` while the block runs; then flush it and shut it down."""
    global _tracer
    before, _tracer = _tracer, provider.get_tracer("world2vlm")
    try:
        yield
    finally:
        _tracer = before
        provider.shutdown()


def _make_provider(service: str, endpoint: str) -> "TracerProvider":
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidInputError("otlp_endpoint needs the extra: pip install 'world2vlm[tracing]'") from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return provider


@contextmanager
def client_span(name: str) -> Iterator[tuple[tuple[str, str], ...]]:
    """Trace a call to a server; yields the metadata by which the server joins the trace.

    The span is not made the current one: the block may be a generator, which shares its caller's context.
    """
    tracer = _tracer or _outer
    if tracer is None:
        yield ()
        return
    span = tracer.start_span(name, kind=trace.SpanKind.CLIENT)
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    try:
        yield tuple(carrier.items())
    except Exception as error:
        span.record_exception(error)
        span.set_status(trace.StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        span.end()


@contextmanager
def server_span(name: str, metadata: Mapping[str, Any]) -> Iterator[Attributes]:
    """Trace a call from a client whose metadata may name its trace; yields attributes to be filled until the end."""
    attributes: Attributes = {}
    if _tracer is None:
        yield attributes
        return
    parent = _propagator.extract(metadata)
    with _tracer.start_as_current_span(name, parent, kind=trace.SpanKind.SERVER) as span:
        try:
            yield attributes
        finally:
            span.set_attributes(attributes)


def record(name: str, started_ns: int, ended_ns: int, **attributes: str | int | float) -> None:
    """Add a span that is over to the current trace; times in nanoseconds since 1970 (`time.time_ns`)."""
    if _tracer is not None:
        _tracer.start_span(name, start_time=started_ns, attributes=attributes).end(ended_ns)
