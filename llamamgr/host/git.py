"""git, as a program: one bare mirror for each repository, work trees of it, and what a commit is called.

Never asks for a password, never runs a remote helper that git does not ship, checks every exit status. A mirror is blobless where
the server allows it: all commits (so that they can be counted), file contents as they are checked out.

What an address has of a login (``https://token@host/…``) is given to git as a credential helper gives it: the words of a command
line, git's own children's included, and a mirror's configuration may be read by others.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import msgspec

from llamamgr.core.errors import DeadlineError, LlamamgrError, NotFoundError, SourceUnreachableError
from llamamgr.host.processes import Outcome, capture, stream_text

REACH_TIMEOUT = 10.0  # seconds for a server to say what its HEAD is
_LOCAL_TIMEOUT = 120.0
_BUILD_TAG = re.compile(r"b(\d+)\Z")
_REF = re.compile(r"refs/(tags|heads)/(.+)")
_KINDS = {"tags": "tag", "heads": "branch"}
_DESCRIBED = re.compile(r"b(\d+)-(\d+)-g[0-9a-f]+\s*\Z")
_PATIENCE = 2.0  # seconds of which nobody wants to hear a percentage
_SEPARATOR = re.compile(r"[\r\n]+")
_PROGRESS = re.compile(r"(?:remote: )?[A-Z][a-z]+ [a-z]+:\s+\d+%")
_RECEIVING = re.compile(r"Receiving objects:\s+\d+% \((\d+)/(\d+)\)")
_ADDRESS = re.compile(
    r"unable to access '[^']*': "
)  # every message that quotes a reason names the URL itself
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_HTTP_LOGIN = re.compile(
    r"(?i)(?P<scheme>https?://)(?P<user>[^/@:\s]*)(?::(?P<password>[^/@\s]*))?@(?P<host>[^/\s]+)"
)
_USER, _PASSWORD = "LLAMAMGR_GIT_USER", "LLAMAMGR_GIT_PASSWORD"
_HELPER = f'!f() {{ printf "username=%s\\npassword=%s\\n" "${_USER}" "${_PASSWORD}"; }}; f'
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
    "GIT_HTTP_LOW_SPEED_TIME": "30",
    "LC_ALL": "C",
}
_OWN_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
)


class Commit(msgspec.Struct, frozen=True):
    """A commit: full ``hash``, ``short`` hash as git abbreviates it, ``number`` = its bNNNN (0 = cannot be known)."""

    hash: str
    short: str
    number: int


def head_branch(url: str, timeout: float = REACH_TIMEOUT) -> str:
    """The branch that ``url``'s HEAD is on; ``SourceUnreachableError`` when it does not answer within ``timeout`` s."""
    access = _access(url)
    argv = ["git", *access.options, "ls-remote", "--symref", "--", access.url, "HEAD"]
    try:
        outcome = capture(argv, timeout=timeout, env=_environment() | access.environment)
    except DeadlineError:
        raise _unreachable(url, f"no answer within {timeout:g} s") from None
    if not outcome.succeeded:
        raise _unreachable(url, _reason(outcome))
    match = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", outcome.output, re.MULTILINE)
    return match[1] if match else ""


def update_mirror(url: str, mirror: Path, on_line: Callable[[str], None] = lambda line: None) -> None:
    """Make ``mirror`` hold all branches and tags of ``url``. A new one appears by rename, so half a clone is never left."""
    branch = head_branch(url)
    if not (mirror / "HEAD").is_file():
        shutil.rmtree(mirror, ignore_errors=True)  # what is no mirror any more, whatever became of it
        _clone(url, mirror, on_line)
    else:
        heads = "+refs/heads/*:refs/heads/*"
        if (
            address := _access(url).url
        ) != url:  # a mirror that knows the login was made by an earlier version
            _git(mirror, "remote", "set-url", "origin", address)
        options = ["--progress", "--prune", "--force", "--tags"]
        _remote(["-C", str(mirror), "fetch", *options, "origin", heads], url, on_line)
    if branch:
        _git(mirror, "symbolic-ref", "HEAD", f"refs/heads/{branch}")


