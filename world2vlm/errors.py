"""The one catalogue of errors that cross a boundary. `world2vlm.rpc` maps each to a gRPC status; nothing else does."""


class World2VLMError(Exception):
    """Base of all errors whose text may be shown to a caller; `code` is stable: it is the `error-code` trailer."""

    code = "internal"


class InvalidInputError(World2VLMError, ValueError):
    """The request itself is wrong; sending it again can't help."""

    code = "invalid_input"


class NotFoundError(World2VLMError, LookupError):
    """The named thing does not exist."""

    code = "not_found"


class GateRejectedError(World2VLMError):
    """A gate rejected an imagined trajectory or a candidate checkpoint.

    Attributes:
        gate: the gate's name.
        figure: the figure that failed.
    """

    code = "gate_rejected"

    def __init__(self, gate: str, figure: float, message: str) -> None:
        super().__init__(message)
        self.gate = gate
        self.figure = figure


class PreconditionError(World2VLMError):
    """The call is right but the state forbids it now."""

    code = "failed_precondition"


class DivergedError(World2VLMError):
    """A training's loss is not finite any more; its last snapshot is whole."""

    code = "diverged"


class DataCorruptedError(World2VLMError):
    """Stored bytes differ from what their manifest says."""

    code = "data_corrupted"


class OverloadedError(World2VLMError):
    """A bounded queue is full; try again later.

    Attributes:
        retry_after_s: seconds after which there may be room again.
    """

    code = "overloaded"

    def __init__(self, message: str, retry_after_s: float = 0.1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(World2VLMError):
    """A needed service or checkpoint is not there yet."""

    code = "unavailable"


class UnsupportedError(World2VLMError):
    """A call, or a part of one, that a protocol knows and this service does not offer."""

    code = "unsupported"


class UnauthenticatedError(World2VLMError):
    """A control call without the right token."""

    code = "unauthenticated"
