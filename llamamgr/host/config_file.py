"""Changing one setting of ``config.toml`` and nothing else: order, comments and blank lines stay as somebody wrote them."""

from __future__ import annotations

import re
import tomllib

import msgspec

from llamamgr.core.config import parse_config
from llamamgr.core.errors import ConfigError
from llamamgr.host.files import read_toml, write_atomic
from llamamgr.host.paths import Paths

_TABLE = re.compile(r"\s*\[")


def set_instance(paths: Paths, name: str) -> None:
    """Let ``instance = "name"`` stand in ``config.toml``, which appears by rename.

    The outcome is read back before it is written; ``ConfigError`` when the file is wrong already, or too unusual to be edited so.
    """
    path = paths.config_file
    former = parse_config(read_toml(path), str(path))
    text = path.read_bytes().decode() if path.is_file() else ""  # line ends as they are
    edited = _with_line(text, name)
    try:
        is_right = parse_config(tomllib.loads(edited)) == msgspec.structs.replace(former, instance=name)
    except (tomllib.TOMLDecodeError, ConfigError):
        is_right = False
    if not is_right:
        raise ConfigError(
            f"{path} is written in a way that cannot be edited", f'write there: instance = "{name}"'
        )
    mode = path.stat().st_mode & 0o777 if path.is_file() else 0o644
    write_atomic(path.resolve(), edited, mode)  # where a link leads, and for the same eyes


def _with_line(text: str, name: str) -> str:
    """Replace the value of the top-level ``instance``, keeping a comment behind it, or add a line before the first table."""
    lines = text.splitlines(keepends=True)
    top = next((number for number, line in enumerate(lines) if _TABLE.match(line)), len(lines))
    for number, line in enumerate(lines[:top]):
        match = re.match(
            r"""(?P<key>\s*(?:instance|"instance")\s*=\s*)(?:"[^"]*"|'[^']*')(?P<rest>\s*(?:\#.*)?)\Z""",
            line,
            re.DOTALL,
        )
        if match:
            lines[number] = f'{match["key"]}"{name}"{match["rest"]}'
            return "".join(lines)
    place = top
    while place and not lines[place - 1].strip():
        place -= 1
    if place and not lines[place - 1].endswith("\n"):
        lines[place - 1] += "\n"
    lines.insert(place, f'instance = "{name}"\n')
    return "".join(lines)
