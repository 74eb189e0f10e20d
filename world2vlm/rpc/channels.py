"""Connections to a server."""

import grpc

from world2vlm.tls import ClientTls, read_pem

MAX_MESSAGE_BYTES = 64 << 20
LIMITS = [("grpc.max_send_message_length", MAX_MESSAGE_BYTES), ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
# Metadata that names a call, in requests, in the trailers of replies, and in the servers' logs.
REQUEST_ID = "x-request-id"

# A server that restarts is back within seconds; gRPC's own pauses between attempts to connect grow to two minutes.
_OPTIONS = [*LIMITS, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


def channel(url: str, tls: ClientTls | None = None) -> grpc.Channel:
    """Open a synchronous channel to `host:port`."""
    if tls is None:
        return grpc.insecure_channel(url, options=_OPTIONS)
    return grpc.secure_channel(url, _credentials(tls), options=_OPTIONS)


def aio_channel(url: str, tls: ClientTls | None = None) -> grpc.aio.Channel:
    """Open an asynchronous channel to `host:port`; call it inside a running event loop."""
    if tls is None:
        return grpc.aio.insecure_channel(url, options=_OPTIONS)
    return grpc.aio.secure_channel(url, _credentials(tls), options=_OPTIONS)


def _credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    certificate = read_pem(tls.certificate) if tls.certificate else None
    key = read_pem(tls.key) if tls.key else None
    return grpc.ssl_channel_credentials(read_pem(tls.ca), key, certificate)
