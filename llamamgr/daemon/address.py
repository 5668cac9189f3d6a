"""Whether the front can listen where it is told to, and what to do where it cannot."""

from __future__ import annotations

import errno

from llamamgr.core.config import Address
from llamamgr.core.errors import ConfigError, ConflictError, LlamamgrError, PermissionDeniedError
from llamamgr.host.ports import Holder, addresses_of, holder_of, try_to_listen


def check_name(address: Address, place: str) -> None:
    """``ConfigError`` when no address is known for the name of the host: a typo is no host that others could reach."""
    try:
        addresses_of(address.host, address.port)
    except OSError as error:
        raise ConfigError(
            f"{place}: there is no address for {address.host!r} ({error.strerror})",
            "write host:port, such as 127.0.0.1:11434",
        ) from None


def check_address(address: Address, place: str, own_pid: int = 0) -> None:
    """Listen there for a moment; the error of ``cannot_listen`` where that fails, unless the process ``own_pid`` holds the port."""
    try:
        try_to_listen(address.host, address.port)
    except OSError as error:
        holder = holder_of(address.port) if error.errno == errno.EADDRINUSE else None
        if not (own_pid and holder is not None and holder.pid == own_pid):
            raise cannot_listen(address, error, place) from None


def cannot_listen(address: Address, error: OSError, place: str) -> LlamamgrError:
    """What to tell of ``error``. ``place`` is what decided the address: an option, a variable or a key of ``config.toml``."""
    where = f"{address.host}:{address.port}"
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(address.port)
        by = f" by {holder}" if holder else ""
        return ConflictError(
            f"{where} is in use{by}",
            f"{_end_of(holder)}, or choose another address: "
            f"`llamamgr serve --host {address.host}:{_next(address.port)}` or LLAMAMGR_HOST",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(f"this user may not listen on {where}", "choose a port above 1023")
    hint = f"check {place}{' in config.toml' if '.' in place else ''}"
    return ConflictError(f"cannot listen on {where}: {error.strerror}", hint)


def _end_of(holder: Holder | None) -> str:
    if holder is None or not holder.stop:
        return "stop that program"
    return f"`{holder.stop}` ends it"


def _next(port: int) -> int:
    return port + 1 if port < 65535 else port - 1
