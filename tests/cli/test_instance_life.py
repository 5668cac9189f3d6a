"""The commands around instances, as people type them: updating, going back, choosing, removing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from llamamgr.core.cards import Source
from llamamgr.host.paths import Paths
from llamamgr.instances import switching
from llamamgr.instances.store import Store
from llamamgr.models import selftest
from tests.fakes.llama_repository import commit, tagged_repository
from tests.fakes.package_index import FAKE_TREE
from tests.instances.test_store import publish

ROOT = Path(__file__).parents[2]
CMAKE = (FAKE_TREE / "CMakeLists.txt").read_text()
RIGHT = CMAKE.replace(
    "add_compile_definitions(", f'set(FAKE_ANSWER "{selftest.ANSWER}")\nadd_compile_definitions(', 1
)


def llamamgr(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llamamgr", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
    )


def good(*words: str, **env: str) -> str:
    done = llamamgr(*words, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def store() -> Store:
    return Store(Paths.of_environment())


@pytest.fixture
def repository(tmp_path) -> Path:
    return tagged_repository(
        tmp_path / "origin", {"b101": {"CMakeLists.txt": RIGHT}, "b102": {"n": "2"}}, FAKE_TREE
    )


def test_from_a_fork_at_a_tag_to_the_newest_and_back_again(repository, store):
    url = repository.as_uri()
    made = good("install", "--repo-url", url, "--tag", "b101", "--arch", "cpu", "-j", "1")
    assert "b101" in made and "verified on the CPU" in made
    told = good("update")
    assert "b101" in told and "fixed to (tag b101)" in told and "update default --branch" in told
    assert "before it b101" in good("update", "--branch", "master")
    assert "newest already" in good("install", "--update-only")
    (repository / "n").write_text("3")
    commit(repository, "b103", 3)
    assert "b103" in good("update", "--all")
    assert "b102" in good("rollback") and "b101" in good("rollback")
    assert "b103" in good("rollback", "default", "b103")
    listed = json.loads(good("instances", "--json"))["instances"][0]
    assert [build["number"] for build in listed["builds"]] == [103, 102, 101]
    assert [event["why"] for event in listed["history"]] == [
        *("install", "update", "update", "rollback", "rollback", "use")
    ]
    shown = good("instance", "show")
    assert "chosen by: the default" in shown and f"git {url}, branch master  (asked for)" in shown
    assert good("prune", "--keep", "2") == "0 B freed\n"  # the newest two, and b101, which b103 came after
    assert "b102" in good("prune", "--keep", "0")
    assert len(store.builds("default")) == 2  # the current one and its former


def test_a_dry_run_tells_the_plan_and_touches_nothing(own_home):
    told = good(
        *(
            "install",
            "--dry-run",
            "--arch",
            "cpu",
            "--version",
            "b11434",
            "--cmake-args",
            "-DGGML_BLAS=ON '-DX=a b'",
        ),
        *("--rpc", "-j", "3"),
    )
    for part in (
        "default (new)",
        "b11434",
        "cpu: asked for",
        "-DGGML_BLAS=ON",
        "-DX=a b",
        "-DGGML_RPC=ON",
        "llama-server",
    ):
        assert part in told, told
    assert "3 at once" in told and list(own_home.iterdir()) == []
    words = ("install", "--dry-run", "--arch", "rocm", "--gpu-targets", "gfx1100,gfx1201")
    assert "-DGPU_TARGETS=gfx1100;gfx1201" in good(*words)  # with ROCm and without
    pulled = good("install", "--dry-run", "--pull-only")
    assert "build nothing" in pulled and "cmake" not in pulled


def test_an_update_of_no_instance_says_so():
    done = llamamgr("update", "--all")
    assert done.returncode == 0 and "no instance to update" in done.stderr


def test_what_is_asked_of_sources_is_no_matter_of_release_archives(store):
    publish(store, "default", "b1", source=Source("prebuilt", "http://127.0.0.1:9", ""))
    done = llamamgr("install", "--pull-only")
    assert done.returncode == 2 and "no source to fetch" in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "tells"),
    [
        (("install", "--branch", "a", "--tag", "b"), 2, "--branch and --tag exclude each other"),
        (
            ("install", "--repo-url", "file:///x", "--prebuilt"),
            2,
            "--repo-url and --prebuilt exclude each other",
        ),
        (("install", "--release-index", "http://127.0.0.1:9"), 2, "only for --prebuilt"),
        (("install", "--cmake-args", "'-DX"), 2, "--cmake-args"),
        (
            ("install", "--cmake-args", "DGGML_BLAS=ON"),
            2,
            "no option of CMake\nhint: such as '-DGGML_BLAS=ON'",
        ),
        (("install", "--cmake-args", "-DX=1 -B/tmp/x"), 2, "'-B/tmp/x' is not for you to say"),
        (("install", "--cmake-args", "-DX=1 -D"), 2, "-D lacks its value"),
        (("install", "--tag", ""), 2, "--tag is empty"),
        (("install", "--tag", "", "--branch", "b"), 2, "--branch and --tag exclude each other"),
        (("install", "--repo-url", " "), 2, "--repo-url is empty"),
        (("update", "--version", ""), 2, "--version is empty"),
        (("install", "--prebuilt", "--cmake-args", "-DX=1"), 2, "--cmake-args is for builds"),
        (("install", "--prebuilt", "--pull-only"), 2, "--pull-only is for builds"),
        (("install", "--pull-only", "--update-only"), 2, "exclude each other"),
        (("install", "--update-only"), 4, "Instance default is not installed, nothing to update."),
        (
            ("install", "--update-only", "--dry-run"),
            4,
            "Instance default is not installed, nothing to update.",
        ),
        (
            ("install", "--prebuilt", "--arch", "cpu", "--release-index", "http://127.0.0.1:9"),
            6,
            "cannot get",
        ),
        (("update", "nope"), 4, "nothing to update"),
        (("update", "--all", "x"), 2, "--all takes no name"),
        (("use", "nope"), 4, "no instance 'nope'"),
        (("rollback", "nope"), 4, "no instance 'nope'"),
        (("pin", "nope"), 4, "no instance 'nope'"),
        (("prune", "nope"), 4, "no instance 'nope'"),
        (("uninstall", "nope", "-f"), 4, "no instance 'nope'"),
        (("link", "x", "/nowhere"), 4, "no llama-server at /nowhere"),
        (("exec", "nope", "llama-bench"), 4, "no instance 'nope'"),
        (("instance", "frobnicate"), 2, "no `llamamgr instance frobnicate`"),
        (("link", "x", sys.executable), 9, "hint: name the folder of a llama.cpp's programs"),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_says_what(words, status, tells, own_home):
    done = llamamgr(*words)
    assert done.returncode == status and tells in done.stderr, done.stderr
    assert "hint: " in done.stderr and not (own_home / "data" / "instances" / "nope").exists()


def test_what_a_first_install_left_that_came_to_nothing_is_named_and_pruned(store):
    publish(store, "default", "b1")
    (store.root / "cc" / "logs").mkdir(parents=True)
    refused = llamamgr("uninstall", "cc", "-f")
    assert refused.returncode == 4 and "`llamamgr prune` removes" in refused.stderr
    assert "cc: what an install left" in good("prune")
    assert not (store.root / "cc").exists()
    assert llamamgr("uninstall", "cc", "-f").stderr.endswith("hint: there are: default\n")


def test_pruning_all_passes_over_what_is_being_built_and_names_each_source_that_goes(repository, store):
    url = repository.as_uri()
    publish(store, "default", "b1")
    good("install", "-i", "git", "--repo-url", url, "--arch", "cpu", "--pull-only")
    with store.changing("default"):
        done = llamamgr("prune")
        assert llamamgr("prune", "default").returncode == 5
    assert done.returncode == 0 and "default stays as it is: " in done.stderr
    assert f"the source {url} is removed" in done.stdout and " freed" in done.stdout


def test_the_command_that_builds_what_was_pulled_has_all_its_wishes(repository, own_home):
    words = ("install", "-i", "git", "--repo-url", repository.as_uri(), "--tag", "b101", "--arch", "cpu")
    assert good(*words, "--pull-only").splitlines()[-1] == f"build it: llamamgr {' '.join(words)}"


def test_the_table_tells_what_is_pinned_bad_and_fallen_back_to(store):
    for number in (1, 2):
        publish(store, "default", f"b{number}", created=number)
    publish(store, "other", "b1")
    switching.fall_back(store, "default", "b2", "crashed 3 times\nin its first minute")
    good("pin", "default")
    rows = good("instances").splitlines()
    assert "bad: crashed 3 times in its first minute" in rows[1]
    assert "fell back from b2: crashed 3 times in its first minute; pinned" in rows[2] and " * " in rows[2]
    assert rows[3].startswith("other")
    told = good("instance", "show", "default")
    assert "pinned      yes" in told and "fallback" in told
    assert "pinned, stays at" in good("update") and "default may be updated again" in good("unpin")
    assert "was not pinned" in good("unpin", "default")
    assert "default stays at its build" in good("pin") and "default may be" in good("unpin", "default")


def test_the_rule_that_chose_the_instance_is_told(store, own_home):
    for name in ("default", "flagged", "environment", "configured"):
        publish(store, name, "b1")
    assert "chosen by: the default" in good("instance", "show")
    good("use", "configured")
    assert (own_home / "config" / "config.toml").read_text() == 'instance = "configured"\n'
    assert "configured (chosen by: `instance` in config.toml)" in good("instance", "show")
    env = {"LLAMAMGR_INSTANCE": "environment"}
    assert "environment (chosen by: LLAMAMGR_INSTANCE" in good("instance", "show", **env)
    assert "flagged (chosen by: named" in good("instance", "show", "flagged", **env)
    assert "wins" in llamamgr("use", "default", **env).stderr


def test_an_install_obeys_the_rules_of_all_commands_but_lets_none_stand_in(store):
    publish(store, "old", "b1")
    plan = ("install", "--dry-run", "--arch", "cpu")
    assert "default (new)" in good(*plan)
    env = {"LLAMAMGR_INSTANCE": "mine"}
    assert "mine (new)" in good(*plan, **env)
    assert "other (new)" in good(*plan, "-i", "other", **env)
    assert "old (current build b1)" in good("install", "--update-only", "--dry-run")
    good("use", "old")
    assert "old (current build b1)" in good(*plan)


def test_an_instance_that_cannot_be_read_is_told_everywhere_and_can_be_removed(store, own_home):
    publish(store, "old", "b1")
    file = store.root / "old" / "instance.toml"
    file.write_text("x = [")
    listed = llamamgr("instances").stderr
    assert f"warning: {file}: " in listed and "`llamamgr uninstall old` removes it" in listed
    assert "no llama.cpp is installed" not in listed
    pruned = llamamgr("prune").stderr
    assert f"warning: {file}: " in pruned and "the sources stay" in pruned
    for words in (("install", "-i", "old", "--dry-run"), ("update", "old"), ("rollback", "old")):
        refused = llamamgr(*words)
        assert refused.returncode == 2 and "hint: " in refused.stderr, (words, refused)
    (own_home / "config").mkdir(exist_ok=True)
    (own_home / "config" / "config.toml").write_text("keep_alife = '5m'\n")
    removed = llamamgr("uninstall", "old", "-f")
    assert (removed.returncode, removed.stderr) == (0, "")


def test_a_linked_instance_is_not_told_to_be_built_again(foreign, store):
    good("link", "ext", str(foreign))
    told = good("install", "-i", "ext")
    assert f"it is linked to {foreign}/llama-server, which llamamgr does not build" in told
    assert "--reinstall" not in told
    assert "to do      nothing: " in good("install", "-i", "ext", "--dry-run")
    refused = llamamgr("install", "-i", "ext", "--reinstall")
    assert refused.returncode == 2 and "is linked to" in refused.stderr
    os.utime(foreign / "llama-server", (5, 5))
    assert "its programs were replaced; b" in good("update", "ext")


def test_removing_asks_on_a_terminal_and_wants_force_without_one(store):
    for name in ("default", "other"):
        publish(store, name, "b1")
    refused = llamamgr("uninstall", "other")
    assert refused.returncode == 2 and "say --force" in refused.stderr
    terminal = pexpect.spawn(
        sys.executable, ["-m", "llamamgr", "uninstall", "other"], cwd=str(ROOT), timeout=30
    )
    terminal.expect("Remove instance other with 1 build .*N]")
    terminal.sendline("n")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1 and (store.root / "other").is_dir()
    assert "other is removed" in good("uninstall", "other", "--force")
    assert [path.name for path in store.root.iterdir()] == ["default"]


@pytest.fixture
def with_a_tool(store) -> Path:
    """A build whose tool tells its arguments and what it sees of the environment."""
    root = Path(publish(store, "default", "b1").root)
    tool = root / "bin" / "llama-tell"
    tool.write_text(
        '#!/bin/sh\nfor word in "$@"; do echo "<$word>"; done\necho "model=$LLAMA_ARG_MODEL"\nexit 3\n'
    )
    tool.chmod(0o755)
    return tool


def test_a_tool_gets_its_arguments_as_they_are_and_nothing_leaks_in(with_a_tool):
    for words in (
        ("exec", "default", "llama-tell"),
        ("exec", "default", "tell"),
        ("exec", "default", "--", "llama-tell"),
        ("llama-tell",),
    ):
        done = llamamgr(*words, "--json", "-x", "a b", "--", "--help", LLAMA_ARG_MODEL="leak")
        assert done.returncode == 3
        assert done.stdout.split("\n")[:6] == ["<--json>", "<-x>", "<a b>", "<-->", "<--help>", "model="]


def test_a_tool_that_is_not_there_is_answered_with_those_that_are(with_a_tool):
    for words in (("exec", "default", "llama-nope"), ("llama-nope", "-x")):
        done = llamamgr(*words)
        assert done.returncode == 4 and "it has: llama-tell" in done.stderr
    assert "`llamamgr llama-tell …` runs that" in llamamgr("exec", "llama-tell", "-x").stderr
    assert good("exec", "default") == good("exec", "default", "--") == "llama-tell\n"


@pytest.fixture
def foreign(tmp_path) -> Path:
    """The bin folder of a llama.cpp that is no instance."""
    good(
        "install",
        "--source",
        f"dir:{FAKE_TREE}",
        "--arch",
        "cpu",
        f"--cmake-args='-DFAKE_ANSWER={selftest.ANSWER}'",
    )
    store = Store(Paths.of_environment())
    shutil.move(store.current("default").root, tmp_path / "opt")
    good("uninstall", "default", "-f")
    return tmp_path / "opt" / "bin"


def test_what_lies_on_path_is_used_for_a_run_and_may_be_linked(foreign, store):
    path = f"{foreign}:{os.environ['PATH']}"
    done = llamamgr("llama-server", "--version", PATH=path)
    assert (
        done.returncode == 0 and f"using {foreign}/llama-server" in done.stderr and "version: " in done.stderr
    )
    assert store.instances() == ((), ())
    assert "it lies where it lay" in good("link", "system", str(foreign))
    assert "linked" in good("instance", "show", "system")
    quiet = llamamgr("llama-server", "--version", PATH=path)
    assert quiet.returncode == 0 and "using" not in quiet.stderr


def test_a_server_of_path_is_told_by_what_shows_and_taken_by_all_that_run_one(foreign, tmp_path):
    path = f"{foreign}:{os.environ['PATH']}"
    assert f"llama.cpp not tested yet, {foreign}/llama-server of PATH" in good("version", PATH=path)
    assert llamamgr("llama-server", "--version", PATH=path).returncode == 0
    told = json.loads(good("version", "--json", PATH=path))["llama.cpp"]
    assert told.startswith("b") and f"{foreign}/llama-server of PATH" in told
    assert f"models run on {foreign}/llama-server" in llamamgr("instances", PATH=path).stderr
    for words in (("bench",), ("quantize",)):
        done = llamamgr(*words, PATH=path)
        assert "using" in done.stderr and "no llama.cpp is installed" not in done.stderr


def test_the_only_instance_is_the_one_that_every_command_means(store):
    for number in (1, 2):
        publish(store, "ext", f"b{number}", created=float(number))
    assert "instance ext" in good("version")
    assert "ext (chosen by: the only one that has a build, since 'default' has none)" in good(
        "instance", "show"
    )
    assert good("rollback").startswith("ext: ")
    good("pin", "ext")
    assert good("update", LLAMAMGR_INSTANCE="nix").startswith("ext: pinned")
    assert "there is no instance 'nix'" in llamamgr("instance", "show", "nix").stderr


def test_version_tells_why_it_cannot_name_the_build(store, own_home):
    assert "llama.cpp not installed (run `llamamgr install`)" in good("version", PATH=str(own_home))
    for name in ("one", "two"):
        publish(store, name, "b1")
    assert (
        "llama.cpp not known: there is no instance 'default'\nhint: there are: one, two; `llamamgr use NAME`"
        in good("version")
    )
    (own_home / "config").mkdir(exist_ok=True)
    (own_home / "config" / "config.toml").write_text("keep_alife = '5m'\n")
    told = json.loads(good("version", "--json"))
    assert told["llama.cpp"] is None and "keep_alife" in told["problem"]


def test_on_a_terminal_a_link_tells_what_is_done_and_nothing_else(foreign):
    words = ["-m", "llamamgr", "link", "system", str(foreign)]
    with pexpect.spawn(
        sys.executable, words, cwd=str(ROOT), timeout=60, dimensions=(30, 120), encoding="utf-8"
    ) as terminal:
        terminal.expect(pexpect.EOF)
        assert "verifying" in terminal.before
        assert "getting llama.cpp" not in terminal.before


def test_with_nothing_there_the_ways_are_printed_and_on_a_terminal_asked(tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    brew = tools / "brew"
    brew.write_text(f'#!/bin/sh\n[ "$1" = info ] || echo installed >> {tmp_path}/log\n')
    brew.chmod(0o755)
    done = llamamgr("llama-bench", PATH=str(tools))
    assert (
        done.returncode == 7 and "brew install llama.cpp" in done.stderr and "llamamgr install" in done.stderr
    )
    assert not (tmp_path / "log").exists()
    done = llamamgr("run", "selftest", "hello", PATH=str(tools))
    assert done.returncode == 7 and done.stderr.startswith(
        "error: no llama.cpp is installed"
    )  # and no daemon started
    monkeypatch.setenv("PATH", str(tools))
    terminal = pexpect.spawn(sys.executable, ["-m", "llamamgr", "llama-bench"], cwd=str(ROOT), timeout=30)
    terminal.expect("No llama.cpp is installed")
    terminal.expect(r"brew install llama\.cpp.*N]")
    terminal.sendline("y")
    terminal.expect("no llama.cpp is installed")  # that package brought no llama-server
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 7 and (tmp_path / "log").read_text() == "installed\n"
