"""The files of cards: what instances shall be and what builds are, as TOML."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from llamamgr.core.cards import Build, BuildCard, InstanceSpec
from llamamgr.core.errors import ConfigError, PermissionDeniedError
from llamamgr.host.files import read_toml, write_atomic

_UNNEEDED = "remove that folder if nothing needs it"

Card = TypeVar("Card", bound=msgspec.Struct)


def readable_builds(folder: Path) -> list[Build]:
    """The builds of the instance in ``folder`` whose cards can be read."""
    found = []
    for path in folders_in(folder / "builds"):
        with contextlib.suppress(ConfigError, PermissionDeniedError):
            found.append(read_build(path))
    return found


def read_build(folder: Path) -> Build:
    """The build in ``folder``; ``ConfigError`` when its card is missing or cannot be read."""
    return Build(read_card(folder / "build.toml", BuildCard), str(folder))


def read_card(path: Path, card: type[Card]) -> Card:
    """The card in ``path``; ``ConfigError`` when it is missing or cannot be read, with what to do then."""
    hint = f"`llamamgr uninstall {path.parent.name}` removes it" if card is InstanceSpec else _UNNEEDED
    if not path.is_file():
        raise ConfigError(f"{path} is missing", hint)
    try:
        return msgspec.convert(read_toml(path), card)
    except (msgspec.ValidationError, ConfigError) as error:
        told = error.what if isinstance(error, ConfigError) else f"{path}: {error}"
        raise ConfigError(told, hint) from None


def write_card(path: Path, card: msgspec.Struct) -> None:
    """``card`` as TOML, by rename; for its owner's eyes only where an address in it has what somebody logs in with."""
    from llamamgr.host.git import without_login  # runs programs, which who only reads does not

    text = dump(card)
    write_atomic(path, text, 0o600 if without_login(text) != text else 0o644)


def dump(card: msgspec.Struct) -> str:
    """A card as TOML."""
    import tomli_w

    data: dict[str, Any] = msgspec.to_builtins(card)
    return tomli_w.dumps(data)


def folders_in(parent: Path) -> list[Path]:
    """By name; none where there is no ``parent``."""
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
