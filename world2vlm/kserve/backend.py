"""What our models for Triton's python backend say alike, in the API that Triton's stub process gives them."""

import logging
from typing import Any

from world2vlm.errors import InvalidInputError, World2VLMError
from world2vlm.kserve.marks import mark

_log = logging.getLogger(__name__)
CANCEL_POLL_S = 0.05
"""How often a model asks whether a request was cancelled."""


def failed(backend: Any, error: BaseException, cancelled: type[BaseException], what: str) -> Any:
    """The response to a request that failed.

    Args:
        backend: the module `triton_python_backend_utils`.
        error: why it failed.
        cancelled: what `error` is where the request was cancelled.
        what: what was asked, for the log.
    """
    kind = backend.TritonError
    match error:
        case InvalidInputError():
            failure = kind(mark(error), kind.INVALID_ARG)
        case World2VLMError():
            failure = kind(mark(error), kind.UNAVAILABLE)
        case cancelled():
            _log.debug("%s was cancelled", what)
            failure = kind("cancelled", kind.CANCELLED)
        case _:
            # Nothing of the inside goes out; the log has it.
            _log.error("%s failed", what, exc_info=error)
            failure = kind("internal error", kind.INTERNAL)
    return backend.InferenceResponse(error=failure)
