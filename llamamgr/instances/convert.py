"""Hugging Face models and adapters → GGUF, by a build's own conversion scripts.

The scripts leave a partial file where they fail, so they
write into a scratch folder, and what is finished appears by rename. Nothing is fetched while a script runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from llamamgr.core.cards import Build
from llamamgr.core.errors import (
    DiskFullError,
    EngineError,
    LlamamgrError,
    MissingToolError,
    NotFoundError,
    PermissionDeniedError,
    UsageError,
)
from llamamgr.core.stages import Stage, Tell
from llamamgr.host.processes import scrubbed_environment, stream_text
from llamamgr.instances.python_environment import CONVERT, CONVERT_LORA

TYPES = ("auto", "f32", "f16", "bf16", "q8_0", "tq1_0", "tq2_0")
Kind = Literal["model", "projector", "adapter"]

_CONFIGS = {
    "model": ("config.json", "params.json"),
    "projector": ("config.json", "params.json"),
    "adapter": ("adapter_config.json",),
}
_REPOSITORY = re.compile(
    r"(?:https?://[^/]+/|hf\.co/|hf:)?(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?/?\Z"
)
_FOREIGN_FOLDERS = ("original/", "onnx/", "openvino/", "coreml/", "gguf/")
_TEXTS = (".json", ".txt", ".jinja", ".model", ".tiktoken", ".md")
_LARGEST_CONFIG = 1024 * 1024  # bytes; tokenizers are larger and name no code

_PERCENT = re.compile(r"Writing:\s+(\d+)%")
_SEPARATOR = re.compile(r"[\r\n]+")
_ERROR_LINE = re.compile(r"^(?:[\w.]*(?:Error|Exception)\b.*|ERROR:[\w.-]+:.*|.*\berror: .*)$", re.MULTILINE)
_PREFIX = re.compile(r"^(?:ERROR:[\w.-]+:\s*|[\w.]*\.(?=\w+Error))")
_KEPT = 32 * 1024  # characters of output kept for errors
_LAST_LINES = 6
_NEWER = "a newer llama.cpp may know it: llamamgr update"
_HINTS = (("is not supported", _NEWER), ("pre-tokenizer was not recognized", _NEWER))


class Order(msgspec.Struct, frozen=True):
    """One conversion: the folder ``model`` → a GGUF called ``name`` as ``outtype`` (one of ``TYPES``).

    ``base`` is the folder of an adapter's base model; ``flags`` are the script's own; ``trusted`` lets code of the model run.
    """

    model: Path
    name: str
    kind: Kind = "model"
    outtype: str = "auto"
    base: Path | None = None
    flags: tuple[str, ...] = ()
    trusted: bool = False


def repository_in(text: str) -> tuple[str, str] | None:
    """``org/repo[@revision]`` of a hub, also as a URL: (name, revision); None when ``text`` is none."""
    match = None if text.startswith((".", "~", "/")) else _REPOSITORY.match(text)
    return (match["name"], match["revision"] or "") if match else None


def name_for(text: str) -> str:
    """The name that a model from folder or repository ``text`` gets."""
    found = repository_in(text)
    last = found[0].rpartition("/")[2] if found and not Path(text).is_dir() else Path(text).resolve().name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-.") or "model"


def file_made(order: Order) -> str:
    """The name that the result will get; "" while nobody can say what ``auto`` will come to."""
    outtype = order.outtype
    if outtype == "auto":
        outtype = "f16" if order.kind == "adapter" else _type_of_weights(order.model)
    start = "mmproj-" if order.kind == "projector" else ""
    return f"{start}{order.name}-{outtype.upper()}.gguf" if outtype else ""


def _type_of_weights(model: Path) -> str:
    """What the script's ``auto`` takes, as far as config.json tells: BF16 stays so, all else becomes F16."""
    config = _document(model / "config.json")
    inner = config.get("text_config")
    dtype = (
        config.get("dtype")
        or config.get("torch_dtype")
        or (inner.get("dtype") if isinstance(inner, dict) else "")
    )
    return {"bfloat16": "bf16", "float16": "f16", "float32": "f16"}.get(str(dtype), "")


