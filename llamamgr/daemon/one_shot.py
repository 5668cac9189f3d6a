"""The second rung of the ladder: one llama-cli per answer, for a build that has no llama-server.

A chat becomes one prompt, and the answer is read from the transcript that ``--output`` writes: on stdout it could not be told
from banner and echo. Facts, read and seen in llama.cpp b11434 (tools/cli): the transcript is ``User:``, prompt, ``Assistant:``,
thinking between marks, answer; a prompt that starts with "/" would be taken for a command of the program, one from a file is not
seen by other users; a generation that fails still ends with status 0, with ``Error: …`` on stdout. The program asks itself over a
loopback port without a key while it runs, which is its own way and cannot be changed by us.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llamamgr.core.cards import Build, ModelCard
from llamamgr.core.errors import EngineError, MissingToolError, UsageError
from llamamgr.core.flags import parse_help, write_argv
from llamamgr.host.children import ChildProcess, spawn_child
from llamamgr.host.processes import scrubbed_environment
from llamamgr.plan.memory import shape_of
from llamamgr.supervise.lease import LoadOptions
from llamamgr.wire import neutral
from llamamgr.wire.neutral import ChatRequest, Event

PROGRAM = "llama-cli"

_NEEDED = ("--single-turn", "--simple-io", "--no-escape", "--file", "--output")
_SAMPLING = {
    "temperature": "--temp",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "min_p": "--min-p",
    "typical_p": "--typical-p",
    "seed": "--seed",
    "max_tokens": "--predict",
    "max_completion_tokens": "--predict",
    "n_predict": "--predict",
    "repeat_penalty": "--repeat-penalty",
    "repeat_last_n": "--repeat-last-n",
    "presence_penalty": "--presence-penalty",
    "frequency_penalty": "--frequency-penalty",
    "grammar": "--grammar",
}
_KEPT_OUTPUT = 256 * 1024
_ERROR = re.compile(r"^Error: (.*)", re.MULTILINE)


class OneShot:
    """Answers with the llama-cli of ``build``; each answer loads the model anew. ``folder`` is private and outlives it."""

    def __init__(self, build: Build, model: ModelCard, options: LoadOptions, folder: Path) -> None:
        self._build = build
        self._model = model
        self._options = options
        self._folder = folder
        self._flags: dict[str, str] = {}
        self._count = 0

    async def answer(self, request: ChatRequest) -> list[Event]:
        """The events of a whole answer. Being cancelled kills the program.

        ``UsageError`` for what llama-cli cannot be asked, ``MissingToolError`` when it is too old to be asked by a program,
        ``EngineError`` when it gave no answer.
        """
        await self._learn_flags()
        system, prompt = flattened(request)
        self._count += 1
        place = self._folder / f"ask-{self._count}"
        place.mkdir(mode=0o700)
        transcript = place / "transcript"
        try:
            code, said = await self._run(*self._arguments(request, place, transcript, system, prompt))
            answer = read_transcript(transcript, prompt) if code == 0 else None
        finally:
            shutil.rmtree(place, ignore_errors=True)  # what was said is nobody's once it is answered
        if answer is None or not any(answer):
            told = _ERROR.findall(said) or [line.strip() for line in said.splitlines()[-6:] if line.strip()]
            raise EngineError(
                f"{PROGRAM} gave no answer (exit code {code}): {' | '.join(told)}",
                "ask for less, or install a build with llama-server: `llamamgr install`",
            )
        thinking, text = answer
        deltas: list[Event] = [neutral.ThinkingDelta(thinking)] if thinking else []
        return [*deltas, neutral.TextDelta(text), neutral.Finished("stop")]

    async def _learn_flags(self) -> None:
        if not self._flags:
            code, text = await self._run("--help")
            self._flags = parse_help(text)
            if code != 0 or (absent := [option for option in _NEEDED if option not in self._flags]):
                lacks = f"it has no {', '.join(absent)}" if code == 0 else f"`--help` ended with code {code}"
                raise MissingToolError(
                    f"the {PROGRAM} of build {self._build.key} cannot be asked by a program: {lacks}",
                    "install a newer build: `llamamgr install`",
                )

    def _arguments(
        self, request: ChatRequest, place: Path, transcript: Path, system: str, prompt: str
    ) -> list[str]:
        argv, _ = write_argv(self._settings(), self._flags)
        (place / "prompt").write_text(prompt, "utf-8")
        argv += [*_NEEDED[:3], "--file", str(place / "prompt"), "--output", str(transcript)]
        wishes = _wishes(request)
        if system:
            (place / "system").write_text(system, "utf-8")
            wishes["--system-prompt-file"] = str(place / "system")
        if unknown := [option for option in wishes if option not in self._flags]:
            raise _cannot(unknown)
        return argv + [word for option, value in wishes.items() for word in (option, value)]

    def _settings(self) -> dict[str, str | int | bool]:
        options = self._options
        return {
            "model": self._model.path,
            "context": shape_of(self._model, options.context, 1).context,
            "parallel": 1,
            "cache_ram": 0,
            "adapters": ",".join(self._model.adapters),
            "gpu_layers": str(options.gpu_layers) if options.gpu_layers >= 0 else "",
            "threads": options.threads or "",
            "batch": options.batch or "",
            "main_gpu": str(options.main_gpu) if options.main_gpu >= 0 else "",
            "load_mode": "" if options.use_mmap is None else "mmap" if options.use_mmap else "none",
            "offline": True,
            "log_colors": "off",
        }

    async def _run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and the last of the output; the process group is gone on return, however that comes about."""
        environment = scrubbed_environment(dict(self._build.card.environment))
        environment["XDG_CONFIG_HOME"] = str(self._folder / "engine-config")
        process = await self._spawn([self._build.tool(PROGRAM), *arguments], environment)
        output = bytearray()
        try:
            while data := await process.output.read(65536):
                output += data
                del output[:-_KEPT_OUTPUT]
            await process.ended()
            process.kill_group()
            return process.reap(), output.decode("utf-8", "replace")
        finally:
            process.close()

    async def _spawn(self, argv: list[str], environment: dict[str, str]) -> ChildProcess:
        try:
            return await spawn_child(argv, environment)
        except OSError as error:
            raise EngineError(
                f"{argv[0]} could not be started: {error.strerror}",
                "install a build for this machine: `llamamgr install`",
            ) from None


