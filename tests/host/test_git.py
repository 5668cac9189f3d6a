"""git: mirrors whole or not at all, commits counted truly, every failure told."""

import base64
import contextlib
import functools
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llamamgr.core.errors import NotFoundError, SourceUnreachableError
from llamamgr.host import git

IDENTITY = {
    f"GIT_{who}_{what}": "x@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


@pytest.fixture(autouse=True)
def plain_git(monkeypatch):
    for key, value in {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        **IDENTITY,
    }.items():
        monkeypatch.setenv(key, value)


def command(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", folder, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, text: str) -> str:
    (folder / "file").write_text(text)
    command(folder, "add", "file")
    command(folder, "commit", "-m", text)
    return command(folder, "rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """Three commits on master, the second tagged b2, a branch side of one more."""
    folder = tmp_path / "origin"
    subprocess.run(["git", "init", "-q", "-b", "master", folder], check=True)
    commit(folder, "one")
    commit(folder, "two")
    command(folder, "tag", "b2")
    command(folder, "checkout", "-q", "-b", "side")
    commit(folder, "side")
    command(folder, "checkout", "-q", "master")
    commit(folder, "three")
    return folder


@pytest.fixture
def mirror(origin: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "mirrors" / "m.git"
    git.update_mirror(f"file://{origin}", folder)
    return folder


def test_a_commit_has_its_true_number(mirror, origin):
    head = git.find_commit(mirror)
    assert head.number == 3 and head.hash == command(origin, "rev-parse", "master")
    assert head.hash.startswith(head.short)


def test_tags_branches_and_hashes_name_commits(mirror, origin):
    assert git.find_commit(mirror, "b2").number == 2
    assert git.find_commit(mirror, "side").hash == command(origin, "rev-parse", "side")
    assert git.find_commit(mirror, command(origin, "rev-parse", "--short", "b2")).number == 2


@pytest.mark.parametrize("ref", ["b9999", "--all", "deadbeef"])
def test_a_ref_that_names_nothing_is_named(mirror, ref):
    with pytest.raises(NotFoundError, match=ref):
        git.find_commit(mirror, ref)


def test_a_clone_tells_how_far_it_is_once_it_takes_long(origin, tmp_path, monkeypatch):
    for patience, tells in ((60.0, False), (0.0, True)):
        monkeypatch.setattr(git, "_PATIENCE", patience)
        lines: list[str] = []
        git.update_mirror(f"file://{origin}", tmp_path / f"{tells}.git", lines.append)
        counts = [count for line in lines if (count := git.received(line)) != (0, 0)]
        assert bool(counts) is tells and all(done <= total for done, total in counts)
        assert not any("\r" in line for line in lines)
    assert counts[-1][0] == counts[-1][1] > 0


@pytest.mark.parametrize(
    ("ref", "told", "there"),
    [
        ("refs/tags/b9", "no tag 'b9'", "its newest tags: b2"),
        ("refs/heads/b9", "no branch 'b9'", "branches: "),
        ("b9", "no tag, branch or commit 'b9'", "its newest tags: b2"),
    ],
)
def test_what_a_repository_has_not_is_named_as_it_was_asked_for_and_beside_it_what_there_is(
    mirror, origin, ref, told, there
):
    with pytest.raises(NotFoundError) as failed:
        git.find_commit(mirror, ref)
    assert failed.value.what == f"file://{origin} has {told}" and there in failed.value.hint


def test_updating_brings_new_commits_tags_and_moved_branches(mirror, origin):
    commit(origin, "four")
    command(origin, "tag", "b4")
    command(origin, "tag", "-f", "b2", "master")
    command(origin, "branch", "-D", "side")
    git.update_mirror(f"file://{origin}", mirror)
    assert (
        git.find_commit(mirror).number
        == 4
        == git.find_commit(mirror, "b4").number
        == git.find_commit(mirror, "b2").number
    )
    with pytest.raises(NotFoundError):
        git.find_commit(mirror, "side")


def test_the_mirror_follows_a_renamed_default_branch(mirror, origin):
    command(origin, "branch", "-m", "master", "main")
    commit(origin, "four")
    git.update_mirror(f"file://{origin}", mirror)
    assert git.find_commit(mirror).number == 4


def test_a_work_tree_is_the_commit_and_can_be_made_again_after_it_is_deleted(mirror, origin, tmp_path):
    found = git.find_commit(mirror, "b2")
    for folder in (tmp_path / "a", tmp_path / "b"):
        git.add_worktree(mirror, found.hash, folder, f"file://{origin}")
        assert (folder / "file").read_text() == "two"
        subprocess.run(["rm", "-r", folder], check=True)
    git.add_worktree(mirror, found.hash, tmp_path / "a", f"file://{origin}")
    assert git.describe(tmp_path / "a") == found


def test_a_server_that_can_leave_out_file_contents_is_asked_to_and_they_come_with_the_work_tree(
    origin, tmp_path
):
    command(origin, "config", "uploadpack.allowFilter", "true")
    command(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    mirror, url = tmp_path / "m.git", f"file://{origin}"
    git.update_mirror(url, mirror)
    blob = command(origin, "rev-parse", "b2:file")
    assert f"?{blob}" in command(mirror, "rev-list", "--objects", "--missing=print", "b2").splitlines()
    git.add_worktree(mirror, git.find_commit(mirror, "b2").hash, tmp_path / "tree", url)
    assert (tmp_path / "tree" / "file").read_text() == "two"
    commit(origin, "four")
    git.update_mirror(url, mirror)
    assert git.find_commit(mirror).number == 4


def test_an_unreachable_repository_leaves_no_half_mirror(tmp_path):
    folder = tmp_path / "mirrors" / "m.git"
    with pytest.raises(SourceUnreachableError, match="nowhere") as caught:
        git.update_mirror(f"file://{tmp_path}/nowhere", folder)
    assert "check the network and the URL" in caught.value.hint
    assert not folder.exists()


def test_a_clone_that_breaks_off_leaves_nothing_and_the_leftovers_of_a_dead_one_go(origin, tmp_path):
    folder = tmp_path / "mirrors" / "m.git"
    left = folder.with_name("m.git.partial-1")
    left.mkdir(parents=True)
    packs = list((origin / ".git" / "objects").glob("??/*"))
    for path in packs:
        path.chmod(0o644)
        path.write_bytes(b"broken")
    with pytest.raises(SourceUnreachableError):
        git._clone(f"file://{origin}", folder, lambda line: None)
    assert list(folder.parent.iterdir()) == []


def test_a_server_that_does_not_answer_in_time_counts_as_unreachable(monkeypatch, tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec sleep 60\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    with pytest.raises(SourceUnreachableError, match="no answer within"):
        git.head_branch("ssh://example.invalid/x", timeout=0.5)


def test_remote_helpers_that_run_commands_are_refused(tmp_path):
    with pytest.raises(SourceUnreachableError):
        git.head_branch(f"ext::sh -c 'touch {tmp_path}/pwned'")
    assert not (tmp_path / "pwned").exists()


def test_a_folder_with_changes_says_so_and_one_without_git_says_nothing(origin, tmp_path):
    clean = git.describe(origin)
    assert clean is not None and clean.number == 3
    (origin / "file").write_text("changed")
    changed = git.describe(origin)
    assert changed is not None and changed.short == f"{clean.short}-dirty"
    assert git.describe(tmp_path) is None
    inner = origin / "inner"
    inner.mkdir()
    assert git.describe(inner) is None  # a folder inside somebody's repository is not that repository


def test_a_shallow_clone_takes_its_number_from_a_build_tag_or_admits_not_to_know_it(origin, tmp_path):
    command(origin, "tag", "b1234", "master")
    for tags, number in (("--no-tags", 0), ("--tags", 1234)):
        folder = tmp_path / f"shallow{tags}"
        subprocess.run(
            ["git", "clone", "-q", "--depth=1", "--no-tags", f"file://{origin}", folder], check=True
        )
        if tags == "--tags":
            command(folder, "fetch", "-q", "--depth=1", "origin", "tag", "b1234")
        found = git.describe(folder)
        assert found is not None and found.number == number


def test_where_history_is_cut_short_the_nearest_tag_below_gives_the_number(origin, tmp_path):
    command(origin, "tag", "b11393", "b2")
    for ref, number in (("b2", 11393), ("master", 11394), ("side", 11394)):
        folder = tmp_path / f"m-{ref}.git"
        git.update_mirror(f"file://{origin}", folder)
        assert git.find_commit(folder, ref).number == number


def test_a_fork_that_went_on_from_a_tag_is_counted_as_its_own_build_counts(origin, tmp_path):
    for n in range(3):
        commit(origin, f"more {n}")
    git.update_mirror(f"file://{origin}", tmp_path / "m.git")
    assert git.find_commit(tmp_path / "m.git").number == 6


def test_git_of_a_surrounding_hook_is_not_obeyed(mirror, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert git.find_commit(mirror).number == 3


def test_what_somebody_logs_in_with_is_told_to_nobody(tmp_path):
    lines: list[str] = []
    with pytest.raises(SourceUnreachableError) as caught:
        git.update_mirror("http://me:secret@127.0.0.1:9/llama.cpp", tmp_path / "m.git", lines.append)
    told = f"{caught.value.what} {caught.value.hint} {lines}"
    assert "secret" not in told
    assert "http://127.0.0.1:9/llama.cpp" in told


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://token@host/a.git", "https://host/a.git"),
        ("ssh://git@host:22/a", "ssh://host:22/a"),
        ("git@host:a/b", "git@host:a/b"),
        ("/home/me@work/llama.cpp", "/home/me@work/llama.cpp"),
        ("file:///home/me@work/llama.cpp", "file:///home/me@work/llama.cpp"),
    ],
)
def test_an_address_is_shown_without_the_login(url, shown):
    assert git.without_login(url) == shown


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *said: object) -> None:
        """Nothing, to nobody."""


class _Guarded(_Quiet):
    """For one who logs in only."""

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        if given == f"Basic {base64.b64encode(b'to@ken:s:cret').decode()}":
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="llamas"')
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def guarded(origin: Path) -> Iterator[str]:
    """Of the repository, for one who logs in."""
    with _served(origin, _Guarded) as address:
        yield address


@pytest.fixture
def address(origin: Path) -> Iterator[str]:
    """Of the repository; git logs in there as nobody asked it to."""
    with _served(origin, _Quiet) as address:
        yield address


@contextlib.contextmanager
def _served(origin: Path, kind: type[_Quiet]) -> Iterator[str]:
    """As plain files on loopback."""
    command(origin, "update-server-info")
    handler = functools.partial(kind, directory=str(origin / ".git"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("login", "mode"), [("token:secret@", 0o700), ("", 0o755)])
def test_a_mirror_whose_address_has_a_login_is_for_its_owner_alone(address, tmp_path, login, mode):
    mirror = tmp_path / "mirrors" / "m.git"
    git.update_mirror(f"http://{login}{address}", mirror)
    assert git.find_commit(mirror).number == 3
    assert f"url = http://{address}" in (mirror / "config").read_text()
    assert mirror.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("is_old", [False, True])
def test_git_logs_in_where_it_must_and_no_command_line_tells_with_what(
    guarded, tmp_path, monkeypatch, is_old
):
    mirror, words, kept = tmp_path / "m.git", tmp_path / "words", tmp_path / "credentials"
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "credential.helper")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"store --file={kept}")
    url = f"http://to%40ken:s%3Acret@{guarded}"
    git.update_mirror(url, mirror)
    if is_old:  # as versions before this one made them
        command(mirror, "remote", "set-url", "origin", url)
    monkeypatch.setenv("GIT_TRACE", str(words))
    git.update_mirror(url, mirror)
    git.add_worktree(mirror, git.find_commit(mirror).hash, tmp_path / "tree", url)
    assert (tmp_path / "tree" / "file").is_file()
    said = words.read_text()
    assert f"git remote-http origin http://{guarded}" in said
    assert "cret" not in said + (mirror / "config").read_text()
    assert not kept.exists(), "nor does it go where the user keeps such"


def test_a_wrong_login_is_an_error_and_no_question(guarded, tmp_path):
    with pytest.raises(SourceUnreachableError) as caught:
        git.update_mirror(f"http://token:wrong@{guarded}", tmp_path / "m.git")
    assert "wrong" not in str(caught.value)


def test_what_is_no_mirror_any_more_is_made_anew(origin, tmp_path):
    mirror = tmp_path / "m.git"
    git.update_mirror(f"file://{origin}", mirror)
    (mirror / "HEAD").unlink()
    git.update_mirror(f"file://{origin}", mirror)
    assert git.find_commit(mirror).number == 3
