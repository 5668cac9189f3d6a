"""Official release archives in place of a build: found in a release index, checked by digest, unpacked.

The index speaks the releases API of GitHub. llama.cpp marks its nightly releases as pre-releases, which "latest" leaves out, so the
list is read and the newest with an archive for this machine is taken. Archives are named
``llama-b11434-bin-ubuntu-vulkan-x64.tar.gz``: system, variant (none for CPU and Metal), processor; what CUDA needs at run time lies
in an archive of its own, ``cudart-…``. Programs and libraries lie in one folder and find each other there.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from llamamgr.core.cards import Source
from llamamgr.core.errors import BuildFailedError, MissingToolError, NotFoundError, SourceUnreachableError
from llamamgr.core.recipe import Recipe
from llamamgr.host.downloads import OnBytes, Wanted, fetch_file, fetch_json
from llamamgr.host.files import disk_full_as_error
from llamamgr.instances.build import SERVER

OFFICIAL_INDEX = "https://api.github.com/repos/ggml-org/llama.cpp/releases"
INDEX_VARIABLE = "LLAMAMGR_RELEASES"

_SYSTEMS = {"Linux": "ubuntu", "Darwin": "macos"}
_PROCESSORS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64", "s390x": "s390x"}
_PLAIN = ("cpu", "cpu-portable", "metal")  # archs whose archives carry no word of their own
_TAG = re.compile(r"b(\d+)\Z")
_ARCHIVE = re.compile(
    r"(?P<what>llama|cudart)-(?:.*-)?bin-(?P<system>[a-zA-Z]+)-(?:(?P<variant>[\w.-]+)-)?(?P<cpu>x64|arm64|s390x)(?:\.tar\.gz|\.zip)"
)


class Platform(msgspec.Struct, frozen=True):
    """``system`` and ``processor`` in the words of archive names; "" where llama.cpp publishes nothing for them."""

    system: str
    processor: str


class Release(msgspec.Struct, frozen=True):
    """One release and those of its archives that one arch needs on this machine."""

    source: Source
    number: int
    archives: tuple[Wanted, ...]


def this_platform() -> Platform:
    return Platform(_SYSTEMS.get(platform.system(), ""), _PROCESSORS.get(platform.machine().lower(), ""))


def index_address() -> str:
    """The release index to ask: ``LLAMAMGR_RELEASES``, else the official one."""
    return os.environ.get(INDEX_VARIABLE, "") or OFFICIAL_INDEX


def find_release(source: Source, recipe: Recipe, machine: Platform) -> Release:
    """The release that ``source`` names, else the newest that has an archive of ``recipe``'s arch for ``machine``.

    ``NotFoundError`` names the archs that it has; ``SourceUnreachableError`` when the index does not answer or gives no digest.
    """
    index = (source.location or index_address()).rstrip("/")
    if source.ref:
        documents = [_one_release(index, source.ref)]
    else:
        documents = [found for found in _list(fetch_json(f"{index}?per_page=30")) if _number(found)]
        documents.sort(key=_number, reverse=True)
    for document in documents:
        assets = _assets(document, recipe, machine)
        if assets:
            tag = str(document["tag_name"])
            archives = tuple(_wanted(asset) for asset in assets)
            return Release(Source("prebuilt", source.location, tag), _number(document), archives)
    raise _nothing(index, source, documents, recipe, machine)


def unpack_release(release: Release, scratch: Path, on_bytes: OnBytes) -> Path:
    """Fetch the archives into ``scratch`` and return the folder ``made`` with ``bin/``, ready to be looked into."""
    unpacked = scratch / "unpacked"
    for number, wanted in enumerate(release.archives):
        archive = scratch / "archives" / wanted.url.rpartition("/")[2]
        fetch_file(wanted, archive, on_bytes)
        _unpack(archive, unpacked / str(number))
    made = scratch / "made"
    for name in ("bin", "lib", "share"):
        (made / name).mkdir(parents=True)
    for number in range(len(release.archives)):
        _gather(unpacked / str(number), made / "bin")
    if not (made / "bin" / SERVER).is_file():
        raise BuildFailedError(
            f"{release.archives[0].url} holds no {SERVER}", "choose another release with --version"
        )
    return made


def _one_release(index: str, tag: str) -> dict[str, Any]:
    try:
        return dict(fetch_json(f"{index}/tags/{tag}"))
    except NotFoundError:
        raise NotFoundError(
            f"there is no release {tag!r} in {index}",
            "releases are bNNNN; without --version the newest is taken",
        ) from None


def _list(document: Any) -> list[dict[str, Any]]:
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        raise SourceUnreachableError(
            "the release index answers something else than a list of releases",
            f"is it a releases address such as {OFFICIAL_INDEX}?",
        )
    return document


def _number(document: dict[str, Any]) -> int:
    match = _TAG.match(str(document.get("tag_name", "")))
    return int(match[1]) if match and not document.get("draft") else 0


def _assets(document: dict[str, Any], recipe: Recipe, machine: Platform) -> list[dict[str, Any]]:
    """The archive of the programs and, where there is one, that of the libraries they need; nothing when the first is missing."""
    fitting: dict[str, dict[str, dict[str, Any]]] = {"llama": {}, "cudart": {}}
    for asset in document.get("assets", []):
        match = _ARCHIVE.fullmatch(str(asset.get("name", "")))
        if match and (match["system"], match["cpu"]) == (machine.system, machine.processor):
            fitting[match["what"]][match["variant"] or ""] = asset
    variant = _variant(fitting["llama"], recipe)
    if variant is None:
        return []
    return [fitting[what][variant] for what in ("llama", "cudart") if variant in fitting[what]]


def _variant(offered: Iterable[str], recipe: Recipe) -> str | None:
    """``""`` for CPU and Metal; else the variant that begins like the arch, the oldest of several: it runs on the most drivers."""
    if recipe.name in _PLAIN:
        return "" if "" in offered else None
    fitting = [word for word in offered if word.split("-")[0] == recipe.name]
    return min(fitting, key=lambda word: [int(part) for part in re.findall(r"\d+", word)], default=None)


def _wanted(asset: dict[str, Any]) -> Wanted:
    kind, _, digest = str(asset.get("digest") or "").partition(":")
    if kind != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise SourceUnreachableError(
            f"the release index tells no sha256 of {asset.get('name')}, so it cannot be checked",
            "choose a newer release, or build it: leave --prebuilt out",
        )
    return Wanted(str(asset["browser_download_url"]), int(asset.get("size") or 0), digest)


def _nothing(
    index: str, source: Source, documents: list[dict[str, Any]], recipe: Recipe, machine: Platform
) -> NotFoundError:
    names = [str(asset.get("name")) for document in documents[:1] for asset in document.get("assets", [])]
    matches = [match for name in names if (match := _ARCHIVE.fullmatch(name)) and match["what"] == "llama"]
    here = {
        match["variant"] or "cpu"
        for match in matches
        if (match["system"], match["cpu"]) == (machine.system, machine.processor)
    }
    where = f"{platform.system()} {platform.machine()}"
    what = f"release {source.ref}" if source.ref else f"no release in {index}"
    return NotFoundError(
        f"{what} has {'no' if source.ref else 'an'} archive of arch {recipe.name!r} for {where}",
        f"for {where} there are: {', '.join(sorted(here)) or 'none'}; or build it: leave --prebuilt out",
    )


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack, nothing outside of ``folder``; ``BuildFailedError`` when the archive is damaged."""
    folder.mkdir(parents=True)
    try:
        with disk_full_as_error(folder):
            if archive.suffix == ".zip":
                _unzip(archive, folder)
            else:
                _untar(archive, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise BuildFailedError(f"{archive.name} is damaged: {error}", "run the command again") from None


def _untar(archive: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise MissingToolError("this Python cannot unpack archives safely", "use Python 3.11.4 or newer")
    with tarfile.open(archive, "r:gz") as tar:
        tar.extractall(folder, filter="data")


def _unzip(archive: Path, folder: Path) -> None:
    """``ZipFile`` keeps names inside the folder by itself, but forgets modes and writes links as files."""
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            mode = entry.external_attr >> 16
            if stat.S_ISLNK(mode):
                target = bundle.read(entry).decode("utf-8", "replace")
                link = folder / entry.filename
                if "/" in target or ".." in entry.filename.split("/") or entry.filename.startswith("/"):
                    raise BuildFailedError(
                        f"{archive.name} holds a link to elsewhere: {entry.filename} → {target}",
                        "do not trust it",
                    )
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(target)
                continue
            written = Path(bundle.extract(entry, folder))
            if mode & 0o111 and written.is_file():
                written.chmod(0o755)


def _gather(folder: Path, to: Path) -> None:
    """Move what lies beside the server (or, in an archive of libraries, everything) to ``to``."""
    server = next((path for path in sorted(folder.rglob(SERVER)) if path.is_file()), None)
    home = (
        server.parent
        if server
        else next((p.parent for p in sorted(folder.rglob("*")) if p.is_file()), folder)
    )
    for path in sorted(home.iterdir()):
        if not path.is_dir() and not (to / path.name).exists():
            shutil.move(path, to / path.name)
