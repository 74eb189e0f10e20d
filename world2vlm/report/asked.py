"""How one question of a demonstration went."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """How one question went.

    Attributes:
        at: when it was asked, seconds since the epoch.
        latency_ms: until the answer or the error.
        version: the checkpoint that answered; empty where none did.
        error: why there was no answer; empty where there was one.
    """

    at: float
    latency_ms: float
    version: str
    error: str = ""
