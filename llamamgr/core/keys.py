"""API keys: what one allows, whom a secret belongs to, and how many requests there may be. No clock, no randomness.

A secret is ``lmk-`` and 256 random bits; only its SHA-256 is kept. A plain hash is enough for that: there is nothing to guess,
so nothing would be won by a slow one.

``Key.models`` are patterns (``*`` and ``?``, any case) for a model's name; one without a tag is for every tag. ``Key.endpoints``
are names of ``ENDPOINTS``, or patterns of paths that begin with ``/``. Nothing said allows everything.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from llamamgr.core.errors import ConfigError, UsageError

PREFIX = "lmk-"

# Name → the routes it stands for, as the router spells them.
ENDPOINTS: dict[str, tuple[str, ...]] = {
    "chat": (
        *("/api/chat", "/api/generate"),
        *("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/messages/count_tokens"),
        *("/v1/responses", "/v1/responses/input_tokens", "/v1/responses/{id}"),
        *("/v1/responses/{id}/input_items", "/v1/responses/{id}/cancel"),
    ),
    "embeddings": ("/v1/embeddings", "/api/embed", "/api/embeddings"),
    "rerank": ("/v1/rerank", "/v1/reranking", "/v2/rerank", "/rerank"),
    "audio": ("/v1/audio/transcriptions",),
    "images": ("/v1/images", "/v1/images/{rest}"),
    "models": ("/v1/models", "/v1/models/{name}", "/api/tags", "/api/show", "/api/ps"),
    "manage": (
        *("/api/create", "/api/copy", "/api/delete", "/api/pull", "/api/push"),
        "/api/blobs/{digest}",
    ),
    "engine": (
        *("/props", "/slots", "/lora-adapters", "/metrics", "/tokenize", "/detokenize"),
        *("/apply-template", "/infill", "/completion", "/upstream/{rest}"),
    ),
}
# What any key may ask: it tells nothing of a model.
FOR_ANY_KEY = frozenset(
    {"/", "/health", "/api/version", "/api/status", "/api/system/status", "/openapi.json"}
)
_ENDPOINT_OF = {route: name for name, routes in ENDPOINTS.items() for route in routes}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_PATTERN = re.compile(r"[A-Za-z0-9_.:/*?-]{1,256}\Z")
_RATE = re.compile(r"(\d{1,9})/([smhd])\Z")
_LIFETIME = re.compile(r"(\d{1,6})([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

Moment = Annotated[datetime.datetime, msgspec.Meta(tz=True)]


class Rate(msgspec.Struct, frozen=True):
    """At most ``count`` requests at once, and as many again in ``seconds``."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Of ``60/m``, ``5/s``, ``1000/h``, ``5000/d``; ``ValueError`` when it is none of these."""
        match = _RATE.match(text)
        if not match or not int(match[1]):
            raise ValueError(f"{text!r} is no rate; write it as 60/m, 5/s, 1000/h or 5000/d")
        return cls(int(match[1]), _SECONDS[match[2]])


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key without its secret. ``rate`` is as ``Rate.parse`` reads it; "", 0, () and None set no limit.

    A ``priority`` point weighs as much as one of a model. ``hash`` is the SHA-256 of the secret in hex.
    """

    hash: str
    name: str = ""
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    rate: str = ""
    parallel: Annotated[int, msgspec.Meta(ge=0)] = 0
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    created: Moment | None = None
    expires: Moment | None = None

    def has_expired(self, now: float) -> bool:
        """``now`` is seconds since the epoch."""
        return self.expires is not None and self.expires.timestamp() <= now

    def may_reach(self, route: str, path: str) -> bool:
        """True when requests to ``path`` are allowed, which the router found to be of ``route`` ("" = there is no such route).

        A path with dot segments matches no pattern: who answers it may read it as another one.
        """
        if (
            not self.endpoints
            or not route
            or route in FOR_ANY_KEY
            or _ENDPOINT_OF.get(route) in self.endpoints
        ):
            return True
        if {".", ".."} & set(path.split("/")):
            return False
        return any(pattern[0] == "/" and _glob(pattern).match(path) for pattern in self.endpoints)

    def may_use(self, model: str, aliases: Mapping[str, str] | None = None) -> bool:
        """True when ``model`` (its whole name, with the tag) is allowed. A pattern that is an alias stands for its model."""
        names = aliases or {}
        return not self.models or any(
            _matches(names.get(pattern.lower(), pattern), model) for pattern in self.models
        )


def _matches(pattern: str, model: str) -> bool:
    return bool(_glob(pattern).match(model) or _glob(pattern).match(model.rpartition(":")[0]))


@functools.lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    body = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(rf"{body}\Z", re.IGNORECASE | re.DOTALL)


def hash_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def owner_of(secret: str, keys: Iterable[Key]) -> Key | None:
    """The key of that secret. Every key is compared, each in constant time, so that time tells nothing."""
    presented, found = hash_of(secret), None
    for key in keys:
        if hmac.compare_digest(presented, key.hash):
            found = key
    return found


class Bucket(msgspec.Struct, frozen=True):
    """What is left of a rate: ``tokens`` at the moment ``at``, seconds on any one clock."""

    tokens: float
    at: float


def draw(bucket: Bucket | None, rate: Rate, now: float) -> tuple[Bucket, float]:
    """Take one request out: the bucket afterwards, and 0.0, or the seconds after which there is one to take."""
    pace = rate.count / rate.seconds
    tokens = float(rate.count)
    if bucket is not None:
        tokens = min(tokens, bucket.tokens + max(0.0, now - bucket.at) * pace)
    if tokens >= 1.0:
        return Bucket(tokens - 1.0, now), 0.0
    return Bucket(tokens, now), (1.0 - tokens) / pace


def parse_keys(data: Mapping[str, Any], origin: str) -> tuple[Key, ...]:
    """The keys of a TOML document ``[keys.NAME]``; ``ConfigError`` names file and key."""
    if set(data) - {"keys"} or not isinstance(data.get("keys", {}), Mapping):
        raise ConfigError(f"{origin}: it must hold tables [keys.NAME] and nothing else", _MEND)
    return tuple(_parsed(name, table, origin) for name, table in data.get("keys", {}).items())


_MEND = "mend that file, or remove it and make new keys with `llamamgr key create NAME`"


def _parsed(name: str, table: object, origin: str) -> Key:
    if not isinstance(table, Mapping) or "name" in table:
        raise ConfigError(f"{origin}: key {name!r} must be a table, without a name of its own", _MEND)
    try:
        return checked(msgspec.convert({**table, "name": name}, Key))
    except (msgspec.ValidationError, UsageError) as error:
        raise ConfigError(f"{origin}: key {name!r}: {getattr(error, 'what', error)}", _MEND) from None


def checked(key: Key) -> Key:
    """``key`` itself; ``UsageError`` says what in it cannot be."""
    if not _NAME.match(key.name):
        raise UsageError(
            f"{key.name!r} cannot name a key", "use letters, digits, '.', '_', '@' and '-', starting with one"
        )
    if not _HASH.match(key.hash):
        raise UsageError(f"key {key.name!r} has no hash of a secret", "make a new one")
    for pattern in key.models:
        if not _PATTERN.match(pattern):
            raise UsageError(
                f"{pattern!r} is no pattern of model names", "such as qwen3:4b, 'qwen*' or gpt-4o"
            )
    for endpoint in key.endpoints:
        _check_endpoint(endpoint)
    if key.rate:
        try:
            Rate.parse(key.rate)
        except ValueError as error:
            raise UsageError(str(error), "such as --rate 60/m") from None
    return key


def _check_endpoint(text: str) -> None:
    if text in ENDPOINTS or (text.startswith("/") and _PATTERN.match(text)):
        return
    import difflib

    near = difflib.get_close_matches(text, ENDPOINTS, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"there is no endpoint {text!r}",
        f"{meant}There are {', '.join(ENDPOINTS)}, and paths such as '/v1/*'",
    )


def parse_expiry(text: str, now: datetime.datetime) -> datetime.datetime:
    """The moment that ``30d``, ``12h``, ``2w`` or a date (``2030-01-31``, UTC) says; ``UsageError`` unless it is to come."""
    match = _LIFETIME.match(text)
    try:
        moment = (
            now + datetime.timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
            if match
            else datetime.datetime.fromisoformat(text)
        )
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no time to expire at", "write 12h, 30d, 8w or 2030-01-31") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    if moment <= now:
        raise UsageError(f"{text} is not in the future", "write 12h, 30d, 8w or a date to come")
    return moment.astimezone(datetime.UTC).replace(microsecond=0)
