"""Is a build what it claims to be, and does it compute rightly?

First it is asked: version, options, devices. Then its own llama-server loads a small model whose answer is known, once on the CPU
and once on each device of the arch, and must say it word for word. What it says about itself is the capability record that every
later launch relies on.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llamamgr.core.cards import Capability
from llamamgr.core.errors import LlamamgrError, VerifyFailedError
from llamamgr.core.flags import parse_help, write_argv
from llamamgr.core.recipe import Recipe
from llamamgr.host.processes import Outcome, capture, scrubbed_environment, spawned, wait_until
from llamamgr.instances.build import SERVER

_ASK_TIMEOUT = 120.0  # seconds; the first contact with a GPU driver may take most of a minute
_LOAD_TIMEOUT = 180.0
_ANSWER_TIMEOUT = 120.0
_ANSWER_TOKENS = 64
_LAYERS_ALL = 99
_SOCKET_ROOM = 80  # bytes of a temporary folder's path that leave room for a socket's name

_VERSION = re.compile(
    r"^version: (?:(?P<release>\d+\.\d+\.\d+\S*) \(build (?P<number>\d+), commit (?P<commit>\S+)\)"
    r"|(?P<old_number>\d+) \((?P<old_commit>\S+)\))",
    re.MULTILINE,
)


Connect = Callable[[float], http.client.HTTPConnection]


class SelfTest(msgspec.Struct, frozen=True):
    """A model file and what it must answer, word for word, to ``question`` when sampled greedily."""

    model: str
    question: str
    answer: str


def probe(root: Path, environment: Mapping[str, str] | None = None) -> Capability:
    """What the build in ``root`` says of itself; ``VerifyFailedError`` when it does not run or its answers make no sense."""
    env = scrubbed_environment(environment)
    said = _ask(root, "--version", env)
    version = _VERSION.search(said.output)
    if version is None:
        raise _wrong(f"`{SERVER} --version` names no version", said)
    help_said = _ask(root, "--help", env)
    flags = parse_help(help_said.output)
    if "--model" not in flags or "--host" not in flags:
        raise _wrong(f"`{SERVER} --help` lists no options", help_said)
    return Capability(
        version=version[0],
        number=int(version["number"] or version["old_number"]),
        commit=version["commit"] or version["old_commit"],
        tools=tools_in(root),
        flags=flags,
        devices=parse_devices(_ask(root, "--list-devices", env).output) if "--list-devices" in flags else (),
        unix_socket=hasattr(socket, "AF_UNIX") and ".sock" in help_said.output,
    )


def tools_in(root: Path) -> tuple[str, ...]:
    """The programs of a build; libraries and papers beside them are none."""
    folder = root / "bin"
    found = folder.iterdir() if folder.is_dir() else ()
    return tuple(
        sorted(
            path.name
            for path in found
            if not path.name.startswith("lib") and path.is_file() and os.access(path, os.X_OK)
        )
    )


def parse_devices(text: str) -> tuple[str, ...]:
    """The lines below ``Available devices:``, such as ``CUDA0: NAME (24109 MiB, 23500 MiB free)``; none for ``(none)``."""
    _, heading, below = text.partition("Available devices:")
    lines = (line.strip() for line in below.splitlines()) if heading else ()
    return tuple(line for line in lines if re.match(r"\w+: ", line))


def self_test(
    root: Path,
    capability: Capability,
    recipe: Recipe,
    test: SelfTest,
    on_device: Callable[[str], None] = lambda device: None,
) -> str:
    """Let the build answer on the CPU and on every device of its arch; a note on what was tested.

    ``VerifyFailedError`` names the device and shows what was said instead.
    """
    devices = [line.partition(":")[0] for line in capability.devices]
    wanted = [name for name in devices if recipe.verify_device and name.startswith(recipe.verify_device)]
    for device in ("", *wanted):
        on_device(device or "CPU")
        _answer_on(root, capability, recipe, test, device)
    if recipe.verify_device and not wanted:
        return f"verified on the CPU only: the build sees no {recipe.title} device here"
    return f"verified on {', '.join(('the CPU', *wanted))}"


def _answer_on(root: Path, capability: Capability, recipe: Recipe, test: SelfTest, device: str) -> None:
    with _serving(root, capability, recipe, test.model, device) as connect:
        said = _chat(connect, test.question)
    if said != test.answer:
        raise VerifyFailedError(
            f"the build computes wrongly on {device or 'the CPU'}: it said {said!r} instead of {test.answer!r}",
            "try another version (--source) or arch, and report it to llama.cpp",
        )


@contextlib.contextmanager
def _serving(
    root: Path, capability: Capability, recipe: Recipe, model: str, device: str
) -> Iterator[Connect]:
    """A llama-server of this build that is ready; yields what connects to it (argument: seconds of patience)."""
    with _short_folder() as folder:
        address, connect = _address(folder, capability.unix_socket)
        argv = [str(root / "bin" / SERVER), *_arguments(capability, model, address, device)]
        log = folder / "log"
        with (
            log.open("wb") as output,
            spawned(argv, env=scrubbed_environment(recipe.runtime_env), output=output) as process,
        ):
            try:
                _wait_ready(process, connect)
                yield connect
            except (LlamamgrError, OSError, http.client.HTTPException, ValueError) as error:
                what = error.what if isinstance(error, LlamamgrError) else f"{type(error).__name__}: {error}"
                tail = "\n".join(f"  {line}" for line in _tail(log))
                raise VerifyFailedError(
                    f"the build's {SERVER} did not answer on {device or 'the CPU'}: {what}\n{tail}",
                    "try another version (--source), or run it by hand to see why",
                ) from None


def _address(folder: Path, unix_socket: bool) -> tuple[dict[str, str | int | bool], Connect]:
    """Where the server shall listen, as settings, and what connects there."""
    if unix_socket:
        path = str(folder / "v.sock")
        return {"host": path}, lambda patience: _UnixConnection(path, patience)
    port = _free_port()
    return {"host": "127.0.0.1", "port": port}, lambda patience: http.client.HTTPConnection(
        "127.0.0.1", port, timeout=patience
    )


def _arguments(
    capability: Capability, model: str, address: Mapping[str, str | int | bool], device: str
) -> list[str]:
    settings: dict[str, str | int | bool] = {
        "model": model,
        "alias": "selftest",
        **address,
        "parallel": 1,
        "context": 512,
        "jinja": "on",
        "ui": "off",
        "offline": True,
        "gpu_layers": _LAYERS_ALL if device else 0,
    }
    argv, _ = write_argv(settings, capability.flags)
    if "--device" in capability.flags and (device or capability.devices):
        argv += ["--device", device or "none"]
    return argv


def _wait_ready(process: subprocess.Popen[bytes], connect: Connect) -> None:
    def over() -> bool:
        return process.poll() is not None or _is_healthy(connect)

    ready = wait_until(over, timeout=_LOAD_TIMEOUT)
    if process.poll() is not None:
        raise VerifyFailedError(f"it ended with status {process.returncode} before it was ready")
    if not ready:
        raise VerifyFailedError(f"it was not ready within {_LOAD_TIMEOUT:g} s")


def _is_healthy(connect: Connect) -> bool:
    with contextlib.closing(connect(5.0)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False


def _chat(connect: Connect, question: str) -> str:
    body = {
        "model": "selftest",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": _ANSWER_TOKENS,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    with contextlib.closing(connect(_ANSWER_TIMEOUT)) as connection:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        raw = response.read()
    if response.status != http.client.OK:
        raise VerifyFailedError(f"status {response.status}: {raw[:500].decode('utf-8', 'replace')}")
    answer: Any = json.loads(raw)
    try:
        return str(answer["choices"][0]["message"]["content"]).strip()
    except (KeyError, IndexError, TypeError):
        raise VerifyFailedError(f"an answer without a message: {raw[:500]!r}") from None


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@contextlib.contextmanager
def _short_folder() -> Iterator[Path]:
    """A private temporary folder whose path leaves room for a socket."""
    short = None if len(tempfile.gettempdir()) <= _SOCKET_ROOM else "/tmp"  # noqa: S108 - mkdtemp makes it 0700 and unguessable
    with tempfile.TemporaryDirectory(prefix="llamamgr-", dir=short) as folder:
        yield Path(folder)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _ask(root: Path, option: str, env: Mapping[str, str]) -> Outcome:
    outcome = capture([str(root / "bin" / SERVER), option], timeout=_ASK_TIMEOUT, env=env)
    if not outcome.succeeded:
        raise _wrong(f"`{SERVER} {option}` ended with status {outcome.code}", outcome)
    return outcome


def _wrong(what: str, outcome: Outcome) -> VerifyFailedError:
    tail = "\n".join(f"  {line}" for line in outcome.output.splitlines()[-5:])
    return VerifyFailedError(
        f"the build does not work: {what}\n{tail}".rstrip(), "try another version (--source) or arch"
    )


def _tail(log: Path) -> list[str]:
    return log.read_text("utf-8", "replace").splitlines()[-8:]
