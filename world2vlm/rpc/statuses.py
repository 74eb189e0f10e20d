"""The one mapping between domain errors and gRPC statuses, in both directions."""

from typing import Any, NoReturn

import grpc

from world2vlm import errors
from world2vlm.errors import GateRejectedError, OverloadedError, World2VLMError

RETRY_AFTER = "retry-after-ms"

_STATUS: dict[type[World2VLMError], grpc.StatusCode] = {
    errors.InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.GateRejectedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DivergedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DataCorruptedError: grpc.StatusCode.DATA_LOSS,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
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
    if isinstance(error, OverloadedError):
        trailers += ((RETRY_AFTER, str(round(1000 * error.retry_after_s))),)
    return status, trailers


def raise_domain_error(error: grpc.RpcError) -> NoReturn:
    """Raise the domain error that a failed call carries: the inverse of `to_status`, on the client."""
    call: Any = error
    trailers = dict(call.trailing_metadata() or ())
    text = call.details() or call.code().name
    kind = _BY_CODE.get(trailers.get("error-code", "")) or _BY_STATUS.get(call.code(), World2VLMError)
    if kind is GateRejectedError:
        raise GateRejectedError(trailers.get("gate", ""), float(trailers.get("figure", "nan")), text) from error
    if kind is OverloadedError and (hint := retry_after(error)) is not None:
        raise OverloadedError(text, hint) from error
    raise kind(text) from error


def retry_after(error: grpc.RpcError) -> float | None:
    """Seconds that a server asks its caller to wait before trying again; None where it asks nothing."""
    call: Any = error
    hint = dict(call.trailing_metadata() or ()).get(RETRY_AFTER)
    return None if hint is None else float(hint) / 1000
