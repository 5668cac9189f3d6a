"""Who holds a port."""

from __future__ import annotations

import os
import socket

from llamamgr.host.ports import Holder, holder_of


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
