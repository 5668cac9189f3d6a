"""Where things are. ``LLAMAMGR_HOME`` puts everything under one folder; otherwise the platform's own folders are used.

=========  ==================================================  ===========================
``data``   instances, sources, own models                      ``<home>/data``
``config`` ``config.toml``, ``keys.toml``, own recipes         ``<home>/config``
``cache``  index, downloads, self-test model                   ``<home>/cache``
``state``  logs, children file                                 ``<home>/state``
``run``    control socket, children's sockets (0700, short)    ``<home>/run`` or a short /tmp name
=========  ==================================================  ===========================
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

import msgspec

from llamamgr.core.errors import PermissionDeniedError

_SOCKET_LIMIT = 100  # bytes of a UNIX socket's path that every system takes (Linux 108, macOS 104)
_LONGEST_SOCKET_NAME = 24


class Paths(msgspec.Struct, frozen=True):
    """The five folders; none is created until asked (``ensure``)."""

    data: Path
    config: Path
    cache: Path
    state: Path
    run: Path

    @classmethod
    def of_environment(cls) -> Paths:
        home = os.environ.get("LLAMAMGR_HOME")
        if home:
            root = Path(home).expanduser().absolute()
            return cls(root / "data", root / "config", root / "cache", root / "state", _runtime(root / "run"))
        import platformdirs

        dirs = platformdirs.PlatformDirs("llamamgr", appauthor=False)
        data, config = Path(dirs.user_data_dir), Path(dirs.user_config_dir)
        return cls(
            data, config, Path(dirs.user_cache_dir), Path(dirs.user_state_dir), _runtime(_users_runtime())
        )

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def keys_file(self) -> Path:
        return self.config / "keys.toml"

    @property
    def instances(self) -> Path:
        return self.data / "instances"

    @property
    def models(self) -> Path:
        """The own store: GGUF files that llamamgr was given to keep."""
        return self.data / "models"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def daemon_log(self) -> Path:
        return self.state / "daemon.log"

    @property
    def children_file(self) -> Path:
        return self.state / "children.json"

    @property
    def child_logs(self) -> Path:
        return self.state / "logs"


def _users_runtime() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR")
    return Path(given) / "llamamgr" if given else Path(tempfile.gettempdir()) / f"llamamgr-{os.getuid()}"


def _runtime(wanted: Path) -> Path:
    """``wanted`` when sockets fit into it, else a short folder of this user that stands for it."""
    if len(os.fsencode(wanted)) + 1 + _LONGEST_SOCKET_NAME <= _SOCKET_LIMIT:
        return wanted
    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"llamamgr-{os.getuid()}-{digest}"


def require_own(folder: Path) -> None:
    """``PermissionDeniedError`` when ``folder`` is there and not private to this user: its owner could listen in."""
    try:
        info = folder.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise PermissionDeniedError(
            f"{folder} is not a private folder of yours",
            "remove it, or set LLAMAMGR_HOME or XDG_RUNTIME_DIR to a folder of yours",
        )


def ensure(folder: Path, *, private: bool = False) -> Path:
    """Create ``folder`` when missing. A private one is 0700 and must belong to this user, or ``PermissionDeniedError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    except FileNotFoundError as error:  # a file system that takes no folders, such as /proc
        raise PermissionDeniedError(
            f"{folder} cannot be made: {error.strerror}", "set LLAMAMGR_HOME to a folder of yours"
        ) from None
    if private:
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or (hasattr(os, "getuid") and info.st_uid != os.getuid()):
            raise PermissionDeniedError(
                f"{folder} belongs to somebody else", "set LLAMAMGR_HOME to a folder of yours"
            )
        if stat.S_IMODE(info.st_mode) & 0o077:
            folder.chmod(0o700)
    return folder
