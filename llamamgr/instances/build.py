"""Configure, compile, collect: from a tree of sources to a folder that can be moved anywhere.

Programs and libraries find each other by ``$ORIGIN`` run paths that are set at link time, so "install" is moving the wanted files
of ``build/bin`` into ``bin/`` and ``lib/``: upstream's own install rules would build every target and set no run path. The
conversion scripts are not installed by upstream at all and must stay at the same commit as the binaries: they are copied to
``share/``.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Literal

import msgspec

from llamamgr.core.errors import BuildFailedError, DiskFullError, UsageError
from llamamgr.host.compilers import free_space
from llamamgr.host.environments import laid_over
from llamamgr.host.processes import capture, stream
from llamamgr.instances.sources import Tree
from llamamgr.instances.tools import BuildTools

SERVER = "llama-server"
TARGETS = (
    SERVER,
    "llama-cli",
    "llama-quantize",
    "llama-bench",
    "llama-gguf-split",
    "llama-fit-params",
    "llama-imatrix",
    "llama-perplexity",
)
RPC_TARGETS = ("ggml-rpc-server", "rpc-server")  # the new and the old name of one program

_SIGNS = (";", "$")
_LICENCE = ("LICENSE",)
_SHARED = ("convert_*.py", "gguf-py", "conversion", "requirements", "requirements.txt", *_LICENCE)
_COUNTER = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_LIBRARY = re.compile(r"lib[\w.+-]+\.(?:so|dylib)(?:\.[\d.]+)?\Z")
_PLUGIN = re.compile(r"libggml-(?!base\b)[\w.-]+\.(?:so|dylib)\Z")
_ERROR = re.compile(r"\berror(?: [A-Z]*\d+)?:|\bundefined reference to\b|^CMake Error|^nvcc fatal|^FAILED: ")
_HEADINGS = ("FAILED: ", "CMake Error")
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_ERROR_LINES = 6
_NO_ROOM = (
    4 * 1024 * 1024
)  # bytes free below which a failure is the disk's: CMake does not notice when its files come out short

Step = Literal["note", "source", "configure", "build", "install", "verify"]


class Progress(msgspec.Struct, frozen=True):
    """What is going on: ``done`` of ``total`` (0 = not countable) parts of ``step``; a ``note`` is a line worth keeping."""

    step: Step
    text: str = ""
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]


class Order(msgspec.Struct, frozen=True):
    """What to build: ``arguments`` are CMake's for the arch and the user's own (the last one wins), ``jobs`` compilers at once.

    ``targets`` are all wanted: the tree must have them. Without any, all of llamamgr's are built that the tree has, the server at
    least. ``python`` brings the conversion scripts along.
    """

    arguments: tuple[str, ...]
    rpc: bool
    jobs: int
    environment: dict[str, str] = {}
    targets: tuple[str, ...] = ()
    python: bool = True


class Log:
    """The full output of one build, with the first error picked out as it goes by."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path = path
        self._file = file
        self._error: list[str] = []
        self._last: list[str] = []
        self.disk_is_full = False

    def heading(self, argv: list[str]) -> None:
        self._error, self._last = [], []
        self.line(f"$ {' '.join(argv)}")

    def line(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()
        self.disk_is_full = self.disk_is_full or _DISK_FULL.search(text) is not None
        self._last = [*self._last[1 - _ERROR_LINES :], text]
        self._notice(text)

    def failure(self, what: str) -> BuildFailedError | DiskFullError:
        """The error to raise when a step has failed."""
        if self.disk_is_full or free_space(self.path.parent) < _NO_ROOM:
            return DiskFullError(
                f"{what}: no space left on the disk", f"free some and run the command again; log: {self.path}"
            )
        shown = "\n".join(f"  {line}" for line in self._error or self._last)
        hint = f"the full log is {self.path}"
        if "Killed signal" in shown:
            hint = f"memory ran out; use fewer compilers at once (--parallel 1); {hint}"
        return BuildFailedError(f"{what}:\n{shown}", hint)

    def _notice(self, text: str) -> None:
        # ninja's and CMake's own headings stand before the compiler's words, which say more
        announced = bool(self._error) and self._error[0].startswith(_HEADINGS)
        if _ERROR.search(text) and (not self._error or (announced and not text.startswith(_HEADINGS))):
            self._error = [text.strip()]
        elif self._error and len(self._error) < _ERROR_LINES and text.strip():
            self._error.append(text)


def require_plain(place: Path) -> None:
    """``UsageError`` when nothing can be built below ``place``: CMake and ccache read signs of their own into its path."""
    signs = [sign for sign in _SIGNS if sign in str(place)]
    if signs:
        raise UsageError(
            f"nothing can be built in {place}: {' and '.join(signs)} in a path means something to CMake or ccache",
            "let LLAMAMGR_HOME be a path without it",
        )


def build(tree: Tree, order: Order, tools: BuildTools, scratch: Path, log: Log, report: Report) -> Path:
    """Build ``tree`` in ``scratch`` and return the folder with ``bin/ lib/ share/``, ready to be published.

    ``BuildFailedError`` shows the first error and names the log; ``DiskFullError`` when that was the cause.
    """
    folder = scratch / "build"
    environment = _environment(order.environment, scratch)
    report(Progress("configure", "cmake"))
    _run(
        configure_command(tree, order, tools, folder), "configure failed", log, environment, lambda line: None
    )
    targets = _targets(tools, folder, order, environment, log)
    report(Progress("build", "compiling"))
    command = [tools.ninja, "-C", str(folder), "-j", str(order.jobs), *targets]
    _run(command, "compilation failed", log, environment, lambda line: _count(line, report))
    report(Progress("install", "collecting"))
    made = scratch / "made"
    collect(folder, tree.folder, made, targets, _SHARED if order.python else _LICENCE)
    return made


def configure_command(tree: Tree, order: Order, tools: BuildTools, folder: Path) -> list[str]:
    """CMake's argv: what every build gets, the version stamp, the arch, and last the user's own words."""
    origin = "@loader_path" if platform.system() == "Darwin" else "$ORIGIN"
    fixed = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MAKE_PROGRAM": tools.ninja,
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": f"{origin};{origin}/../lib",
        "CMAKE_INSTALL_RPATH_USE_LINK_PATH": "ON",
        "CMAKE_INSTALL_LIBDIR": "lib",
        "LLAMA_BUILD_TESTS": "OFF",
        "LLAMA_BUILD_EXAMPLES": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",  # or the build downloads it
        "LLAMA_BUILD_NUMBER": str(tree.number),
        "LLAMA_BUILD_COMMIT": tree.commit,
    }
    if _offers(
        tree.folder, "LLAMA_CURL"
    ):  # trees of 2025 refuse to configure without libcurl; later ones only warn of the option
        fixed["LLAMA_CURL"] = "OFF"
    if order.rpc:
        fixed["GGML_RPC"] = "ON"
    defines = [f"-D{key}={value}" for key, value in fixed.items()]
    return [tools.cmake, "-S", str(tree.folder), "-B", str(folder), "-G", "Ninja", *defines, *order.arguments]


