"""The history of a repository, asked without changing it: who descends from whom, and which commit halves a range."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from llamamgr.core.errors import LlamamgrError, NotFoundError
from llamamgr.host.processes import Outcome, capture

_TIMEOUT = 120.0


class About(msgspec.Struct, frozen=True):
    """What a commit says of itself: first line of its message, author's name, date (YYYY-MM-DD)."""

    subject: str
    author: str
    date: str


def is_ancestor(repository: Path, old: str, new: str) -> bool:
    """Whether ``new`` descends from ``old`` (or is it)."""
    return _ask(repository, "merge-base", "--is-ancestor", old, new, may_fail=True).code == 0


def halving(repository: Path, bad: str, good: Iterable[str]) -> list[str]:
    """Every commit that is in ``bad`` and in none of ``good``, ``bad`` among them; those that halve the range best come first."""
    outcome = _ask(repository, "rev-list", "--bisect-all", bad, *(f"^{commit}" for commit in good))
    return [line.split()[0] for line in outcome.output.splitlines() if line]


def about(repository: Path, commit: str) -> About:
    """Subject, author and date of ``commit``."""
    said = _ask(repository, "log", "-1", "--format=%s%x00%an%x00%ad", "--date=short", commit).output.strip()
    subject, author, date = said.split("\0")
    return About(subject, author, date)


def numbered(repository: Path, number: int, tip: str = "HEAD") -> str:
    """The commit that is the ``number``-th up to ``tip``, as llama.cpp counts its builds; ``NotFoundError`` when there is none."""
    total = int(_ask(repository, "rev-list", "--count", tip).output)
    if 0 < number <= total:
        order = ("rev-list", "--first-parent", f"--skip={total - number}", "--max-count=1", tip)
        found = _ask(repository, *order).output.strip()
        if found and int(_ask(repository, "rev-list", "--count", found).output) == number:
            return found
    raise NotFoundError(
        f"the repository has neither a tag b{number} nor a {number}-th commit", f"its HEAD is commit {total}"
    )


def _ask(repository: Path, *arguments: str, may_fail: bool = False) -> Outcome:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    outcome = capture(
        ["git", "-C", str(repository), *arguments], timeout=_TIMEOUT, env=kept | {"LC_ALL": "C"}
    )
    if not (outcome.succeeded or may_fail):
        raise LlamamgrError(
            f"`git {' '.join(arguments[:3])}` failed in {repository}: {outcome.output.strip()}",
            "is that repository whole?",
        )
    return outcome
