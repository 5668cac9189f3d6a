"""What a toolkit's setup script makes of an environment.

Intel's ``setvars.sh`` and Ascend's ``set_env.sh`` can only be read by a shell, and what they set is needed at run time
too. So the script is run once, in a shell that knows little else, and what it changed is written down.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from llamamgr.core.errors import BuildFailedError
from llamamgr.host.processes import capture

_TIMEOUT = 120.0  # seconds; setvars.sh of a full toolkit takes several
_KEPT = ("HOME", "USER", "LOGNAME", "PATH", "TMPDIR")
_SHELLS_OWN = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "LLAMAMGR_SETUP", "LLAMAMGR_DUMP"})

# Lists of folders with ":" between. A script's additions to them go before what the environment has when they are used.
_LISTS = frozenset(
    {
        "PATH",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "LIBRARY_PATH",
        "CPATH",
        "C_INCLUDE_PATH",
        "CPLUS_INCLUDE_PATH",
        "CMAKE_PREFIX_PATH",
        "PKG_CONFIG_PATH",
        "PYTHONPATH",
        "MANPATH",
        "NLSPATH",
        "CLASSPATH",
    }
)

# `set --` because a sourced script sees the arguments of the one that sources it. The script may end with any status: that of
# Ascend's last test is often 1. Only what it leaves in the environment counts.
_SCRIPT = 'set --; . "$LLAMAMGR_SETUP"; command -p env -0 > "$LLAMAMGR_DUMP"'


def sourced(script: str) -> dict[str, str]:
    """What sourcing ``script`` adds to an environment, to be laid over another; ``BuildFailedError`` when that is nothing."""
    base = {name: os.environ[name] for name in _KEPT if os.environ.get(name)} | {"LC_ALL": "C"}
    with tempfile.TemporaryDirectory(prefix="llamamgr-") as folder:
        dump = Path(folder) / "environment"
        told = {"LLAMAMGR_SETUP": script, "LLAMAMGR_DUMP": str(dump)}
        outcome = capture(["bash", "--noprofile", "--norc", "-c", _SCRIPT], timeout=_TIMEOUT, env=base | told)
        raw = dump.read_bytes() if dump.is_file() else b""
    after = dict(
        entry.split("=", 1) for entry in os.fsdecode(raw).split("\0") if "=" in entry.partition("\n")[0]
    )
    changed = {
        name: _addition(name, value, base.get(name, ""))
        for name, value in sorted(after.items())
        if name not in _SHELLS_OWN and value != base.get(name)
    }
    if not changed:
        said = "\n".join(f"  {line}" for line in outcome.output.splitlines()[-6:])
        raise BuildFailedError(
            f"{script} set nothing in the environment\n{said}".rstrip(),
            f"try it by hand: bash -c '. {script}; env'",
        )
    return changed


def _addition(name: str, value: str, former: str) -> str:
    if name not in _LISTS:
        return value
    own = set(former.split(":"))
    added = [part for part in value.split(":") if part and part not in own]
    return ":".join([*dict.fromkeys(added), f"${{{name}}}"])
