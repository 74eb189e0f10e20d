"""Real certificates for tests: a CA, a server's and a client's, made by the `openssl` program."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from world2vlm.tls import ClientTls, ServerTls

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")


@dataclass(frozen=True)
class Authority:
    """A CA in a folder of its own, and what it has signed."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def certificate(self, name: str) -> tuple[Path, Path]:
        """A certificate for this machine's loopback and its key, signed on first use."""
        certificate, key, request = (self.folder / f"{name}.{ending}" for ending in ("pem", "key", "csr"))
        if not certificate.exists():
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
            names = self.folder / "names"
            names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            signer = ("-CA", self.ca, "-CAkey", self.folder / "ca.key", "-CAcreateserial", "-extfile", names)
            openssl("x509", "-req", "-days", "2", "-in", request, "-out", certificate, *signer)
        return certificate, key

    def server(self, client_ca: Path | None = None) -> ServerTls:
        return ServerTls(*self.certificate("server"), client_ca)

    def client(self, name: str = "") -> ClientTls:
        """A client of this CA's servers, with a certificate where it has a name."""
        return ClientTls(self.ca, *self.certificate(name)) if name else ClientTls(self.ca)


def make_authority(folder: Path) -> Authority:
    authority = Authority(folder)
    folder.mkdir(parents=True)
    subject = ("-subj", "/CN=authority for tests", "-days", "2")
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", folder / "ca.key", "-out", authority.ca
    )
    return authority


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
