"""llama-server's options: reading ``--help`` and writing an argv that one given build accepts.

An unknown option is fatal to llama-server (exit 1 before any load) and spellings drift between builds, so an argv is written
from *settings* (our names) through one table and filtered against the build's own help.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_VALUE_COLUMN = 40
_REMOVED = re.compile(r"(?:argument|option) has been removed", re.IGNORECASE)
_NAME = re.compile(r"-{1,2}[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


def parse_help(text: str) -> dict[str, str]:
    """Every spelling that this ``--help`` offers → the first long spelling of its entry; removed options are left out.

    An option starts at column 0 with ``-``; names are joined by ``,`` or ``, `` and end at a value hint or at column 40, where
    the description begins.
    """
    flags: dict[str, str] = {}
    names: list[str] = []
    description = ""

    def close() -> None:
        if names and not _REMOVED.search(" ".join(description.split())):
            first_long = next((n for n in names if n.startswith("--")), names[0])
            flags.update(dict.fromkeys(names, first_long))

    for line in text.splitlines():
        if line.startswith("-") and not line.startswith("-----"):
            close()
            names, description = _entry(line)
        elif line.startswith(" "):
            description += " " + line
        else:
            close()
            names, description = [], ""
    close()
    return flags


def _entry(line: str) -> tuple[list[str], str]:
    names: list[str] = []
    rest = line
    while True:
        word, tail = _split_word(rest)
        if not _NAME.match(word.rstrip(",")):
            break
        names.append(word.rstrip(","))
        more = word.endswith(",")
        rest = tail
        if not more:
            break
    return names, rest


def _split_word(text: str) -> tuple[str, str]:
    stripped = text.lstrip()
    word, gap, tail = stripped.partition(" ")
    # `-a,--long` is one word of two names
    if "," in word[:-1]:
        first, _, second = word.partition(",")
        return first + ",", second + gap + tail
    return word, tail


class Spelling(msgspec.Struct, frozen=True):
    """One way to say a setting: option name, and what its value becomes (``None`` = a bare option)."""

    option: str
    value: str | None = "{}"
    when: str | None = None


# Setting → its spellings, newest first. `when` limits a spelling to one value of the setting.
SPELLINGS: dict[str, tuple[Spelling, ...]] = {
    "model": (Spelling("--model"), Spelling("-m")),
    "alias": (Spelling("--alias"), Spelling("-a")),
    "host": (Spelling("--host"),),
    "port": (Spelling("--port"),),
    "parallel": (Spelling("--parallel"), Spelling("-np")),
    "context": (Spelling("--ctx-size"), Spelling("-c")),
    "batch": (Spelling("--batch-size"), Spelling("-b")),
    "micro_batch": (Spelling("--ubatch-size"), Spelling("-ub")),
    "gpu_layers": (Spelling("--n-gpu-layers"), Spelling("--gpu-layers"), Spelling("-ngl")),
    "threads": (Spelling("--threads"), Spelling("-t")),
    "main_gpu": (Spelling("--main-gpu"),),
    "projector": (Spelling("--mmproj"),),
    "adapters": (Spelling("--lora"),),
    "draft_model": (Spelling("--model-draft"), Spelling("--spec-draft-model"), Spelling("-md")),
    "embeddings": (Spelling("--embeddings", None), Spelling("--embedding", None)),
    "rerank": (Spelling("--reranking", None), Spelling("--rerank", None)),
    "pooling": (Spelling("--pooling"),),
    "jinja": (Spelling("--jinja", None, "on"), Spelling("--no-jinja", None, "off")),
    "load_mode": (
        Spelling("--load-mode"),
        Spelling("--no-mmap", None, "none"),
        Spelling("--mmap", None, "mmap"),
        Spelling("--mlock", None, "mlock"),
    ),
    "flash_attention": (Spelling("--flash-attn"),),
    "cache_type_k": (Spelling("--cache-type-k"),),
    "cache_type_v": (Spelling("--cache-type-v"),),
    "cache_ram": (Spelling("--cache-ram"),),
    "kv_unified": (Spelling("--kv-unified", None, "on"), Spelling("--no-kv-unified", None, "off")),
    "context_shift": (Spelling("--context-shift", None, "on"), Spelling("--no-context-shift", None, "off")),
    "keep": (Spelling("--keep"),),
    "ping_interval": (Spelling("--sse-ping-interval"),),
    "ui": (Spelling("--no-ui", None, "off"), Spelling("--no-webui", None, "off")),
    "offline": (Spelling("--offline", None),),
    "metrics": (Spelling("--metrics", None),),
    "slots": (Spelling("--slots", None),),
    "slot_save_path": (Spelling("--slot-save-path"),),
    "log_colors": (Spelling("--log-colors"),),
    "api_key_file": (Spelling("--api-key-file"),),
    "fit": (Spelling("--fit"),),
    "fit_target": (Spelling("--fit-target"), Spelling("-fitt")),
    "fit_print": (Spelling("--fit-print"), Spelling("-fitp")),
    "device": (Spelling("--device"), Spelling("-dev")),
    "tensor_split": (Spelling("--tensor-split"), Spelling("-ts")),
    "override_tensor": (Spelling("--override-tensor"), Spelling("-ot")),
}


def write_argv(
    settings: Mapping[str, str | int | bool], flags: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """The argv (without the program) for ``settings`` on a build that knows ``flags``, and the settings it cannot say.

    A value of ``False`` or an empty string leaves the setting out. With ``flags`` empty (no record) the newest spelling is used.
    """
    argv: list[str] = []
    unsaid: list[str] = []
    for name, value in settings.items():
        if value is False or value == "":
            continue
        text = "" if value is True else str(value)
        said = next(
            (s for s in SPELLINGS[name] if (not flags or s.option in flags) and s.when in (None, text)), None
        )
        if said is None:
            unsaid.append(name)
            continue
        argv.append(said.option)
        if said.value is not None:
            argv.append(said.value.format(text))
    return argv, unsaid
