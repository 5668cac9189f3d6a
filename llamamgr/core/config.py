"""``config.toml``: its keys, their defaults, and one parser that names every mistake.

The order in which a value is decided: command line flag, environment (``LLAMAMGR_*``), config file, default.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec

from llamamgr.core.config_faults import WrongValueError, first_fault
from llamamgr.core.durations import parse_keep_alive
from llamamgr.core.errors import ConfigError, UsageError
from llamamgr.core.names import parse_instance_name
from llamamgr.core.sampling import Range, check_together, parse_clamps, parse_defaults

DEFAULT_PORT = 11434
_HOST = re.compile(r"[A-Za-z0-9._:%-]*")
# Where models are looked for: the own store, ``models_dirs``, and what other programs keep
SOURCES = ("store", "folders", "ollama", "huggingface", "llama.cpp", "lmstudio")


Bytes = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
LogLevel = Literal["debug", "info", "warning", "error"]


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP front. ``host`` is ``address[:port]``; ``origins`` are further allowed Origins; ``body_limit`` is bytes.

    ``fetch_media`` allows images to be given by their address; they are fetched by llamamgr, from public addresses only.
    ``require_key`` asks for an API key on loopback too; ``allow_network_without_key`` asks for none beyond it.
    ``max_requests`` bounds the requests in flight, ``access_log`` writes a line for each.
    ``header_limit`` is bytes of the request line and of each header. Seconds that a client may take: ``head_wait`` for a whole
    head, ``body_wait`` without progress of a body, ``write_wait`` without reading on, ``idle_wait`` between two requests.
    ``tls_cert`` and ``tls_key`` are PEM files; with them the front speaks HTTPS.
    """

    host: str = f"127.0.0.1:{DEFAULT_PORT}"
    origins: tuple[str, ...] = ()
    body_limit: Annotated[int, msgspec.Meta(ge=1024)] = 100 * 1024 * 1024
    fetch_media: bool = False
    header_limit: Annotated[int, msgspec.Meta(ge=1024, le=1024 * 1024)] = 16 * 1024
    head_wait: Seconds = 10.0
    body_wait: Seconds = 30.0
    write_wait: Seconds = 60.0
    idle_wait: Seconds = 75.0
    max_connections: Annotated[int, msgspec.Meta(ge=1)] = 1024
    require_key: bool = False
    allow_network_without_key: bool = False
    max_requests: Annotated[int, msgspec.Meta(ge=1)] = 1024
    access_log: bool = False
    tls_cert: str = ""
    tls_key: str = ""

    @property
    def address(self) -> Address:
        address = parse_address(self.host)
        return Address(address.host, address.port, bool(self.tls_cert))

    @property
    def needs_key(self) -> bool:
        """True when no request is taken without an API key: where it was asked for, and wherever strangers can connect."""
        return self.require_key or (self.is_open_to_network and not self.allow_network_without_key)

    @property
    def is_open_to_network(self) -> bool:
        return not self.address.is_loopback


class SchedulerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Budgets and limits. Times are seconds, ``memory`` and ``reserve`` bytes (0 = what the machine has free)."""

    memory: Bytes = 0
    reserve: Bytes = 512 * 1024 * 1024
    gpu_reserve: Bytes = 512 * 1024 * 1024
    max_queue: Annotated[int, msgspec.Meta(ge=1)] = 512
    max_models: Count = 0
    queue_wait: Seconds = 600.0
    patience: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    min_residency: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    load_wait: Seconds = 300.0
    stall_wait: Seconds = 600.0
    parallel: Annotated[int, msgspec.Meta(ge=1, le=256)] = 4
    slot_cache: Bytes = 1024 * 1024 * 1024
    slot_cache_from: Annotated[float, msgspec.Meta(ge=0)] = 0.5


FlagValue = str | int | float | bool


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[models."name"]``: how one model is run. 0, "" and None leave a matter to the general settings.

    ``flags`` are llama-server's own options by their long names without dashes (``n-cpu-moe = 20``; true for a bare option),
    ``env`` its environment. ``priority`` points weigh ten seconds of waiting each. ``defaults`` and ``clamps`` are by the engine's
    own names for what a request says (``core.sampling``). ``ttl`` is how long the model stays idle at most, whatever
    ``keep_alive`` a request asks for.
    """

    instance: str = ""
    aliases: tuple[str, ...] = ()
    context: Count = 0
    parallel: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    keep_alive: str | int | float | None = None
    ttl: str | int | float | None = None
    priority: int = 0
    pin: bool = False
    preload: bool = False
    draft_model: str = ""
    projector: str = ""
    adapters: tuple[str, ...] = ()
    flags: dict[str, FlagValue] = {}
    env: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    clamps: dict[str, Range] = {}

    @property
    def shapes_requests(self) -> bool:
        """True when requests do not reach the engine as they came."""
        return bool(self.defaults or self.clamps)

    @property
    def ttl_seconds(self) -> float:
        """``ttl``; infinite where it is not set, or 0."""
        return parse_keep_alive(self.ttl) or math.inf if self.ttl is not None else math.inf


class GroupConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[groups.name]``: models of which only one is loaded at a time (``exclusive``), or that are loaded together."""

    models: tuple[str, ...]
    exclusive: bool = True


NO_SETTINGS = ModelConfig()


class RegistryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where models without a host in their name are pulled from. ``hub`` is the address of Hugging Face, or of a mirror."""

    ollama: str = "https://registry.ollama.ai"
    hub: str = "https://huggingface.co"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """All of ``config.toml``. ``keep_alive`` is as in Ollama (``5m``, seconds, negative = for ever).

    ``context`` is tokens per slot where neither a model's settings nor a request says more (0 = the default).
    ``watch_config`` reads the file anew whenever it changes.
    """

    instance: str = "default"
    keep_alive: str | int | float = "5m"
    context: Count = 0
    models_dirs: tuple[str, ...] = ()
    sources: tuple[str, ...] = SOURCES
    log_level: LogLevel = "info"
    server: ServerConfig = ServerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    registry: RegistryConfig = RegistryConfig()
    default_model: str = ""
    watch_config: bool = False
    models: dict[str, ModelConfig] = {}
    groups: dict[str, GroupConfig] = {}

    def settings_of(self, model: str) -> ModelConfig:
        """The settings of the model called ``model`` (with its tag); a table named without a tag is for every tag."""
        if not self.models:
            return NO_SETTINGS
        wanted, tables = model.lower(), self._tables
        return tables.get(wanted) or tables.get(wanted.rpartition(":")[0]) or NO_SETTINGS

    @functools.cached_property
    def _tables(self) -> dict[str, ModelConfig]:
        return {name.lower(): table for name, table in self.models.items()}

    @functools.cached_property
    def aliases(self) -> dict[str, str]:
        """Alias (lower case) → name of the model's table."""
        return {alias.lower(): name for name, table in self.models.items() for alias in table.aliases}

    @property
    def keep_alive_seconds(self) -> float:
        return parse_keep_alive(self.keep_alive)


def parse_config(
    data: Mapping[str, Any],
    origin: str = "config.toml",
    given: Mapping[str, str] = MappingProxyType({}),
) -> Config:
    """A ``Config`` of a TOML document; ``ConfigError`` names the key and its value, and for a typo the key that was meant.

    ``given`` are keys that came from elsewhere than ``origin``, dotted, each with the variable or the option that gave it.
    """
    _check_keys(data, Config, origin, "")
    try:
        config = _converted(_with_sampling(data))
        _check_values(config)
    except WrongValueError as error:
        raise ConfigError(error.told(origin, given), error.hint) from None
    except UsageError as error:
        raise ConfigError(f"{origin}: {error.what}", error.hint) from None
    except ValueError as error:
        raise ConfigError(
            f"{origin}: {error}", f"mend that value in {origin}; the README lists all keys"
        ) from None
    return config


def _converted(data: Mapping[str, Any]) -> Config:
    try:
        return msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise first_fault(data, Config) or error from None


def _check_values(config: Config) -> None:
    """What the types do not tell; each key by itself, then what keys say together."""
    _check(parse_address, "server.host", config.server.host)
    _check(parse_instance_name, "instance", config.instance)
    _check(parse_keep_alive, "keep_alive", config.keep_alive)
    for name, table in config.models.items():
        where = f'models."{name}"'
        if table.instance:
            _check(parse_instance_name, f"{where}.instance", table.instance)
        for key, value in (("keep_alive", table.keep_alive), ("ttl", table.ttl)):
            if value is not None:
                _check(parse_keep_alive, f"{where}.{key}", value)
    _check_sources(config.sources)
    _check_tls(config.server)
    _check_stays(config.models)
    _check_tables(config.models)
    _check_aliases(config.models)


def _check(parse: Callable[[Any], object], key: str, value: object) -> None:
    try:
        parse(value)
    except UsageError as error:
        raise WrongValueError(key, error.what, error.hint) from None
    except ValueError as error:
        hint = 'write a duration such as "5m" or "1h30m", seconds, or -1 for ever'
        raise WrongValueError(key, str(error), hint, shown=value) from None


