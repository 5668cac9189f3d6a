"""Self-signed certificates for ``localhost``, made by the openssl program."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import msgspec
import pytest


class Pair(msgspec.Struct, frozen=True):
    """Paths of a certificate and its key."""

    cert: str
    key: str

    def trusted(self) -> ssl.SSLContext:
        """A client's context that trusts this certificate and no other."""
        context = ssl.create_default_context(cafile=self.cert)
        context.verify_flags &= ~getattr(
            ssl, "VERIFY_X509_STRICT", 0
        )  # which asks for more than a test needs
        return context


def make(folder: Path, name: str = "tls", days: int = 365) -> Pair:
    """A certificate that is good for ``days`` from now."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program to make a certificate with")
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert), "-days", str(days)]
    subprocess.run(["openssl", "req", "-x509", *kind, *names, *files], check=True, capture_output=True)
    return Pair(str(cert), str(key))


def encrypt(pair: Pair) -> Pair:
    """The same with a passphrase on its key."""
    locked = pair.key + ".locked"
    subprocess.run(
        ["openssl", "pkey", "-in", pair.key, "-out", locked, "-aes256", "-passout", "pass:secret"],
        check=True,
        capture_output=True,
    )
    return Pair(pair.cert, locked)
