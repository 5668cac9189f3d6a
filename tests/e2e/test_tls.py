"""HTTPS from end to end: the daemon's options, official clients, and a certificate that is renewed while it runs."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import openai
import pytest

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon, llamamgr
from tests.fakes.certificates import Pair, make

ASKED = [{"role": "user", "content": "hello"}]


@pytest.fixture
def pair(home_with_models: Path) -> Pair:
    """Named in config.toml, and about to end."""
    pair = make(home_with_models, "server", days=5)
    config = home_with_models / "config" / "config.toml"
    config.write_text(config.read_text() + f'[server]\ntls_cert = "{pair.cert}"\ntls_key = "{pair.key}"\n')
    return pair


@pytest.fixture
def secure(pair: Pair, home_with_models: Path) -> Iterator[Daemon]:
    daemon = Daemon(home_with_models)
    yield daemon
    daemon.stop()


def test_official_clients_speak_to_it_and_the_command_line_does_not_notice(
    secure: Daemon, pair: Pair
) -> None:
    assert secure.url.startswith("https://127.0.0.1:")
    with ollama.Client(host=secure.url, verify=pair.trusted()) as client:
        assert client.chat("selftest", messages=ASKED).message.content == selftest.ANSWER
    with (
        httpx.Client(verify=pair.trusted()) as http,
        openai.OpenAI(base_url=f"{secure.url}/v1", api_key="x", http_client=http) as other,
    ):
        answer = other.chat.completions.create(model="selftest", messages=ASKED)  # type: ignore[arg-type]
        assert answer.choices[0].message.content == selftest.ANSWER
    assert llamamgr("run", "selftest", "hello").stdout.strip() == selftest.ANSWER
    assert secure.url in llamamgr("daemon", "status").stdout


def test_a_certificate_that_ends_soon_is_said_by_log_and_doctor(secure: Daemon, pair: Pair) -> None:
    assert f"the certificate {pair.cert} expires on" in secure.log.read_text()
    findings = json.loads(llamamgr("doctor", "--json").stdout)["findings"]
    (tls,) = [finding for finding in findings if finding["name"] == "tls"]
    assert (tls["good"], "expires on" in tls["text"]) == (False, True)


def test_a_reload_takes_a_renewed_certificate_and_refuses_a_broken_one(
    secure: Daemon, pair: Pair, home_with_models: Path
) -> None:
    newer = make(home_with_models, "newer", days=90)
    before = pair.trusted()
    assert status(secure.url, before) == 200
    shutil.copy(newer.cert, pair.cert)
    refused = llamamgr("daemon", "reload")
    assert (refused.returncode, "is not the key of" in refused.stderr) == (2, True)
    assert status(secure.url, before) == 200
    shutil.copy(newer.key, pair.key)
    assert llamamgr("daemon", "reload").returncode == 0
    assert status(secure.url, newer.trusted()) == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        try:
            status(secure.url, before)
        except urllib.error.URLError as error:
            raise error.reason from None  # type: ignore[misc]


def status(url: str, context: ssl.SSLContext) -> int:
    with urllib.request.urlopen(f"{url}/health", context=context, timeout=30) as answer:
        return int(answer.status)


def test_options_of_serve_are_checked_before_it_listens(own_home: Path) -> None:
    pair, other = make(own_home), make(own_home, "other")
    alone = serve("--tls-cert", pair.cert)
    assert (alone.returncode, "server.tls_key" in alone.stderr) == (2, True)
    mixed = serve("--tls-cert", pair.cert, "--tls-key", other.key)
    assert (mixed.returncode, "is not the key of" in mixed.stderr) == (2, True)
    missing = serve("--tls-cert", str(own_home / "no.crt"), "--tls-key", pair.key)
    assert (missing.returncode, "cannot be read" in missing.stderr) == (2, True)
    for failed in (alone, mixed, missing):
        assert "hint:" in failed.stderr
        assert failed.stdout == ""


def test_options_of_serve_are_enough(own_home: Path) -> None:
    pair = make(own_home)
    command = [sys.executable, "-m", "llamamgr", "serve", "--host", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--tls-cert", pair.cert, "--tls-key", pair.key],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert status(url, pair.trusted()) == 200
        process.terminate()
        assert process.wait(30) == 0


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    return llamamgr("serve", "--host", "127.0.0.1:0", *flags)