def find_commit(mirror: Path, ref: str = "") -> Commit:
    """The commit that ``ref`` (tag, branch or hash; "" = HEAD) names; ``NotFoundError`` when the repository has none."""
    for spelling in (f"refs/tags/{ref}", f"refs/heads/{ref}", ref) if ref else ("HEAD",):
        outcome = capture(
            [
                "git",
                "-C",
                str(mirror),
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                f"{spelling}^{{commit}}",
            ],
            timeout=_LOCAL_TIMEOUT,
            env=_environment(),
        )
        if outcome.succeeded:
            return _commit(mirror, outcome.output.split()[0])
    raise _no_such(mirror, ref)


def add_worktree(
    mirror: Path, commit: str, folder: Path, url: str, on_line: Callable[[str], None] = lambda line: None
) -> None:
    """Check ``commit`` (a full hash) out into the new ``folder``, submodules at the commits that it pins included."""
    _git(mirror, "worktree", "prune")
    words = ["-C", str(mirror), "worktree", "add", "--detach", "--force", str(folder), commit]
    _remote(words, url, on_line)
    modules = folder / ".gitmodules"
    if modules.is_file() and modules.stat().st_size:
        _remote(["-C", str(folder), "submodule", "update", "--init", "--recursive"], url, on_line)


def received(line: str) -> tuple[int, int]:
    """How many objects of how many have come, as a ``line`` of git's progress tells; (0, 0) for any other."""
    match = _RECEIVING.match(line)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def is_in_use(mirror: Path) -> bool:
    """Whether some work tree that ``mirror`` gave is still there: a build, or a bisect, is at work in it."""
    return any(
        Path(record.read_text("utf-8", "replace").strip()).exists()
        for record in mirror.glob("worktrees/*/gitdir")
    )


def origin(mirror: Path) -> str:
    """The address that ``mirror`` is one of, as it may be told; "" when it does not say."""
    outcome = capture(
        ["git", "-C", str(mirror), "config", "--get", "remote.origin.url"],
        timeout=_LOCAL_TIMEOUT,
        env=_environment(),
    )
    return without_login(outcome.output.strip()) if outcome.succeeded else ""


def without_login(url: str) -> str:
    """``url`` as it may be told: what somebody logs in with at the host is left out."""
    return _LOGIN.sub("", url)


def describe(folder: Path) -> Commit | None:
    """What is checked out in ``folder``; None when it is not the root of a work tree, or git is missing.

    A work tree with changes says so in its ``short`` name. The number of a shallow clone comes from a tag bNNNN, since its commits
    cannot be counted.
    """
    if not (folder / ".git").exists() or not shutil.which("git"):
        return None
    head = capture(
        ["git", "-C", str(folder), "rev-parse", "--verify", "HEAD"],
        timeout=_LOCAL_TIMEOUT,
        env=_environment(),
    )
    if not head.succeeded:
        return None
    commit = _commit(folder, head.output.split()[0])
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no").output.strip()
    return Commit(commit.hash, f"{commit.short}-dirty" if changed else commit.short, commit.number)


def _no_such(mirror: Path, ref: str) -> NotFoundError:
    """In the words of who asked: ``refs/tags/b1`` is the tag b1. The hint names the newest that there is of its kind."""
    match = _REF.match(ref)
    kind, name = (_KINDS[match[1]], match[2]) if match else ("tag, branch or commit", ref or "HEAD")
    folder, what = ("refs/heads", "branches") if kind == "branch" else ("refs/tags", "tags")
    words = ("for-each-ref", "--format=%(refname:lstrip=2)", "--sort=-creatordate", "--count=3", folder)
    newest = ", ".join(_git(mirror, *words).output.split())
    return NotFoundError(
        f"{origin(mirror) or mirror} has no {kind} {name!r}", f"its newest {what}: {newest or 'none'}"
    )


def _commit(repository: Path, full: str) -> Commit:
    return Commit(
        full, _git(repository, "rev-parse", "--short", full).output.strip(), _number(repository, full)
    )


