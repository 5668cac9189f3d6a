"""The commit that broke or slowed something, found by building and testing ever smaller ranges of a repository's history.

git answers which commit halves the range (``rev-list --bisect-all``); the search itself lives here, so that the mirror, which all
instances share, is only read. Builds are made in a folder of their own, with ccache where it is installed: no instance is touched.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from llamamgr.core.cards import Build, BuildCard, InstanceSpec, Source
from llamamgr.core.errors import (
    BuildFailedError,
    NotFoundError,
    UsageError,
)
from llamamgr.core.recipe import Recipe
from llamamgr.core.stages import Stage, Tell
from llamamgr.host import git, git_history
from llamamgr.host.compilers import parallel_jobs
from llamamgr.host.files import locked
from llamamgr.host.git_history import About
from llamamgr.host.paths import Paths
from llamamgr.instances.build import Log, Order, Progress, build, require_plain
from llamamgr.instances.build_plan import build_plan
from llamamgr.instances.prerequisites import require
from llamamgr.instances.recipes import recipe_for
from llamamgr.instances.sources import OFFICIAL, Found, find, mirror_of, unfold
from llamamgr.instances.tools import build_tools
from llamamgr.instances.verdicts import Benchmark, Outcome, Test, Verdict

_BUILD_NUMBER = re.compile(r"b(\d+)\Z")
# where to look in the range, best halving first, after so many commits that could not be tested
_AWAY = (0.0, 0.25, 0.5, 0.1)


class Range(msgspec.Struct, frozen=True):
    """What is searched: commits of ``url`` from ``good`` (exclusive) to ``bad``, each bNNNN, a tag, branch or commit."""

    url: str
    good: str
    bad: str


class Means(msgspec.Struct, frozen=True):
    """How each commit is built: as ``spec`` says, with ``jobs`` compilers at once (0 = as the machine allows).

    Only ``targets`` are built, where there are any: the fewer, the sooner the search is done.
    """

    spec: InstanceSpec
    jobs: int = 0
    targets: tuple[str, ...] = ()


class Tested(msgspec.Struct, frozen=True):
    """One commit and its outcome."""

    hash: str
    number: int
    commit: str
    outcome: Outcome


class Finding(msgspec.Struct, frozen=True):
    """The end of a search: the first bad commit, or ``suspects`` among which it is, as the others could not be tested.

    ``before`` is the last good commit that was tested, ``after`` the first bad one.
    """

    suspects: tuple[str, ...]
    number: int
    commit: str
    about: About
    before: Tested | None
    after: Tested | None
    tested: tuple[Tested, ...]


def source_url(spec: InstanceSpec | None) -> str:
    """The repository that an instance is built from; the official one where that is no repository."""
    source = spec.source if spec else None
    if source is not None and source.kind in ("git", "directory") and source.location:
        return source.location
    return OFFICIAL


def bisect(wanted: Range, means: Means, test: Test | Benchmark, paths: Paths, tell: Tell) -> Finding:
    """Search ``wanted``. One search at a time; a range whose ends are not what they are said to be is refused.

    Raises ``UsageError`` for such a range, ``NotFoundError`` for unknown ends, ``ConflictError`` when another search runs, and
    what a build raises that is not a matter of the commit (``MissingToolError``, ``DiskFullError``).
    """
    asked = recipe_for(paths, means.spec.arch)
    require_plain(paths.data)
    require(asked, git_needed=True)  # first: it names all that is missing at once
    recipe = build_plan(asked, means.spec.gpu_targets).recipe
    tell(Stage("getting the history"))
    mirror = mirror_of(wanted.url, paths)
    good, bad = (_end(wanted.url, name, mirror, paths, tell) for name in (wanted.good, wanted.bad))
    if good.hash == bad.hash:
        raise UsageError(
            f"{wanted.good} and {wanted.bad} are one commit, {good.short}",
            "name two commits of one line of history",
        )
    if not git_history.is_ancestor(mirror, good.hash, bad.hash):
        turned = git_history.is_ancestor(mirror, bad.hash, good.hash)
        raise UsageError(
            f"{wanted.bad} does not descend from {wanted.good}",
            "--good must be the older one" if turned else "name two commits of one line of history",
        )
    with _scratch(paths) as scratch:
        return _Search(wanted.url, means, recipe, test, paths, scratch, tell).run(good, bad)


class _Search:
    """One search: what was tested, and how to test more."""

    def __init__(
        self,
        url: str,
        means: Means,
        recipe: Recipe,
        test: Test | Benchmark,
        paths: Paths,
        scratch: Path,
        tell: Tell,
    ) -> None:
        self._url, self._means, self._recipe, self._test = url, means, recipe, test
        self._paths, self._scratch, self._tell = paths, scratch, tell
        self._mirror = mirror_of(url, paths)
        self._tested: dict[str, Tested] = {}

    def run(self, good: git.Commit, bad: git.Commit) -> Finding:
        try:
            return self._run(good, bad)
        except BaseException:  # Ctrl-C, a full disk: what hours have found is not lost
            self._tell_what_is_known(good, bad)
            raise

    def _tell_what_is_known(self, good: git.Commit, bad: git.Commit) -> None:
        """The range that is left, for another search to begin with; nothing where it is the whole."""
        by_number = sorted(self._tested.values(), key=lambda tested: tested.number)
        goods = [tested for tested in by_number if tested.outcome.verdict == "good"]
        bads = [tested for tested in by_number if tested.outcome.verdict == "bad"]
        start, end = (goods[-1].hash if goods else good.hash), (bads[0].hash if bads else bad.hash)
        is_narrower = start != end and (start, end) != (good.hash, bad.hash)
        if is_narrower and git_history.is_ancestor(self._mirror, start, end):
            ends = f"--good {start[: len(good.short)]} --bad {end[: len(bad.short)]}"
            self._tell(Stage(note=f"not finished; what is left to search: {ends}"))

    def _run(self, good: git.Commit, bad: git.Commit) -> Finding:
        if isinstance(self._test, Benchmark):
            self._measure_ends(good, bad, self._test)
        known_good, first_bad, skipped = [good.hash], bad, set[str]()
        while True:
            left = git_history.halving(self._mirror, first_bad.hash, known_good)
            choice = [commit for commit in left if commit != first_bad.hash and commit not in skipped]
            if not choice:
                break
            untestable = sum(commit in skipped for commit in left)
            commit = git.find_commit(self._mirror, choice[int(len(choice) * _AWAY[untestable % len(_AWAY)])])
            tested = self._try(commit, _left(len(left)))
            if tested.outcome.verdict == "good":
                known_good.append(commit.hash)
            elif tested.outcome.verdict == "bad":
                first_bad = commit
            else:
                skipped.add(commit.hash)
        self._check_ends(good, bad, known_good, first_bad)
        suspects = tuple(c for c in left if c == first_bad.hash or c in skipped)
        return self._finding(suspects, first_bad)

    def _measure_ends(self, good: git.Commit, bad: git.Commit, test: Benchmark) -> None:
        first = self._try(good, "the good end")
        test.begin(first.outcome)
        last = self._try(bad, "the bad end")
        if last.outcome.verdict == "skipped":
            raise BuildFailedError(
                f"the bad end cannot be measured: {last.outcome.note}", "name another commit with --bad"
            )
        if last.outcome.verdict == "good":
            raise UsageError(
                f"there is no such drop: {first.outcome.note} at {first.commit}, {last.outcome.note} at {last.commit}",
                "name a smaller --drop or other ends",
            )

    def _check_ends(
        self, good: git.Commit, bad: git.Commit, known_good: Sequence[str], first_bad: git.Commit
    ) -> None:
        """What the answer rests on must have been tested: an end too, where all between turned out alike."""
        if first_bad.hash == bad.hash and bad.hash not in self._tested:
            self._require_end(bad, "bad", "name a later commit with --bad")
        if len(known_good) == 1 and good.hash not in self._tested:
            self._require_end(good, "good", "name an earlier commit with --good")

    def _require_end(self, end: git.Commit, claimed: Verdict, advice: str) -> None:
        outcome = self._try(end, f"the {claimed} end").outcome
        name = f"b{end.number} ({end.short})"
        if outcome.verdict == "skipped":
            raise UsageError(f"{name}, the {claimed} end, cannot be tested: {outcome.note}", advice)
        if outcome.verdict != claimed:
            raise UsageError(f"{name} is not {claimed} but {outcome.verdict}: {outcome.note}", advice)

    def _try(self, commit: git.Commit, left: str) -> Tested:
        """Build and test one commit; one that cannot be built is skipped."""
        name = f"b{commit.number} ({commit.short})"
        self._tell(Stage(note=f"{name}: {left}"))
        folder = self._scratch / commit.short
        folder.mkdir()
        try:
            outcome = self._outcome(commit, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._tell(Stage(note=f"{name} is {outcome.verdict}: {outcome.note}"))
        tested = Tested(commit.hash, commit.number, commit.short, outcome)
        self._tested[commit.hash] = tested
        return tested

    def _outcome(self, commit: git.Commit, folder: Path) -> Outcome:
        try:
            made = self._build(commit, folder)
        except BuildFailedError as error:
            told = error.what.splitlines()
            return Outcome("skipped", f"it does not build: {told[min(1, len(told) - 1)].strip()}")
        return self._test(made, self._tell)

    def _build(self, commit: git.Commit, folder: Path) -> Build:
        recipe, spec = self._recipe, self._means.spec
        source = Source("git", self._url, commit.hash)
        logs = self._paths.state / "bisect"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{commit.short}.log").open("w", encoding="utf-8") as file:
            log = Log(Path(file.name), file)
            tools = build_tools(
                self._paths,
                lambda line: self._tell(Stage(note=line)),
                log.line,
                cmake_least=recipe.cmake_least,
            )
            tree = unfold(
                Found(source, commit.number, commit.short, commit.hash), self._paths, folder, log.line
            )
            order = Order(
                arguments=(*recipe.cmake_arguments(), *spec.cmake_args),
                rpc=False,
                jobs=self._means.jobs or parallel_jobs(),
                environment=recipe.build_env,
                targets=self._means.targets,
                python=False,
            )
            made = build(tree, order, tools, folder, log, lambda progress: self._advance(commit, progress))
        card = BuildCard(
            id=f"b{commit.number}-{commit.short}",
            instance=spec.name,
            arch=recipe.name,
            number=commit.number,
            commit=commit.short,
            source=source,
            environment=recipe.runtime_env,
        )
        return Build(card, str(made))

    def _advance(self, commit: git.Commit, progress: Progress) -> None:
        if progress.step == "build":
            self._tell(Stage(f"building b{commit.number}", progress.done, progress.total, counted=True))

    def _finding(self, suspects: tuple[str, ...], first_bad: git.Commit) -> Finding:
        earlier = [t for t in self._tested.values() if t.outcome.verdict == "good"]
        near = max(earlier, key=lambda tested: tested.number, default=None)
        return Finding(
            suspects=suspects,
            number=first_bad.number,
            commit=first_bad.short,
            about=git_history.about(self._mirror, first_bad.hash),
            before=near,
            after=self._tested.get(first_bad.hash),
            tested=tuple(sorted(self._tested.values(), key=lambda tested: tested.number)),
        )


def _end(url: str, name: str, mirror: Path, paths: Paths, tell: Tell) -> git.Commit:
    """One end of the range; a bNNNN without a tag is the NNNN-th commit."""
    try:
        return git.find_commit(mirror, find(Source("git", url, name), paths, _noting(tell)).hash)
    except NotFoundError:
        match = _BUILD_NUMBER.match(name)
        if not match:
            raise
        return git.find_commit(mirror, git_history.numbered(mirror, int(match[1])))


def _noting(tell: Tell) -> Callable[[str], None]:
    return lambda line: tell(Stage(note=line))


def _left(commits: int) -> str:
    steps = max(1, math.ceil(math.log2(commits)))
    told = f"{commits} commit{'s' if commits != 1 else ''} left"
    return f"{told}, about {steps} step{'s' if steps != 1 else ''}"


@contextlib.contextmanager
def _scratch(paths: Paths) -> Iterator[Path]:
    """A folder for builds, gone at the end; what a killed search left goes first."""
    with locked(paths.data / "locks" / "bisect.lock", "the folder of a bisect"):
        folder = paths.data / "bisect"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
