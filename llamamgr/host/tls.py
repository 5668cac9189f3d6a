"""The certificate that the front shows, and the key to it: two PEM files, looked at before anybody depends on them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from llamamgr.core.certificates import validity_of
from llamamgr.core.errors import ConfigError

SOON_DAYS = 14.0
_DAY = 86400.0


class Certificate(msgspec.Struct, frozen=True):
    """A certificate that can be shown now; ``ends`` is seconds since the epoch."""

    path: str
    ends: float

    def days_left(self, now: float) -> float:
        return (self.ends - now) / _DAY

    def warning(self, now: float) -> str:
        """What to say when it ends within ``SOON_DAYS``; else nothing."""
        left = self.days_left(now)
        if left > SOON_DAYS:
            return ""
        return f"the certificate {self.path} {'expired' if left < 0 else 'expires'} on {_date(self.ends)}"


def examine(certificate: str, key: str, now: float) -> Certificate:
    """Read both files; ``ConfigError`` names the one that is missing, damaged, out of date, encrypted, or not the other's."""
    path, key_path = Path(certificate).expanduser(), Path(key).expanduser()
    try:
        validity = validity_of(_read("server.tls_cert", path))
    except ValueError as error:
        raise ConfigError(
            f"server.tls_cert: {path}: {error}", "a PEM file is needed, the server's own certificate first"
        ) from None
    _check_key(key_path)
    if now > validity.ends:
        raise ConfigError(f"server.tls_cert: {path} expired on {_date(validity.ends)}", "renew it")
    if now < validity.begins:
        raise ConfigError(
            f"server.tls_cert: {path} is valid from {_date(validity.begins)} on",
            "check the clock of this machine",
        )
    load_into(new_context(), certificate, key)
    return Certificate(str(path), validity.ends)


def new_context() -> ssl.SSLContext:
    """For a server: TLS 1.2 or newer, HTTP/1.1."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def load_into(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """New connections of ``context`` are shown this certificate. To be called for a live one only after ``examine``: a pair that
    does not fit leaves half of it in place.
    """
    path, key_path = Path(certificate).expanduser(), Path(key).expanduser()
    try:
        context.load_cert_chain(path, key_path, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"server.tls_key: {key_path} is not the key of {path}",
                "give the key that the certificate was made with",
            ) from None
        raise ConfigError(
            f"server.tls_cert, server.tls_key: {path} and {key_path} cannot be used: {error.reason or error}",
            "`openssl x509 -noout -text -in` and `openssl pkey -noout -check -in` tell more",
        ) from None


def _check_key(path: Path) -> None:
    pem = _read("server.tls_key", path)
    if b"PRIVATE KEY-----" not in pem:
        raise ConfigError(f"server.tls_key: {path}: it holds no PEM private key", "a PEM file is needed")
    if b"ENCRYPTED" in pem:
        raise ConfigError(
            f"server.tls_key: {path} is encrypted, and nobody is there to type its passphrase",
            f"openssl pkey -in {path} -out key.pem",
        )


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{setting}: {path} cannot be read: {error.strerror}",
            "check the path, and that this user may read it",
        ) from None


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