def flattened(request: ChatRequest) -> tuple[str, str]:
    """System text and one prompt; a single turn stays as it is, several are told apart by their roles."""
    turns: list[tuple[str, str]] = []
    system: list[str] = []
    for raw in request.messages:
        message: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(raw))
        if message.keys() & {"tool_calls", "tool_call_id"}:
            raise _cannot(["tools"])
        text = _text_of(message.get("content"))
        if message["role"] in ("system", "developer"):
            system.append(text)
        else:
            turns.append((str(message["role"]), text))
    if len(turns) == 1:
        prompt = turns[0][1]
    else:
        prompt = "\n\n".join([*(f"{role.capitalize()}: {text}" for role, text in turns), "Assistant:"])
    prompt = prompt.rstrip("\n")  # the program takes some of them off, and the transcript must be recognised
    if not turns or not prompt.strip():
        raise UsageError("there is no prompt", f"{PROGRAM} answers a user's message; write one")
    return "\n\n".join(system), f" {prompt}" if prompt.startswith("/") else prompt


def read_transcript(transcript: Path, prompt: str) -> tuple[str, str] | None:
    """Thinking and answer; None when the file is not what was asked for."""
    try:
        written = transcript.read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
    question, mark, end = f"User:\n{prompt}\n\nAssistant:\n", "[Start thinking]\n\n", "[End thinking]\n\n"
    if not written.startswith(question):
        return None
    text, thinking = written.removeprefix(question), ""
    if text.startswith(mark):
        thinking, _, text = text.removeprefix(mark).partition(end)
    return thinking.strip("\n"), text.removesuffix("\n").removesuffix("\n")


def _wishes(request: ChatRequest) -> dict[str, str]:
    """What the request asks for, as options; ``UsageError`` names what there is no option for: nothing is dropped in silence."""
    unsaid = [name for name in request.sampling if name not in _SAMPLING]
    unsaid += ["tools"] if request.tools else []
    # there is --json-schema, but with it b11434 refuses every request: "Failed to initialize samplers"
    unsaid += ["response_format"] if request.response_format else []
    if unsaid:
        raise _cannot(unsaid)
    wishes = {_SAMPLING[name]: str(value) for name, value in request.sampling.items()}
    if request.think is not None:
        wishes["--reasoning"] = "on" if request.think else "off"
        if isinstance(request.think, str):
            wishes["--reasoning-effort"] = request.think
    return wishes


def _text_of(content: object) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts: Sequence[Mapping[str, Any]] = content if isinstance(content, list) else []
    if not parts or any(part.get("type") != "text" for part in parts):
        raise _cannot(["images and sounds"])
    return "".join(str(part["text"]) for part in parts)


def _cannot(what: Sequence[str]) -> UsageError:
    return UsageError(
        f"{PROGRAM} cannot be asked for: {', '.join(what)}",
        "leave it out, or install a build with llama-server: `llamamgr install`",
    )
