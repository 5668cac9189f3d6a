"""Who holds a port."""

from __future__ import annotations

import os
import socket

from llamamgr.host.ports import Holder, free_port, holder_of, is_taken


def test_a_listener_is_found_by_its_port_and_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        holder = holder_of(server.getsockname()[1])
    assert holder is not None
    assert holder.pid == os.getpid()
    assert f"(pid {os.getpid()})" in str(holder)


def test_a_port_that_is_bound_but_not_listened_on_has_no_holder() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert holder_of(bound.getsockname()[1]) is None


def test_a_hidden_holder_is_still_said_to_exist() -> None:
    assert str(Holder()) == "another user's process"


def test_a_port_is_taken_while_somebody_listens_and_only_then():
    port = free_port("127.0.0.1")
    assert not is_taken("127.0.0.1", port)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        assert is_taken("127.0.0.1", port)
    assert not is_taken("127.0.0.1", port)