def _number(repository: Path, full: str) -> int:
    """llama.cpp's count of commits. Where history is cut short, the nearest tag bNNNN below knows better than counting does."""
    is_shallow = _git(repository, "rev-parse", "--is-shallow-repository").output.strip() == "true"
    counted = 0 if is_shallow else int(_git(repository, "rev-list", "--count", full).output)
    here = _git(repository, "tag", "--points-at", full).output.split()
    if exact := [int(match[1]) for tag in here if (match := _BUILD_TAG.match(tag))]:
        return max(exact)
    words = ["describe", "--tags", "--long", "--match", "b[0-9]*", full]
    tagged = capture(["git", "-C", str(repository), *words], timeout=_LOCAL_TIMEOUT, env=_environment())
    match = _DESCRIBED.match(tagged.output) if tagged.succeeded else None
    if match is None:
        return counted
    tag, beyond = int(match[1]), int(match[2])
    return tag + beyond if counted < tag else counted


def _clone(url: str, mirror: Path, on_line: Callable[[str], None]) -> None:
    mirror.parent.mkdir(parents=True, exist_ok=True)
    for left in mirror.parent.glob(f"{mirror.name}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    partial = mirror.with_name(f"{mirror.name}.partial-{os.getpid()}")
    if without_login(url) != url:
        partial.mkdir(mode=0o700)  # what takes a login to get is not for everybody here
    options = ["--progress", "--bare", "--filter=blob:none"]
    try:
        _remote(["clone", *options, "--", _access(url).url, str(partial)], url, on_line)
        partial.rename(mirror)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Access(msgspec.Struct, frozen=True):
    """An address as git is told it, and the options and variables by which git logs in there."""

    url: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = {}


def _access(url: str) -> _Access:
    """Of any address; those of ssh keep their user, which is no secret and belongs to them."""
    login = _HTTP_LOGIN.match(url)
    if not login:
        return _Access(url)
    scope = login["scheme"] + login["host"]  # a submodule's host is told nothing
    options = ("-c", "credential.helper=", "-c", f"credential.{scope}.helper={_HELPER}")
    known = {_USER: unquote(login["user"]), _PASSWORD: unquote(login["password"] or "")}
    return _Access(without_login(url), options, known)


def _remote(words: list[str], url: str, on_line: Callable[[str], None]) -> None:
    """Run git with ``words``, which may talk to ``url``; its failure is the source's."""
    ear, access = _Ear(on_line), _access(url)
    code = stream_text(["git", *access.options, *words], ear, env=_environment() | access.environment)
    ear("\n")
    if code:
        raise _unreachable(url, _reason(Outcome(code, "\n".join(ear.said))))


class _Ear:
    """Takes output in pieces: whole lines are handed on, of progress only what comes after a while, once for each percent."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line, self._began = on_line, time.monotonic()
        self._rest, self._percent = "", ""
        self.said: list[str] = []

    def __call__(self, text: str) -> None:
        *lines, self._rest = _SEPARATOR.split(self._rest + text)
        for line in filter(str.strip, lines):
            progress = _PROGRESS.match(line)
            if progress is None:
                self.said = [*self.said[-20:], line]
                self._on_line(line)
            elif progress[0] != self._percent and time.monotonic() - self._began >= _PATIENCE:
                self._percent = progress[0]
                self._on_line(line)


def _git(repository: Path, *arguments: str) -> Outcome:
    outcome = capture(["git", "-C", str(repository), *arguments], timeout=_LOCAL_TIMEOUT, env=_environment())
    if not outcome.succeeded:
        raise LlamamgrError(
            f"`git {' '.join(arguments)}` failed in {repository}: {_reason(outcome)}",
            "is that repository whole?",
        )
    return outcome


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in _OWN_VARIABLES}
    return {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes"} | kept | _ENVIRONMENT


def _unreachable(url: str, reason: str) -> SourceUnreachableError:
    return SourceUnreachableError(
        f"cannot get llama.cpp from {without_login(url)}: {reason}", "check the network and the URL"
    )


def _reason(outcome: Outcome) -> str:
    lines = [line.strip() for line in outcome.output.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))]
    told = (telling or lines or [f"exit status {outcome.code}"])[0].removeprefix("fatal: ")
    return without_login(_ADDRESS.sub("", told))
