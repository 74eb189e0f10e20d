"""Which PEM files a server shows its callers, and which a client trusts and shows."""

from dataclasses import dataclass
from pathlib import Path

from world2vlm.errors import InvalidInputError


@dataclass(frozen=True)
class ServerTls:
    """A server's certificate and private key; with `client_ca` it takes only callers with a certificate of that CA."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class ClientTls:
    """The CA that a client verifies servers with, and the certificate that it shows where they ask for one (mTLS)."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


def read_pem(path: Path) -> bytes:
    """Read one PEM file.

    Raises:
        InvalidInputError: it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read the PEM file {path}: {error.strerror}") from error
