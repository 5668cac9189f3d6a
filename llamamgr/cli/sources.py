"""The options that say what of llama.cpp to build and how, as ``install``, ``update`` and ``bisect`` take them, as values."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping

from llamamgr.core.cards import Source
from llamamgr.core.errors import UsageError
from llamamgr.instances.prebuilt import INDEX_VARIABLE
from llamamgr.instances.sources import Aim, parse_source

# CMake's options whose value may stand in a word of its own
_WITH_VALUE = ("-D", "-U", "-C", "-T", "-A", "--toolchain", "--install-prefix")
_OURS = ("-S", "-B", "-G", "-P", "-E", "--build", "--install", "--open", "--workflow")


def aim_of(branch: str | None, tag: str | None, commit: str | None, version: str | None) -> Aim | None:
    """The one of these that is said; ``UsageError`` when several are, or one without a name."""
    said = {"branch": branch, "tag": tag, "commit": commit, "version": version}
    named = [kind for kind, name in said.items() if name is not None]
    if len(named) > 1:
        raise UsageError(
            f"{' and '.join(f'--{kind}' for kind in named)} exclude each other",
            "name one version of the source",
        )
    refuse_empty({f"--{kind}": name for kind, name in said.items()})
    match named:
        case ["branch"]:
            return Aim("branch", str(branch))
        case ["tag"]:
            return Aim("tag", str(tag))
        case ["commit"]:
            return Aim("commit", str(commit))
        case ["version"]:
            return Aim("version", str(version))
    return None


def refuse_empty(said: Mapping[str, str | None]) -> None:
    """``UsageError`` for an option that is there without a value: a script's unset variable must not mean "the newest"."""
    for option, value in said.items():
        if value is not None and not value.strip():
            raise UsageError(f"{option} is empty", "name a value, or leave the option out")


def source_of(
    source: str | None, repo_url: str | None, prebuilt: bool, release_index: str | None
) -> Source | None:
    """The one source that is said; ``UsageError`` when several are, or an index without ``--prebuilt``."""
    refuse_empty({"--source": source, "--repo-url": repo_url, "--release-index": release_index})
    said = [
        name
        for name, is_said in (("--source", source), ("--repo-url", repo_url), ("--prebuilt", prebuilt))
        if is_said
    ]
    if len(said) > 1:
        raise UsageError(f"{' and '.join(said)} exclude each other", "name one source")
    if release_index and not prebuilt:
        raise UsageError("--release-index is only for --prebuilt", "add --prebuilt")
    if prebuilt:
        return Source("prebuilt", (release_index or os.environ.get(INDEX_VARIABLE, "")).rstrip("/"))
    return parse_source(f"git:{repo_url}" if repo_url else source or "")


def cmake_words(texts: Iterable[str] | None) -> tuple[str, ...] | None:
    """The words of all ``--cmake-args`` as a shell would split them, ``-D X=1`` as ``-DX=1``; None when there was none.

    ``UsageError`` for what CMake would take for a folder, and for what llamamgr itself says (where it builds, and by what).
    """
    if texts is None:
        return None
    try:
        words = [word for text in texts for word in shlex.split(text)]
    except ValueError as error:
        raise UsageError(
            f"--cmake-args: {error}", "quote it once for your shell and once more for each word with spaces"
        ) from None
    return tuple(_checked(words))


def _checked(words: list[str]) -> Iterator[str]:
    left = iter(words)
    for word in left:
        if not word.startswith("-") or word == "-":
            meant = f"-D{word.removeprefix('D')}" if "=" in word else "-DGGML_BLAS=ON"
            raise UsageError(f"--cmake-args: {word!r} is no option of CMake", f"such as '{meant}'")
        if word.startswith(_OURS):
            raise UsageError(
                f"--cmake-args: {word!r} is not for you to say", "llamamgr chooses folders and generator"
            )
        if word not in _WITH_VALUE:
            yield word
            continue
        value = next(left, "")
        if not value:
            raise UsageError(f"--cmake-args: {word} lacks its value", "such as '-DGGML_BLAS=ON'")
        yield from (f"{word}{value}",) if word == "-D" else (word, value)