def collect(
    folder: Path, source: Path, made: Path, targets: tuple[str, ...], shared: tuple[str, ...] = _SHARED
) -> None:
    """Move the built ``targets`` and all shared libraries to ``made``; backends loaded at run time go beside the programs.

    What fits a pattern of ``shared`` is copied from the sources.
    """
    built = folder / "bin"
    plugins = _cache_entry(folder, "GGML_BACKEND_DL") == "ON"
    for name in ("bin", "lib", "share"):
        (made / name).mkdir(parents=True)
    for path in sorted(built.iterdir()):
        if path.name in targets or path.suffix == ".metallib" or (plugins and _PLUGIN.match(path.name)):
            path.rename(made / "bin" / path.name)
        elif _LIBRARY.match(path.name):
            path.rename(made / "lib" / path.name)
    for pattern in shared:
        for path in sorted(source.glob(pattern)):
            _copy(path, made / "share" / path.name)


def size_of(folder: Path) -> int:
    """Bytes of all files below ``folder``; links count nothing."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _run(
    argv: list[str], what: str, log: Log, environment: Mapping[str, str], on_line: Callable[[str], None]
) -> None:
    log.heading(argv)

    def both(line: str) -> None:
        log.line(line)
        on_line(line)

    if stream(argv, both, env=environment):
        raise log.failure(what)


def _count(line: str, report: Report) -> None:
    if match := _COUNTER.match(line):
        report(Progress("build", match[3], int(match[1]), int(match[2])))


def _targets(
    tools: BuildTools, folder: Path, order: Order, environment: Mapping[str, str], log: Log
) -> tuple[str, ...]:
    """Those of the wanted targets that this tree has; of those that nobody named only the server is indispensable."""
    outcome = capture(
        [tools.ninja, "-C", str(folder), "-t", "targets", "all"], timeout=120.0, env=environment
    )
    offered = {line.partition(":")[0] for line in outcome.output.splitlines()}
    lacking = [target for target in order.targets or (SERVER,) if target not in offered]
    if lacking:
        raise BuildFailedError(
            f"these sources have no target {lacking[0]}",
            f"choose a newer llama.cpp; the full log is {log.path}",
        )
    if order.targets:
        return order.targets
    absent = [target for target in TARGETS if target not in offered]
    if absent:
        log.line(f"this tree has no {', '.join(absent)}: built without")
    servers = [target for target in RPC_TARGETS if target in offered][:1] if order.rpc else []
    return tuple(target for target in (*TARGETS, *servers) if target in offered)


def _environment(extra: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """English messages, a countable status, and paths below the scratch made relative so that ccache hits in the next one.

    Upstream compiles its model sources in batches that include them by absolute path, and its assertions name their file: without
    the prefix map none of the batches, half of the compiler's work, would ever hit.
    """
    own = {"LC_ALL": "C", "NINJA_STATUS": "[%f/%t] ", "CCACHE_BASEDIR": str(scratch), "CCACHE_NOHASHDIR": "1"}
    own["GIT_CEILING_DIRECTORIES"] = str(
        scratch
    )  # a package's tree is no part of a repository that happens to be around it
    whole = laid_over(os.environ, extra) | own
    if (
        platform.system() != "Windows"
    ):  # GCC 8 and clang 10 know it, older ones cannot compile llama.cpp anyway
        for name in ("CFLAGS", "CXXFLAGS"):
            whole[name] = f"{whole.get(name, '')} {shlex.quote(f'-fmacro-prefix-map={scratch}=.')}".strip()
    return whole


def _offers(source: Path, option: str) -> bool:
    try:
        return (
            re.search(
                rf"^\s*option\(\s*{option}\b", (source / "CMakeLists.txt").read_text("utf-8", "replace"), re.M
            )
            is not None
        )
    except OSError:
        return False


def _cache_entry(folder: Path, key: str) -> str:
    try:
        text = (folder / "CMakeCache.txt").read_text("utf-8", "replace")
    except OSError:
        return ""
    match = re.search(rf"^{re.escape(key)}:\w+=(.*)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        shutil.copytree(
            path, to, symlinks=True, ignore=shutil.ignore_patterns(".git*", "__pycache__", "*.pyc")
        )
    else:
        shutil.copy2(path, to)
