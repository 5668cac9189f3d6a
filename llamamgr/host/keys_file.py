"""``keys.toml``: the API keys, without their secrets, beside ``config.toml``."""

from __future__ import annotations

import contextlib
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from llamamgr.core.errors import ConfigError
from llamamgr.core.keys import PREFIX, Key, parse_keys
from llamamgr.host.files import locked, read_toml, write_atomic
from llamamgr.host.paths import Paths

_HEAD = "# Written by `llamamgr key create` and `key remove`. There is no secret in here: only hashes.\n\n"
_LOCK_WAIT = 10.0


def load_keys(paths: Paths) -> tuple[Key, ...]:
    """The keys there are; ``ConfigError`` for a file that is wrong, or that others could write their own key into."""
    path = paths.keys_file
    with contextlib.suppress(FileNotFoundError):
        if stat.S_IMODE(path.stat().st_mode) & 0o022:
            raise ConfigError(
                f"{path} can be written by others, who could give themselves a key", f"chmod 600 {path}"
            )
    return parse_keys(read_toml(path), str(path))


def fingerprint(paths: Paths) -> tuple[int, ...]:
    """What differs once the file was changed; empty when there is none."""
    try:
        info = paths.keys_file.stat()
    except FileNotFoundError:
        return ()
    return info.st_ino, info.st_mtime_ns, info.st_size, info.st_mode


def change_keys(paths: Paths, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    """Let ``change`` make new keys of those there are; whoever else changes them waits. The file appears by rename, 0600."""
    with locked(paths.data / "locks" / "keys.lock", "the file of API keys", wait=_LOCK_WAIT):
        _write(paths.keys_file, change(load_keys(paths)))


def new_secret() -> str:
    """A secret that nobody has: 256 bits of the system's randomness."""
    return PREFIX + secrets.token_urlsafe(32)


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    import tomli_w

    tables: dict[str, Any] = {}
    for key in keys:
        # moments stay what they are, which TOML has a form for
        table = {name: value for name, value in msgspec.structs.asdict(key).items() if value}
        tables[table.pop("name")] = table
    parse_keys({"keys": tables}, str(path))  # what could not be read again is not written
    write_atomic(path, _HEAD + tomli_w.dumps({"keys": tables}), 0o600)
