"""``llamamgr key``."""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llamamgr.core.errors import ConflictError, LlamamgrError, NotFoundError, UsageError

if TYPE_CHECKING:
    from llamamgr.core.keys import Key
    from llamamgr.host.paths import Paths

_HEAD = ("NAME", "MODELS", "ENDPOINTS", "RATE", "PARALLEL", "PRIORITY", "CREATED", "EXPIRES")


class Action(enum.StrEnum):
    create = "create"
    list = "list"
    remove = "remove"
    ls = "ls"
    rm = "rm"


# as models are listed and removed
_SHORT = {Action.ls: Action.list, Action.rm: Action.remove}


def key(
    action: Annotated[Action, typer.Argument(help="What to do.")],
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Whose key it is.")] = "",
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="PATTERN", help="Only these models: qwen3, 'llama*', an alias. [all]"
        ),
    ] = None,
    endpoints: Annotated[
        list[str] | None,
        typer.Option(
            "--endpoint",
            metavar="WHAT",
            help="Only chat, embeddings, rerank, audio, models (list and show), manage (pull, create, delete …), "
            "engine (llama.cpp's own), or a path such as '/v1/*'. [all]",
        ),
    ] = None,
    rate: Annotated[str, typer.Option(metavar="N/UNIT", help="Requests in a time: 5/s, 60/m, 1000/h.")] = "",
    parallel: Annotated[int, typer.Option(metavar="N", min=0, help="Requests at once. [0 = no limit]")] = 0,
    priority: Annotated[
        int,
        typer.Option(
            metavar="N", min=-1000, max=1000, help="A point weighs as much as ten seconds of waiting."
        ),
    ] = 0,
    expires: Annotated[str, typer.Option(metavar="WHEN", help="12h, 30d, 8w, or a date. [never]")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make, list or remove API keys of the front. A new key is printed once, alone on stdout; only its hash is kept.

    A running daemon takes a change at once.
    """
    from llamamgr.host.paths import Paths

    action = _SHORT.get(action, action)
    paths = Paths.of_environment()
    limited = bool(models or endpoints or rate or parallel or priority or expires)
    if action is not Action.create and limited:
        raise UsageError(f"`key {action}` takes no limits", "they are given to `llamamgr key create NAME`")
    if action is not Action.list and not name:
        raise UsageError("a key has a name", f"llamamgr key {action} NAME")
    match action:
        case Action.create:
            wanted = _wanted(name, models or [], endpoints or [], rate, parallel, priority, expires)
            _create(paths, wanted, as_json=as_json)
        case Action.list:
            _list(paths, name, as_json=as_json)
        case Action.remove:
            _remove(paths, name)


def _wanted(
    name: str,
    models: list[str],
    endpoints: list[str],
    rate: str,
    parallel: int,
    priority: int,
    expires: str,
) -> Key:
    """The key that is asked for, yet without the hash of a secret."""
    import datetime

    from llamamgr.core.keys import Key, parse_expiry

    now = datetime.datetime.now(datetime.UTC)
    return Key(
        hash="",
        name=name,
        models=tuple(models),
        endpoints=tuple(endpoints),
        rate=rate,
        parallel=parallel,
        priority=priority,
        created=now.replace(microsecond=0),
        expires=parse_expiry(expires, now) if expires else None,
    )


def _create(paths: Paths, wanted: Key, *, as_json: bool) -> None:
    import msgspec

    from llamamgr.core.keys import checked, hash_of
    from llamamgr.host.keys_file import change_keys, new_secret

    secret = new_secret()
    made = checked(msgspec.structs.replace(wanted, hash=hash_of(secret)))

    def with_it(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if any(key.name == made.name for key in keys):
            raise ConflictError(f"there is a key {made.name!r}", f"llamamgr key remove {made.name}")
        return (*keys, made)

    change_keys(paths, with_it)
    if as_json:
        import json

        print(json.dumps(_document(made) | {"secret": secret}, indent=2))
    else:
        print(secret)
    sys.stdout.flush()
    print(f"this is the key of {made.name}; it is not shown again", file=sys.stderr)
    _tell_daemon(paths)


def _remove(paths: Paths, name: str) -> None:
    from llamamgr.host.keys_file import change_keys

    def without_it(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            raise NotFoundError(f"there is no key {name!r}", "`llamamgr key list` shows what there is")
        return left

    change_keys(paths, without_it)
    _tell_daemon(paths)
    print(f"the key of {name} opens nothing any more")


def _list(paths: Paths, name: str, *, as_json: bool) -> None:
    from llamamgr.cli.output import print_table
    from llamamgr.host.keys_file import load_keys

    keys = [key for key in load_keys(paths) if name in ("", key.name)]
    if name and not keys:
        raise NotFoundError(f"there is no key {name!r}", "`llamamgr key list` shows what there is")
    if as_json:
        import json

        print(json.dumps({"keys": [_document(key) for key in keys]}, indent=2))
        return
    print_table(_HEAD, [_row(key) for key in keys])


def _document(key: Key) -> dict[str, object]:
    """What may be told of a key: all but its hash."""
    import msgspec

    fields = msgspec.structs.asdict(key)
    return {name: msgspec.to_builtins(value) for name, value in fields.items() if name != "hash"}


def _row(key: Key) -> tuple[str, ...]:
    import time

    expires = key.expires.strftime("%Y-%m-%d %H:%M") if key.expires else "never"
    return (
        key.name,
        " ".join(key.models) or "all",
        " ".join(key.endpoints) or "all",
        key.rate or "-",
        str(key.parallel or "-"),
        str(key.priority),
        key.created.strftime("%Y-%m-%d") if key.created else "-",
        f"{expires} (over)" if key.has_expired(time.time()) else expires,
    )


def _tell_daemon(paths: Paths) -> None:
    """A daemon that runs knows of the change when this returns; an error says that it does not."""
    from llamamgr.daemon.client import Control

    control = Control(paths)
    if control.ping() is None:
        return
    try:
        control.call("POST", "/control/keys", {}, timeout=10)
    except LlamamgrError as error:
        raise LlamamgrError(
            f"the file is written, but the running daemon has not read it: {error.what}",
            "llamamgr daemon reload",
        ) from None