def _with_sampling(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """``data`` with the ``defaults`` and ``clamps`` of its models checked, and by the engine's names."""
    models = data.get("models")
    if not isinstance(models, Mapping):
        return data
    return {**data, "models": {name: _sampled(name, table) for name, table in models.items()}}


def _sampled(name: str, table: Any) -> Any:
    parsers = {"defaults": parse_defaults, "clamps": parse_clamps}
    if not isinstance(table, Mapping) or not table.keys() & parsers.keys():
        return table
    where = f'models."{name}"'
    found: dict[str, Any] = {}
    for key, parse in parsers.items():
        given = table.get(key, {})
        if not isinstance(given, Mapping):
            raise ConfigError(f"{where}.{key} must be a table", f"write {key} = {{ temperature = 0.7 }}")
        found[key] = parse(given, f"{where}.{key}")
    check_together(found["defaults"], found["clamps"], where)
    return {**table, **found}


def _check_stays(models: Mapping[str, ModelConfig]) -> None:
    for name, table in models.items():
        if table.pin and table.ttl_seconds < math.inf:
            raise WrongValueError(
                f'models."{name}"', "pin keeps a model for ever, and ttl lets it go", "set one of them"
            )


def _check_tables(models: Mapping[str, ModelConfig]) -> None:
    seen: dict[str, str] = {}
    for name in models:
        if seen.setdefault(name.lower(), name) != name:
            raise WrongValueError(
                f'models."{name}"',
                f'is models."{seen[name.lower()]}" once more: case makes no difference',
                "write all of it in one of the two",
            )


def _check_aliases(models: Mapping[str, ModelConfig]) -> None:
    """A name stands for one model, whatever its case."""
    owners: dict[str, str] = {}
    for name, table in models.items():
        for alias in table.aliases:
            owner = owners.setdefault(alias.lower(), name)
            if owner != name:
                raise WrongValueError(
                    f'models."{name}".aliases',
                    f'"{alias}" is an alias of models."{owner}" already',
                    "an alias stands for one model: remove it from one of the two",
                )


def _check_sources(sources: tuple[str, ...]) -> None:
    unknown = [source for source in sources if source not in SOURCES]
    if unknown:
        raise WrongValueError(
            "sources", f"there is no source {unknown[0]!r}", f"there are {', '.join(SOURCES)}"
        )


def _check_tls(server: ServerConfig) -> None:
    given, missing = ("tls_cert", "tls_key") if server.tls_cert else ("tls_key", "tls_cert")
    if bool(server.tls_cert) != bool(server.tls_key):
        raise WrongValueError(
            f"server.{given}",
            f"given without server.{missing}",
            "give both or neither: in config.toml, by LLAMAMGR_TLS_CERT and LLAMAMGR_TLS_KEY, "
            "or by --tls-cert and --tls-key",
        )


def _check_keys(data: Mapping[str, Any], struct: type[msgspec.Struct], origin: str, prefix: str) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            meant = (
                f"did you mean {prefix}{near[0]!s}?" if near else f"known keys: {', '.join(sorted(known))}"
            )
            raise ConfigError(f"{origin}: unknown key {prefix}{key}", meant)
        inner = known[key]
        if key in _TABLES and prefix == "" and isinstance(value, Mapping):
            for name, table in value.items():
                if isinstance(table, Mapping):
                    _check_keys(table, _TABLES[key], origin, f'{key}."{name}".')
        elif isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, Mapping):
            _check_keys(value, inner, origin, f"{prefix}{key}.")


_TABLES: dict[str, type[msgspec.Struct]] = {"models": ModelConfig, "groups": GroupConfig}


class Address(msgspec.Struct, frozen=True):
    """Where the front listens; IPv6 hosts without brackets."""

    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can connect. A name other than ``localhost`` may be anybody's."""
        import ipaddress  # 2 ms that commands which show or ask do without

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


def parse_address(text: str) -> Address:
    """``[scheme://]host[:port]``, ``:port`` or a bare port; ``UsageError`` when the port is none."""
    rest = text.strip().split("://", 1)[-1].split("/", 1)[0]
    if rest.isdigit():
        rest = f":{rest}"
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
    elif rest.count(":") > 1:
        host, port = rest, ""
    else:
        host, _, port = rest.partition(":")
    if not _HOST.fullmatch(host) or (port and not (port.isascii() and port.isdigit() and int(port) <= 65535)):
        raise ConfigError(
            f"{text!r} is no address",
            "write host:port, such as 127.0.0.1:11434",
        )
    return Address(host or "127.0.0.1", int(port) if port else DEFAULT_PORT)
