"""TCP ports of this machine: a free one, whether one is taken, and who listens there as far as the system tells."""

from __future__ import annotations

import os
import shlex
import socket
from typing import Any

import msgspec

from llamamgr.host.running import environment_of, words_of


class Holder(msgspec.Struct, frozen=True):
    """The listener on a port. ``pid`` is 0 and ``name`` empty when the system hides whose it is (another user's).

    ``stop`` is the command that ends it in order, where it is a daemon of llamamgr.
    """

    pid: int = 0
    name: str = ""
    stop: str = ""

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid else "another user's process"


def free_port(host: str) -> int:
    """A port of ``host``, an IPv4 address, that nobody holds right now; somebody may take it any moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def is_taken(host: str, port: int) -> bool:
    """True when a server could not bind ``port`` of ``host``, an IPv4 address, now."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: only a listener is in the way
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def holder_of(port: int) -> Holder | None:
    """The process that listens on ``port`` on any address; None when none does or the system does not say."""
    import psutil

    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    except psutil.Error:  # macOS lets only root ask for all processes
        return None
    found = [c.pid or 0 for c in listening if c.laddr and c.laddr.port == port]
    known = [pid for pid in found if pid]
    if known:
        return _holder(known[0])
    return Holder() if found else None


def addresses_of(host: str, port: int) -> list[tuple[socket.AddressFamily, Any]]:
    """Each with its family, as sockets take them; ``OSError`` when ``host`` is a name that nobody knows."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def try_to_listen(host: str, port: int) -> None:
    """Listen on ``port`` of every address of ``host`` for a moment; ``OSError`` as a server there would get it."""
    for family, address in addresses_of(host, port):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as asyncio does
            probe.bind(address)
            probe.listen(1)


def _holder(pid: int) -> Holder:
    import psutil

    try:
        process = psutil.Process(pid)
        name, words = process.name(), words_of(process)
    except psutil.Error:
        return Holder(pid, "a process")
    # `python -m llamamgr serve` and `python …/bin/llamamgr serve`: to the system both are a python
    if not any(word.rpartition("/")[2] == "llamamgr" for word in words[:4]):
        return Holder(pid, name)
    try:
        home = environment_of(process).get("LLAMAMGR_HOME", "")
    except psutil.Error:
        home = ""
    return Holder(
        pid, "another llamamgr", f"{f'LLAMAMGR_HOME={shlex.quote(home)} ' if home else ''}llamamgr stop"
    )
