"""TCP ports of this machine: a free one, whether one is taken, and who listens there as far as the system tells."""

from __future__ import annotations

import socket

import msgspec


class Holder(msgspec.Struct, frozen=True):
    """The listener on a port. ``pid`` is 0 and ``name`` empty when the system hides whose it is (another user's)."""

    pid: int = 0
    name: str = ""

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
        return Holder(known[0], _name(known[0]))
    return Holder() if found else None


def _name(pid: int) -> str:
    import psutil

    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process"
