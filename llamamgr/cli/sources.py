"""The options that say where llama.cpp comes from, as ``install`` and ``update`` take them, made into one source and one aim."""

from __future__ import annotations

import os
import shlex

from llamamgr.core.cards import Source
from llamamgr.core.errors import UsageError
from llamamgr.instances.prebuilt import INDEX_VARIABLE
from llamamgr.instances.sources import Aim, parse_source


def aim_of(branch: str, tag: str, commit: str, version: str) -> Aim | None:
    """The one of these that is said; ``UsageError`` when several are."""
    said = {"branch": branch, "tag": tag, "commit": commit, "version": version}
    named = [kind for kind, name in said.items() if name]
    if len(named) > 1:
        raise UsageError(
            f"{' and '.join(f'--{kind}' for kind in named)} exclude each other",
            "name one version of the source",
        )
    match named:
        case ["branch"]:
            return Aim("branch", branch)
        case ["tag"]:
            return Aim("tag", tag)
        case ["commit"]:
            return Aim("commit", commit)
        case ["version"]:
            return Aim("version", version)
    return None


def source_of(source: str, repo_url: str, prebuilt: bool, release_index: str) -> Source | None:
    """The one source that is said; ``UsageError`` when several are, or an index without ``--prebuilt``."""
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
    return parse_source(f"git:{repo_url}" if repo_url else source)


def cmake_words(texts: list[str] | None) -> tuple[str, ...] | None:
    """The words of all ``--cmake-args`` as a shell would split them; None when there was none."""
    if texts is None:
        return None
    try:
        return tuple(word for text in texts for word in shlex.split(text))
    except ValueError as error:
        raise UsageError(
            f"--cmake-args: {error}", "quote it once for your shell and once more for each word with spaces"
        ) from None
