"""A certificate and its key are looked at before anything depends on them."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.certificates import validity_of
from llamamgr.core.errors import ConfigError
from llamamgr.host.tls import examine, load_into, new_context
from tests.fakes.certificates import Pair, encrypt, make

DAY = 86400.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make(tmp_path_factory.mktemp("tls"), days=100)


def test_a_good_pair_tells_when_it_ends(pair: Pair) -> None:
    now = time.time()
    certificate = examine(pair.cert, pair.key, now)
    assert certificate.days_left(now) == pytest.approx(100, abs=0.1)
    assert certificate.warning(now) == ""
    assert "expires on" in certificate.warning(now + 87 * DAY)
    assert "expired on" in certificate.warning(now + 101 * DAY)


def test_the_dates_are_those_that_openssl_reads(pair: Pair) -> None:
    told = ssl._ssl._test_decode_cert(pair.cert)  # type: ignore[attr-defined]
    found = validity_of(Path(pair.cert).read_bytes())
    assert found.begins == ssl.cert_time_to_seconds(told["notBefore"])
    assert found.ends == ssl.cert_time_to_seconds(told["notAfter"])


def test_a_date_beyond_2049_is_read(tmp_path: Path) -> None:
    far = make(tmp_path, days=20_000)
    assert examine(far.cert, far.key, time.time()).days_left(time.time()) == pytest.approx(20_000, abs=0.1)


def refused(pair: Pair, now: float = 0.0) -> str:
    with pytest.raises(ConfigError) as caught:
        examine(pair.cert, pair.key, now or time.time())
    assert caught.value.hint
    return caught.value.what


def test_an_expired_certificate_and_one_of_tomorrow_are_refused(pair: Pair) -> None:
    assert "expired on" in refused(pair, time.time() + 101 * DAY)
    assert "valid from" in refused(pair, time.time() - 2 * DAY)


def test_files_that_do_not_belong_together_are_refused(pair: Pair, tmp_path: Path) -> None:
    other = make(tmp_path)
    assert f"{other.key} is not the key of {pair.cert}" in refused(Pair(pair.cert, other.key))


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(pair: Pair) -> None:
    assert "is encrypted" in refused(encrypt(pair))


SPOILT: dict[str, Callable[[Pair, Path], Pair]] = {
    "a missing certificate": lambda pair, folder: Pair(str(folder / "no.crt"), pair.key),
    "a missing key": lambda pair, folder: Pair(pair.cert, str(folder / "no.key")),
    "a folder": lambda pair, folder: Pair(str(folder), pair.key),
    "files swapped": lambda pair, folder: Pair(pair.key, pair.cert),
    "no PEM": lambda pair, folder: Pair(written(folder / "der", b"\x30\x82\x01"), pair.key),
    "a certificate cut short": lambda pair, folder: Pair(
        written(folder / "cut", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"), pair.key
    ),
    "a key of garbage": lambda pair, folder: Pair(
        pair.cert, written(folder / "key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    ),
}


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("name", SPOILT)
def test_what_cannot_be_used_is_named(name: str, pair: Pair, tmp_path: Path) -> None:
    spoilt = SPOILT[name](pair, tmp_path)
    assert any(path in refused(spoilt) for path in (spoilt.cert, spoilt.key))


def test_a_certificate_that_was_replaced_is_shown_by_the_context_there_is(pair: Pair, tmp_path: Path) -> None:
    context = new_context()
    load_into(context, pair.cert, pair.key)
    other = make(tmp_path)
    load_into(context, other.cert, other.key)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@given(place=st.integers(0, 2000), value=st.integers(0, 255))
def test_a_damaged_certificate_gives_an_error_and_no_surprise(pair: Pair, place: int, value: int) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(Path(pair.cert).read_text()))
    der[place % len(der)] = value
    try:
        validity_of(pem(bytes(der)))
    except ValueError as error:
        assert "damaged" in str(error)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_certificate(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"damaged|no PEM"):
        validity_of(pem(data))


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n" % base64.encodebytes(der)
