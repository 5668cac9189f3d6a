"""What a request and the model's settings together ask of a child: build, shape, placements, key."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping

import msgspec

from llamamgr.core.cards import BORROWED, Build, ModelCard
from llamamgr.core.config import Config, ModelConfig
from llamamgr.core.durations import parse_keep_alive
from llamamgr.core.errors import ConfigError
from llamamgr.plan.events import ChildKey
from llamamgr.plan.memory import Shape
from llamamgr.supervise.lease import LoadOptions

_INSIDE = "an engine listens where only llamamgr reaches it; server.host in config.toml is where clients do"
# llama-server options that llamamgr itself decides, and what to do instead
_OWNED = {
    "--model": "the file of the model is taken, by its name",
    "--alias": "give the model `aliases` instead",
    "--host": _INSIDE,
    "--port": _INSIDE,
    "--api-key": "an engine is not reachable from outside; `llamamgr key create` makes keys for clients",
    "--parallel": "give the model `parallel` instead",
    "--ctx-size": "give the model `context` instead, in tokens per slot",
    "--model-draft": "give the model `draft_model` instead",
    "--spec-draft-model": "give the model `draft_model` instead",
    "--mmproj": "give the model `projector` instead",
    "--lora": "give the model `adapters` instead",
}


class Wish(msgspec.Struct, frozen=True):
    """A waiting request's own data, kept until a child is started for it.

    ``asked`` is the context that the shape has from a request, whatever the settings say; 0 where they decided it.
    """

    model: ModelCard
    build: Build
    shape: Shape
    options: LoadOptions
    settings: ModelConfig
    asked: int = 0


def merged(options: LoadOptions, settings: ModelConfig) -> LoadOptions:
    """The request's options with the model's settings where it says nothing."""
    return msgspec.structs.replace(
        options, instance=options.instance or settings.instance, context=options.context or settings.context
    )


def stay_of(config: Config, settings: ModelConfig, keep_alive: float | None) -> float:
    """Seconds a child stays after its request: the request's word, the model's, the general one."""
    if keep_alive is not None:
        return keep_alive
    return (
        parse_keep_alive(settings.keep_alive)
        if settings.keep_alive is not None
        else config.keep_alive_seconds
    )


def identity_of(model: ModelCard) -> str:
    """What makes two models one for a child: the very files it would be started from, whatever their names in the index."""
    raw = msgspec.json.encode((model.parts, model.size, model.modified, model.projector, model.adapters))
    return hashlib.sha256(raw).hexdigest()[:16]


def key_of(
    model: ModelCard, build: Build, options: LoadOptions, settings: ModelConfig, context: int
) -> ChildKey:
    """Everything that a reload would be needed for; ``context`` apart, since a larger one serves a smaller."""
    said = msgspec.structs.replace(options, context=0, instance="")
    lasting = (
        settings.flags,
        settings.env,
        settings.draft_model,
        settings.projector,
        settings.adapters,
        settings.parallel,
    )
    raw = msgspec.json.encode((said, lasting), order="deterministic")
    return ChildKey(identity_of(model), build.key, hashlib.sha256(raw).hexdigest()[:12], context)


def variant_of(wish: Wish) -> str:
    """The ``variant`` of the key of a child of ``wish``."""
    return key_of(wish.model, wish.build, wish.options, wish.settings, 0).variant


def flag_arguments(settings: ModelConfig, build: Build, only: Mapping[str, str] | None = None) -> list[str]:
    """``settings.flags`` as argv of this build; ``ConfigError`` for one it does not know, or that llamamgr decides.

    ``only`` are the options of another tool of the build, which gets those it has.
    """
    known: Mapping[str, str] = build.card.capability.flags if build.card.capability else {}
    argv: list[str] = []
    for name, value in settings.flags.items():
        option = f"--{name.lstrip('-')}"
        _check(option, known, build)
        if only is not None and option not in only:
            continue
        if value is True:
            argv.append(option)
        elif value is False:
            negated = f"--no-{name.lstrip('-')}"
            argv += [negated] if negated in known else []
        else:
            argv += [option, str(value)]
    return argv


def flag_faults(settings: ModelConfig, build: Build) -> list[ConfigError]:
    """What ``flag_arguments`` would raise for this build, of each of ``settings.flags``."""
    faults: list[ConfigError] = []
    for name, value in settings.flags.items():
        try:
            flag_arguments(msgspec.structs.replace(settings, flags={name: value}), build)
        except ConfigError as error:
            faults.append(error)
    return faults


def _check(option: str, known: Mapping[str, str], build: Build) -> None:
    if known and option not in known:
        near = difflib.get_close_matches(option, known, n=1)
        hint = f"did you mean {near[0].lstrip('-')}?" if near else f"`{_server_of(build)} --help` lists them"
        raise ConfigError(
            f"flags in config.toml: build {build.key} has no llama-server option {option}", hint
        )
    owner = _OWNED.get(known.get(option, option)) or _OWNED.get(option)
    if owner:
        raise ConfigError(f"{option} cannot be set in flags: llamamgr decides it", owner)


def _server_of(build: Build) -> str:
    """What to type for the llama-server of ``build``."""
    name = build.card.instance
    return "llama-server" if name == BORROWED else f"llamamgr exec {name} llama-server"


def conflicts_of(
    model: ModelCard, config: Config, card_of: Callable[[str], ModelCard | None]
) -> frozenset[str]:
    """Identities of the models that ``model`` shares an exclusive group with."""
    mine = identity_of(model)
    found: set[str] = set()
    for group in config.groups.values():
        cards = [card for name in group.models if (card := card_of(name))] if group.exclusive else []
        members = {identity_of(card) for card in cards}
        if mine in members:
            found |= members - {mine}
    return frozenset(found)
