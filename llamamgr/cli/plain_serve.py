"""``llamamgr serve`` without a parser for command lines.

The daemon lives long, and so would what parsed its three options: 5 MB.
"""

from __future__ import annotations

from collections.abc import Sequence

from llamamgr.host.settings import OPTIONS

_KEYS = {option: key for key, option in OPTIONS.items()}


def serve_plainly(words: Sequence[str]) -> bool:
    """Run the daemon if ``words`` are its options and nothing else; False for all that a parser must look at."""
    flags = flags_in(words)
    if flags is None:
        return False
    run_daemon(flags)
    return True


def flags_in(words: Sequence[str]) -> dict[str, str] | None:
    """Settings by dotted key, of ``--option value`` and ``--option=value``; None when there is anything else."""
    flags, rest = dict.fromkeys(OPTIONS, ""), list(words)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option not in _KEYS or not (equals or rest):
            return None
        value = value if equals else rest.pop(0)
        if value.startswith("-"):
            return None
        flags[_KEYS[option]] = value
    return flags


def run_daemon(flags: dict[str, str]) -> None:
    from llamamgr.daemon.run import run
    from llamamgr.host.paths import Paths

    run(Paths.of_environment(), flags, announce=lambda url: print(f"llamamgr listens on {url}", flush=True))
