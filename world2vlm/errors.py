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


class DataCorruptedError(World2VLMError):
    """Stored bytes differ from what their manifest says."""

    code = "data_corrupted"


class OverloadedError(World2VLMError):
    """A bounded queue is full; try again later."""

    code = "overloaded"


class UnavailableError(World2VLMError):
    """A needed service or checkpoint is not there yet."""

    code = "unavailable"


class UnauthenticatedError(World2VLMError):
    """A control call without the right token."""

    code = "unauthenticated"