def _document(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none that can be read."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def files_to_fetch(names: Sequence[str], *, weights: bool = True, code: bool = False) -> list[str]:
    """What a conversion needs of a repository's files: configs, tokenizer, weights in one format; code only where asked."""
    own = [name for name in names if not name.startswith(_FOREIGN_FOLDERS)]
    chosen = [name for name in own if name.endswith(_TEXTS) or (code and name.endswith(".py"))]
    return chosen + (_weights(own) if weights else [])


def _weights(names: Sequence[str]) -> list[str]:
    tensors = [name for name in names if name.endswith(".safetensors")]
    merged = [name for name in tensors if not name.rpartition("/")[2].startswith("consolidated")]
    pickled = [
        name for name in names if re.search(r"(?:pytorch_model|adapter_model|model)[\w.-]*\.bin\Z", name)
    ]
    return merged or tensors or pickled


def check(order: Order) -> None:
    """``NotFoundError`` when the folder holds no model, ``PermissionDeniedError`` when it brings code that is not trusted."""
    configs = _CONFIGS[order.kind]
    if not any((order.model / name).is_file() for name in configs):
        what = "adapter" if order.kind == "adapter" else "model"
        raise NotFoundError(
            f"{order.model} holds no {what}: there is no {' or '.join(configs)}",
            "name the folder of a Hugging Face model, or org/repo"
            + ("" if what == "adapter" else "; --lora for adapters"),
        )
    if order.outtype not in TYPES:
        raise UsageError(f"there is no type {order.outtype!r}", f"choose one of: {', '.join(TYPES)}")
    if order.trusted:
        return
    for folder in (order.model, *([order.base] if order.base else [])):
        if named := _file_naming_code(folder):
            raise PermissionDeniedError(
                f"{folder.name} brings Python code of its own ({named.name} names it), which converting would run",
                "look at it, and add --trust-remote-code if you trust it",
            )


def script_of(build: Build, kind: Kind) -> Path:
    """The script that makes a ``kind``; ``MissingToolError`` when the build brought none along, as those made elsewhere."""
    script = Path(build.root) / "share" / (CONVERT_LORA if kind == "adapter" else CONVERT)
    if script.is_file():
        return script
    if build.card.source.kind in ("prebuilt", "linked"):
        hint = "only builds from source bring it: `llamamgr install --instance built`, then convert with --instance built"
    else:
        hint = f"build it anew with its scripts: `llamamgr install --instance {build.card.instance} --with-python`"
    raise MissingToolError(
        f"build {build.card.id} of instance {build.card.instance!r} has no {script.name}", hint
    )


def convert(build: Build, python: Path, order: Order, folder: Path, tell: Tell) -> Path:
    """Run the script; the finished file in ``folder`` (which must be empty), named ``<name>-<TYPE>.gguf``.

    ``EngineError`` with the script's own last lines, ``DiskFullError``. The caller has asked ``check``.
    """
    script = script_of(build, order.kind)
    title = "converting the projector" if order.kind == "projector" else f"converting {order.name}"
    hear = _Ear(title, tell)
    tell(Stage(title))
    code = stream_text(
        [str(python), str(script), *_arguments(order, folder)], hear, env=_environment(build, order.trusted)
    )
    made = sorted(folder.glob("*.gguf"))
    if code or len(made) != 1:
        raise _failure(order, hear.said, code, python)
    return made[0]


class _Ear:
    """Takes output in pieces: percents go to ``tell``, the rest is kept for an error."""

    def __init__(self, title: str, tell: Tell) -> None:
        self._title, self._tell, self._shown = title, tell, -1
        self.said = ""

    def __call__(self, text: str) -> None:
        self.said = (self.said + text)[-_KEPT:]
        found = _PERCENT.findall(self.said[-len(text) - 32 :])
        if found and int(found[-1]) != self._shown:
            self._shown = int(found[-1])
            self._tell(Stage(self._title, self._shown, 100))


def _arguments(order: Order, folder: Path) -> list[str]:
    name = order.name.replace("{", "-").replace("}", "-")
    outtype = "f16" if order.kind == "adapter" and order.outtype == "auto" else order.outtype
    words = ["--outfile", f"{folder}/{name}-{{FTYPE}}.gguf", "--outtype", outtype]
    if order.kind == "projector":
        words.append("--mmproj")
    if order.base is not None:
        words += ["--base", str(order.base)]
    if order.kind == "adapter" and order.trusted:
        words.append("--trust-remote-code")
    return [*words, *order.flags, str(order.model)]


def _environment(build: Build, trusted: bool) -> dict[str, str]:
    # trusted code may lie in yet another repository
    offline = {} if trusted else {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    own = {"PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", **offline}  # a published build stays as it is
    dropped = (
        "TQDM_ASCII",
        "PYTHONPATH",
        "PYTHONHOME",
        "NO_LOCAL_GGUF",
        "VIRTUAL_ENV",
    )  # TQDM_ASCII=1 crashes the script
    kept = scrubbed_environment(build.card.environment)
    return {key: value for key, value in kept.items() if key not in dropped} | own


def _failure(order: Order, said: str, code: int, python: Path) -> LlamamgrError:
    if re.search(r"No space left on device|Disk quota exceeded", said):
        return DiskFullError(
            f"no space left while converting {order.name}", "free some, or name another disk with --output"
        )
    lines = [line.rstrip() for line in _SEPARATOR.split(said) if line.strip() and not _PERCENT.search(line)]
    telling = _ERROR_LINE.findall("\n".join(lines))
    reason = _PREFIX.sub("", telling[-1]) if telling else (lines or ["the script said nothing"])[-1]
    if code < 0:
        reason = f"it was ended by signal {-code}" + (
            ", as the system does when memory runs out" if code == -9 else ""
        )
    shown = "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])
    hint = next((hint for word, hint in _HINTS if word in said), "")
    if hint and order.kind == "projector":
        hint = f"a model of texts alone has no projector: leave --mmproj out; else {hint}"
    if "ImportError" in said or "ModuleNotFoundError" in said:
        hint = f"its environment is spoiled: remove {python.parent.parent} and run the command again"
    return EngineError(
        f"{order.name} was not converted: {reason}\n{shown}",
        hint or "is the model whole, and its architecture known?",
    )


def _file_naming_code(folder: Path) -> Path | None:
    """The config file in ``folder`` that names classes to be loaded from Python files."""
    for path in sorted(folder.glob("*.json")):
        try:
            if path.stat().st_size > _LARGEST_CONFIG:
                continue
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue  # the script will say it better
        if isinstance(content, dict) and content.get("auto_map"):
            return path
    return None


def base_of(adapter: Path) -> str:
    """The base model that ``adapter_config.json`` names: a folder, or ``org/repo``; "" when it does not say."""
    return str(_document(adapter / "adapter_config.json").get("base_model_name_or_path") or "")
