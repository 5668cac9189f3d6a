"""When an X.509 certificate is valid: the one thing that Python's ``ssl`` tells of a peer's certificate but not of one's own.

The way to it (RFC 5280 §4.1): Certificate → tbsCertificate → [version], serialNumber, signature, issuer, *validity*.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17
_VALIDITY = 3  # its place behind the optional version


class Validity(msgspec.Struct, frozen=True):
    """Seconds since the epoch."""

    begins: float
    ends: float


def validity_of(pem: bytes) -> Validity:
    """Of the first certificate of a PEM file, which is the server's own; ``ValueError`` when there is none or it is damaged."""
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("it holds no PEM certificate")
    try:
        certificate = next(_parts(base64.b64decode(found[1])))
        signed = next(_parts(certificate[1]))
        fields = [part for part in _parts(signed[1]) if part[0] != _VERSION]
        begins, ends = (_moment(*part) for part in _parts(fields[_VALIDITY][1]))
    except (binascii.Error, IndexError, StopIteration, ValueError):
        raise ValueError("its certificate is damaged") from None
    return Validity(begins, ends)


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, contents) of the values that lie one behind the other in ``der``."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(der[at : at + count], "big"), at + count
        if at + size > len(der):
            raise ValueError("a value is longer than what holds it")
        yield tag, der[at : at + size]
        at += size


def _moment(tag: int, text: bytes) -> float:
    digits = text.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:  # two digits of the year, up to 2049
        digits = ("20" if digits[:2] < "50" else "19") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
