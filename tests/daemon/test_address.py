"""Why the daemon cannot listen where it should, told to people."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from llamamgr.core.config import Address
from llamamgr.core.errors import ConfigError, ConflictError, LlamamgrError, PermissionDeniedError
from llamamgr.daemon.address import cannot_listen, check_address, check_name

HERE = Address("127.0.0.1", 80)


@pytest.mark.parametrize(
    ("number", "kind", "hint"),
    [
        (errno.EACCES, PermissionDeniedError, "1023"),
        (errno.EPERM, PermissionDeniedError, "1023"),
        (errno.EADDRNOTAVAIL, ConflictError, "server.host"),
    ],
)
def test_an_address_that_cannot_be_had_is_named_with_what_to_do(
    number: int, kind: type[LlamamgrError], hint: str
) -> None:
    error = cannot_listen(HERE, OSError(number, "no"), "server.host")
    assert isinstance(error, kind)
    assert "127.0.0.1:80" in error.what
    assert hint in error.hint


def test_a_port_that_is_taken_is_told_with_its_holder() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        error = cannot_listen(Address("127.0.0.1", port), OSError(errno.EADDRINUSE, "taken"), "--host")
    assert isinstance(error, ConflictError)
    assert f"127.0.0.1:{port} is in use by" in error.what


def test_a_name_that_nobody_knows_is_a_mistake_of_who_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*asked: object, **how: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    check_name(Address("localhost", 1), "--host")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConfigError, match="--host: there is no address for 'lokalhost'") as caught:
        check_name(Address("lokalhost", 1), "--host")
    assert "127.0.0.1:11434" in caught.value.hint


def test_an_address_is_free_until_somebody_else_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        check_address(address, "--host", own_pid=os.getpid())
        with pytest.raises(ConflictError, match="in use by"):
            check_address(address, "--host", own_pid=1)
    check_address(address, "--host")
