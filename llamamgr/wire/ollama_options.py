"""Ollama's ``options``: which exist, their types and defaults, and what each is to the engine.

One table holds them all (source: Ollama api/types.go ``Options`` and ``FromMap``). A value of a wrong type
is refused in Ollama's words; an unknown name is passed over, as Ollama does, but told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import Sampling

_INT_MAX = 2**31 - 1
# Ollama never generates more than this many contexts (source: llm/llama_server.go, num_predict bounded)
_CONTEXTS_AT_MOST = 10
_CONTEXT_AT_LEAST = 4


class _Option(msgspec.Struct, frozen=True):
    """``type`` is Ollama's word for it; ``field`` the engine's name (empty: accepted and not used)."""

    type: Literal["integer", "float32", "boolean", "array"]
    field: str
    default: object = None


_SAMPLING = {
    "num_keep": _Option("integer", "n_keep", 4),
    "seed": _Option("integer", "seed", -1),
    "num_predict": _Option("integer", "n_predict", -1),
    "top_k": _Option("integer", "top_k", 40),
    "top_p": _Option("float32", "top_p", 0.9),
    "min_p": _Option("float32", "min_p", 0.0),
    "typical_p": _Option("float32", "typical_p", 1.0),
    "repeat_last_n": _Option("integer", "repeat_last_n", 64),
    "temperature": _Option("float32", "temperature", 0.8),
    "repeat_penalty": _Option("float32", "repeat_penalty", 1.0),
    "presence_penalty": _Option("float32", "presence_penalty", 0.0),
    "frequency_penalty": _Option("float32", "frequency_penalty", 0.0),
    "stop": _Option("array", "stop"),
}
_LOAD = {
    "num_ctx": _Option("integer", "context"),
    "num_batch": _Option("integer", "batch"),
    "num_gpu": _Option("integer", "gpu_layers"),
    "main_gpu": _Option("integer", "main_gpu"),
    "num_thread": _Option("integer", "threads"),
    "use_mmap": _Option("boolean", "use_mmap"),
    "draft_num_predict": _Option("integer", ""),
}
_DEFAULTS = {option.field: option.default for option in _SAMPLING.values() if option.default is not None}


class LoadWishes(msgspec.Struct, frozen=True):
    """Options that shape the load and not the answer; 0, -1 or None = the model's or engine's own choice.

    ``context`` is tokens, ``gpu_layers`` 0 means none on a GPU. The names are those of the supervisor's
    load options.
    """

    context: int = 0
    gpu_layers: int = -1
    batch: int = 0
    threads: int = 0
    main_gpu: int = -1
    use_mmap: bool | None = None


_NO_WISHES = LoadWishes()


class Options(msgspec.Struct, frozen=True):
    """A request's options: ``sampling`` in the engine's names, ``ignored`` those that mean nothing here."""

    sampling: Sampling = {}
    load: LoadWishes = LoadWishes()
    ignored: tuple[str, ...] = ()

    def over(self, base: Options) -> Options:
        """These, and where they say nothing those of ``base``."""
        if not base.sampling and base.load == _NO_WISHES:
            return self
        said = {
            name: value
            for name, value in msgspec.structs.asdict(self.load).items()
            if value != getattr(_NO_WISHES, name)
        }
        load = msgspec.structs.replace(base.load, **said)
        return Options({**base.sampling, **self.sampling}, load, self.ignored)


def parse_options(options: Mapping[str, object]) -> Options:
    """Check and split ``options``; ``DialectError`` (``option "temperature" must be of type float32``) for
    a wrong type.

    Ollama answers 500 for that; it is the client's mistake, so it is 400 here, with the same text.
    """
    sampling: dict[str, object] = {}
    load: dict[str, object] = {}
    ignored: list[str] = []
    for name, value in options.items():
        option = _SAMPLING.get(name) or _LOAD.get(name)
        if option is None:
            ignored.append(name)
        elif value is not None:
            checked = _checked(name, option.type, value)
            if option.field:
                (sampling if name in _SAMPLING else load)[option.field] = checked
    return Options(sampling, _wishes(load), tuple(ignored))


def settle(sampling: Sampling, context: int) -> Sampling:
    """All that is sent to an engine of ``context`` tokens: Ollama's defaults under the request's own.

    A ``num_predict`` of 0 or less is as much as Ollama would ever allow, ten contexts; a negative
    ``repeat_last_n`` is the context.
    """
    settled = {**_DEFAULTS, **sampling}
    limit = min(_CONTEXTS_AT_MOST * max(context, 1), _INT_MAX)
    wanted, window, seed = settled["n_predict"], settled["repeat_last_n"], settled["seed"]
    if isinstance(wanted, int):
        settled["n_predict"] = min(wanted, limit) if wanted > 0 else limit
    if isinstance(window, int) and window < 0:
        settled["repeat_last_n"] = max(context, 0)
    if isinstance(seed, int):
        # the engine knows 32 bits, and -1 for a seed of its own
        settled["seed"] = seed % 2**32 if seed >= 0 else -1
    return settled


def _checked(name: str, kind: str, value: object) -> object:
    if kind == "integer" and isinstance(value, int | float) and not isinstance(value, bool):
        # Go cuts the fraction off; the engine's integers have 32 bits, but for the seed
        whole = int(value)
        return whole if name == "seed" else max(-_INT_MAX, min(whole, _INT_MAX))
    if kind == "float32" and isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "array" and isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise DialectError(400, f'option "{name}" must be of an array of strings')
        return value
    raise DialectError(400, f'option "{name}" must be of type {kind}')


def _wishes(load: dict[str, object]) -> LoadWishes:
    wishes = msgspec.convert(load, LoadWishes)
    return msgspec.structs.replace(
        wishes,
        context=max(wishes.context, _CONTEXT_AT_LEAST) if wishes.context > 0 else 0,
        gpu_layers=max(wishes.gpu_layers, -1),
        batch=max(wishes.batch, 0),
        threads=max(wishes.threads, 0),
        main_gpu=max(wishes.main_gpu, -1),
    )


def schema() -> dict[str, object]:
    """The options as a JSON schema; names that are not known are passed over."""
    known = {**_SAMPLING, **_LOAD}
    return {
        "type": ["object", "null"],
        "properties": {name: _schema_of(option) for name, option in known.items()},
    }


def _schema_of(option: _Option) -> dict[str, object]:
    # Go cuts the fraction off an integer, so that any number will do
    kind = {"integer": "number", "float32": "number"}.get(option.type, option.type)
    told: dict[str, object] = {"type": [kind, "null"]}
    if option.type == "array":
        told["items"] = {"type": "string"}
    return told if option.default is None else {**told, "default": option.default}
