"""Names parsed once into types: models as Ollama users type them, and instances.

The grammar of a model name is ``[scheme://][host/][namespace/]model[:tag]`` with the defaults
``registry.ollama.ai/library/…:latest`` (source: Ollama types/model/name.go). Matching ignores case.
"""

from __future__ import annotations

import re

import msgspec

from llamamgr.core.errors import InvalidNameError

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}\Z")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}\Z")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}\Z")
_INSTANCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")


class ModelName(msgspec.Struct, frozen=True, order=True):
    """A model's full name; build it with ``ModelName.parse``."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Fill in the defaults; ``InvalidNameError`` ('invalid model name') when a part cannot be one."""
        rest = text.split("://", 1)[-1]
        head, slash, last = rest.rpartition("/")
        model, colon, tag = last.partition(":")
        host, _, namespace = head.rpartition("/")
        host = host or DEFAULT_HOST
        namespace = namespace if slash else DEFAULT_NAMESPACE
        tag = tag if colon else DEFAULT_TAG
        if not (
            _HOST.match(host) and _NAMESPACE.match(namespace) and _PART.match(model) and _PART.match(tag)
        ):
            hint = f"{text!r} is not [host/][namespace/]model[:tag]; try `llamamgr list`"
            raise InvalidNameError("invalid model name", path_hint(text) or hint)
        return cls(host, namespace, model, tag)

    @property
    def key(self) -> str:
        """What two spellings of one model have in common."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}".lower()

    @property
    def short(self) -> str:
        """The shortest unambiguous spelling; the tag always shows."""
        return f"{self.repository}:{self.tag}"

    @property
    def repository(self) -> str:
        """``short`` without the tag."""
        if self.host != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{self.model}"
        return self.model if self.namespace == DEFAULT_NAMESPACE else f"{self.namespace}/{self.model}"

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"


def is_path(model: str) -> bool:
    """Whether ``model`` is the path of a file: names never begin like one, and such as end like one have a tag."""
    return model.startswith(("/", "./", "../", "~")) or (model.lower().endswith(".gguf") and ":" not in model)


def path_hint(model: str) -> str:
    """What to do with a path where a name is wanted; "" for what is none."""
    if not is_path(model):
        return ""
    how = "by name a file is known once its folder is among models_dirs in config.toml"
    return f"{model!r} is a path: `llamamgr run PATH` takes one; {how}"


def parse_instance_name(text: str) -> str:
    """``text`` itself when it can name an instance (a folder); ``InvalidNameError`` otherwise."""
    if not _INSTANCE.match(text) or ".." in text:
        raise InvalidNameError(
            f"invalid instance name {text!r}",
            "use up to 63 lower-case letters, digits, '.', '_' and '-', starting with a letter or digit",
        )
    return text
