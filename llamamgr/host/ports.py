"""Who listens on a TCP port of this machine, as far as the system tells."""

from __future__ import annotations

import msgspec


class Holder(msgspec.Struct, frozen=True):
    """The listener on a port. ``pid`` is 0 and ``name`` empty when the system hides whose it is (another user's)."""

    pid: int = 0
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid else "another user's process"


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
