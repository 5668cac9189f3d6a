"""``llamamgr key``: what people see, what scripts get, and what a running daemon knows of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from llamamgr.core.keys import owner_of
from llamamgr.host.keys_file import load_keys
from llamamgr.host.paths import Paths


def llamamgr(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llamamgr", *words],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=110,
        stdin=subprocess.DEVNULL,
    )


def test_a_new_key_stands_alone_on_stdout_and_is_kept_nowhere():
    made = llamamgr("key", "create", "ann", "--model", "qwen*", "--endpoint", "chat", "--rate", "60/m")
    secret = made.stdout.removesuffix("\n")
    assert secret.startswith("lmk-") and "\n" not in secret
    assert "not shown again" in made.stderr
    paths = Paths.of_environment()
    owner = owner_of(secret, load_keys(paths))
    assert owner is not None
    assert (owner.name, owner.models, owner.endpoints, owner.rate) == ("ann", ("qwen*",), ("chat",), "60/m")
    kept = [path for path in paths.config.parent.rglob("*") if path.is_file()]
    assert not [path for path in kept if secret[4:] in path.read_text(errors="replace")]


def test_programs_get_documents():
    made = json.loads(
        llamamgr("key", "create", "ann", "--json", "--expires", "30d", "--priority", "-2").stdout
    )
    [listed] = json.loads(llamamgr("key", "list", "--json").stdout)["keys"]
    assert made.pop("secret").startswith("lmk-")
    assert listed == made
    assert "hash" not in listed
    assert (listed["priority"], listed["models"], listed["expires"] > listed["created"]) == (-2, [], True)


def test_keys_are_listed_and_removed_by_the_short_words_for_models_too():
    assert llamamgr("key", "create", "ann").returncode == 0
    assert "ann" in llamamgr("key", "ls").stdout
    assert llamamgr("key", "rm", "ann").returncode == 0
    assert "ann" not in llamamgr("key", "ls").stdout


def test_keys_are_listed_and_removed_by_name():
    for name in ("ann", "bob"):
        llamamgr("key", "create", name, "--parallel", "2")
    told = llamamgr("key", "list").stdout
    assert [line.split()[0] for line in told.splitlines()] == ["NAME", "ann", "bob"]
    assert llamamgr("key", "remove", "ann").returncode == 0
    assert [key.name for key in load_keys(Paths.of_environment())] == ["bob"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("create", "ann"), 5, "key remove ann"),
        (("create",), 2, "has a name"),
        (("create", "a b"), 2, "cannot name a key"),
        (("create", "bob", "--endpoint", "chta"), 2, "did you mean chat"),
        (("create", "bob", "--rate", "60"), 2, "60/m"),
        (("create", "bob", "--expires", "yesterday"), 2, "30d"),
        (("create", "bob", "--model", "a b"), 2, "pattern"),
        (("create", "bob", "--priority", "5000"), 2, "1000"),
        (("remove", "nobody"), 4, "key list"),
        (("list", "nobody"), 4, "key list"),
        (("list", "--rate", "60/m"), 2, "key create"),
        (("rename", "ann"), 2, "create"),
    ],
)
def test_mistakes_are_told_and_change_nothing(words: tuple[str, ...], code: int, said: str):
    llamamgr("key", "create", "ann")
    done = llamamgr("key", *words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert [key.name for key in load_keys(Paths.of_environment())] == ["ann"]


@pytest.mark.parametrize("where", ["flag", "environment", "file"])
def test_the_daemon_does_not_listen_beyond_loopback_without_a_key(where: str):
    paths = Paths.of_environment()
    if where == "file":
        paths.config.mkdir(parents=True)
        paths.config_file.write_text('[server]\nhost = "0.0.0.0:0"\n')
    flag = ("--host", "0.0.0.0:0") if where == "flag" else ()
    env = {"LLAMAMGR_HOST": "0.0.0.0:0"} if where == "environment" else {}
    done = llamamgr("serve", *flag, **env)
    assert (done.returncode, done.stdout) == (2, "")
    assert "hint: `llamamgr key create NAME`" in done.stderr


@pytest.fixture
def required() -> Iterator[str]:
    """The address of a daemon on loopback that asks for keys all the same."""
    paths = Paths.of_environment()
    paths.config.mkdir(parents=True)
    paths.config_file.write_text('[server]\nhost = "127.0.0.1:0"\nrequire_key = true\n')
    command = [sys.executable, "-m", "llamamgr", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        yield daemon.stdout.readline().split()[-1]
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)


def status(url: str, secret: str = "") -> int:
    request = urllib.request.Request(f"{url}/api/tags", headers={"Authorization": f"Bearer {secret}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_running_daemon_knows_of_a_change_when_the_command_returns(required: str):
    assert status(required) == 401
    secret = llamamgr("key", "create", "ann").stdout.strip()
    assert status(required, secret) == 200
    assert llamamgr("list").returncode == 0  # who has the socket needs no key
    assert llamamgr("ps").returncode == 0
    assert llamamgr("key", "remove", "ann").returncode == 0
    assert status(required, secret) == 401


def test_a_reload_that_would_open_the_front_to_the_network_is_refused(required: str):
    paths = Paths.of_environment()
    paths.config_file.write_text('[server]\nhost = "0.0.0.0:0"\n')
    refused = llamamgr("daemon", "reload")
    assert (refused.returncode, "llamamgr key create" in refused.stderr) == (2, True)
    llamamgr("key", "create", "ann")
    assert llamamgr("daemon", "reload").returncode == 0  # to be in force at the next start


def test_a_file_that_breaks_under_a_running_daemon_is_told_and_changes_nothing(required: str):
    paths = Paths.of_environment()
    secret = llamamgr("key", "create", "ann").stdout.strip()
    paths.keys_file.write_text(paths.keys_file.read_text() + "oops\n")
    broken = llamamgr("daemon", "reload")
    assert (broken.returncode, "keys.toml" in broken.stderr) == (2, True)
    assert (status(required, secret), status(required)) == (200, 401)
