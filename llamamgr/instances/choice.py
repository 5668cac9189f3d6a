"""Which instance a command uses, and which rule said so: flag, then environment, model, config file, default."""

from __future__ import annotations

import msgspec

from llamamgr.core.errors import InvalidNameError
from llamamgr.core.names import parse_instance_name

DEFAULT = "default"


class Choice(msgspec.Struct, frozen=True):
    """The chosen ``name`` and the ``rule`` that chose it, in words; a ``firm`` one was said of this command or model itself."""

    name: str
    rule: str
    firm: bool = False

    def or_only(self, name: str) -> Choice:
        """This choice, or ``name``, which commands take since it alone has a build."""
        if self.firm or name == self.name:
            return self
        return Choice(name, f"the only one that has a build, since {self.name!r} has none")


def chosen(flag: str = "", environment: str = "", model: str = "", configured: str = "") -> Choice:
    """The first that says something: ``--instance``, ``LLAMAMGR_INSTANCE``, the model's own setting, ``config.toml``.

    ``InvalidNameError`` when that can be no name.
    """
    rules = (
        (flag, "named on the command line", True),
        (environment, "LLAMAMGR_INSTANCE in the environment", False),
        (model, "the model's own setting", True),
        (configured, "`instance` in config.toml", False),
        (DEFAULT, "the default, since nothing else is said", False),
    )
    name, rule, firm = next(one for one in rules if one[0])
    try:
        return Choice(parse_instance_name(name), rule, firm)
    except InvalidNameError as error:
        raise InvalidNameError(f"{error.what} ({rule})", error.hint) from None
