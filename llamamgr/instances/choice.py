"""Which instance a command uses, and which rule said so: flag, then environment, model, config file, default."""

from __future__ import annotations

import msgspec

from llamamgr.core.names import parse_instance_name

DEFAULT = "default"


class Choice(msgspec.Struct, frozen=True):
    """The chosen ``name`` and the ``rule`` that chose it, in words."""

    name: str
    rule: str


def chosen(flag: str = "", environment: str = "", model: str = "", configured: str = "") -> Choice:
    """The first that says something: ``--instance``, ``LLAMAMGR_INSTANCE``, the model's own setting, ``config.toml``.

    ``InvalidNameError`` when that can be no name.
    """
    rules = (
        (flag, "named on the command line"),
        (environment, "LLAMAMGR_INSTANCE in the environment"),
        (model, "the model's own setting"),
        (configured, "`instance` in config.toml"),
        (DEFAULT, "the default, since nothing else is said"),
    )
    name, rule = next((name, rule) for name, rule in rules if name)
    return Choice(parse_instance_name(name), rule)
