"""Cards: what is written down about instances, builds, a build's abilities, and models.

All are frozen and serialise as they are (msgspec → TOML or JSON). Sizes are bytes, times are seconds since the epoch
unless a field says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SourceKind = Literal["git", "directory", "package", "official", "prebuilt", "linked"]


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where llama.cpp comes from.

    ===========  ======================================  =========================================
    kind         location                                ref ("" = the newest)
    ===========  ======================================  =========================================
    git          URL ("" = the official repository)      branch, tag or commit
    package      name in the package index               version
    official     nothing                                 bNNNN: git, or a package without its host
    directory    folder                                  nothing
    prebuilt     address of a release index ("" = the    release, bNNNN
                 official one)
    linked       a ``llama-server`` of somebody else's   nothing
    ===========  ======================================  =========================================
    """

    kind: SourceKind
    location: str = ""
    ref: str = ""


class InstanceSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an instance should be: the content of ``instance.toml``.

    A ``pinned`` one is never updated. ``ignore_python`` says that nobody wants to convert models with it. ``said`` names the fields
    that somebody asked for; the others are defaults.
    """

    name: str
    arch: str = "cpu"
    source: Source | None = None
    cmake_args: tuple[str, ...] = ()
    gpu_targets: str = ""
    rpc: bool = False
    created: float = 0.0
    pinned: bool = False
    ignore_python: bool = False
    said: tuple[str, ...] = ()


class Capability(msgspec.Struct, frozen=True):
    """What one build can do, probed from it once and kept beside it.

    ``flags`` maps every option spelling that ``llama-server --help`` lists (and has not removed) to the first long spelling of
    its entry. ``devices`` are the lines of ``--list-devices``; the CPU is not among them.
    """

    version: str
    number: int
    commit: str
    tools: tuple[str, ...]
    flags: dict[str, str]
    devices: tuple[str, ...] = ()
    unix_socket: bool = True


BORROWED = (
    "PATH"  # what the build of a llama-server found there, which no instance holds, gives as its instance
)


class BuildCard(msgspec.Struct, frozen=True, omit_defaults=True):
    """One immutable build: the content of ``build.toml``. ``number`` is llama.cpp's bNNNN, ``commit`` its short hash.

    ``cmake_args`` are all that CMake was given for the arch and the instance; ``own_args``, ``gpu_targets`` and ``rpc`` are the
    instance's wishes that it fulfils; ``python`` that the conversion scripts are here. ``fingerprint`` tells a linked build whose
    program was replaced by whoever owns it.
    """

    id: str
    instance: str
    arch: str
    number: int
    commit: str
    source: Source
    cmake_args: tuple[str, ...] = ()
    own_args: tuple[str, ...] = ()
    gpu_targets: str = ""
    rpc: bool = False
    python: bool = True
    created: float = 0.0
    seconds: float = 0.0
    size: int = 0
    cpu: str = ""
    compiler: str = ""
    verified: bool = False
    verify_note: str = ""
    fingerprint: str = ""
    environment: dict[str, str] = {}
    capability: Capability | None = None


class Build(msgspec.Struct, frozen=True):
    """A build on disk: its card and the absolute path of its folder, which holds ``bin/``, ``lib/`` and ``build.toml``."""

    card: BuildCard
    root: str

    @property
    def key(self) -> str:
        """Identity across the store: ``instance/build-id``."""
        return f"{self.card.instance}/{self.card.id}"

    def tool(self, name: str) -> str:
        """Absolute path of a tool of this build (``llama-server``)."""
        return f"{self.root}/bin/{name}"


ModelKind = Literal["model", "projector", "adapter", "imatrix", "control-vector", "vocabulary", "draft"]


class ModelCard(msgspec.Struct, frozen=True, omit_defaults=True):
    """One GGUF model as the index knows it.

    ``name`` is the short name with its tag, ``digest`` 64 hex digits that stay the same while the file does, ``parts`` the
    absolute paths of all split parts in order (the first goes to ``-m``), ``size`` their sum. ``context`` is the trained context
    length in tokens, ``quant`` such as ``Q4_K_M``, ``parameters`` the count of weights. ``capabilities`` are Ollama's words:
    completion, tools, insert, vision, embedding, thinking, audio; and rerank.

    What a Modelfile adds: ``template`` (Go's, "" = the file's own chat template), ``system``, ``messages`` (role, text) that
    begin every conversation, ``settings`` (option → value, Ollama's names), ``licenses``, ``parent`` (the model it was made
    of). ``manifest`` is the SHA-256 of what describes it, for models of a store; models of one file share its ``digest``,
    and so a child.
    """

    name: str
    digest: str
    parts: tuple[str, ...]
    size: int
    modified: float
    source: str = ""
    arch: str = ""
    quant: str = ""
    parameters: int = 0
    context: int = 0
    embedding: int = 0
    layers: int = 0
    kv_bytes_per_token: int = 0
    capabilities: tuple[str, ...] = ()
    chat_template: str = ""
    projector: str = ""
    adapters: tuple[str, ...] = ()
    template: str = ""
    system: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    settings: dict[str, Any] = {}
    licenses: tuple[str, ...] = ()
    parent: str = ""
    manifest: str = ""

    @property
    def path(self) -> str:
        return self.parts[0]


class SkippedFile(msgspec.Struct, frozen=True):
    """A file that the index passed over, and why: corrupt, incomplete, missing parts."""

    path: str
    reason: str
