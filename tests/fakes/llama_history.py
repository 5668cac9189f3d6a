"""A git repository of the fake llama.cpp with a history of our choosing: how fast a commit is, what fails, what does not build."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from tests.fakes.package_index import FAKE_TREE

# A llama-bench as far as it is read: --help, progress on stderr, a line of jsonl for each of -p and -n. A median of speed.
_BENCH = """
#include <cstdio>
#include <cstdlib>
#include <cstring>
int main(int argc, char ** argv) {
    int prompt = 512, generate = 128;
    for (int i = 1; i < argc; i++) {
        if (!std::strcmp(argv[i], "--help")) return std::printf("  --progress   print test progress indicators\\n") < 0;
        if (!std::strcmp(argv[i], "-p")) prompt = std::atoi(argv[i + 1]);
        if (!std::strcmp(argv[i], "-n")) generate = std::atoi(argv[i + 1]);
        if (!std::strcmp(argv[i], "--bogus")) return std::fprintf(stderr, "error: invalid parameter for argument: --bogus\\n"), 1;
    }
    for (int pass = 0; pass < 2; pass++) {
        int p = pass ? 0 : prompt, n = pass ? generate : 0;
        if (p + n == 0) continue;
        double s = SPEED * (pass ? 1.0 : 20.0);
        std::fprintf(stderr, "llama-bench: benchmark %d/2: %s run 1/3\\n", pass + 1, pass ? "generation" : "prompt");
        std::printf("{\\"n_prompt\\": %d, \\"n_gen\\": %d, \\"n_depth\\": 0, \\"avg_ts\\": %f, \\"stddev_ts\\": %f, "
                    "\\"samples_ts\\": [%f, %f, %f], \\"model_type\\": \\"fake\\", \\"n_threads\\": 2, \\"new_field\\": []}\\n",
                    p, n, s, s / 100, s * 0.99, s, s * 1.01);
    }
    FAULT
}
"""


class Step(msgspec.Struct, frozen=True):
    """One commit: llama-bench's ``speed``, llama-quantize's exit ``status``, and whether it ``builds``."""

    speed: float = 100.0
    status: int = 0
    builds: bool = True


def make(folder: Path, steps: list[Step]) -> Path:
    """The repository; its commits are tagged b1, b2 …"""
    shutil.copytree(FAKE_TREE, folder)
    lists = folder / "CMakeLists.txt"
    lists.write_text(lists.read_text() + "\nadd_executable(llama-bench bench.cpp)\n")
    (folder / "server.cpp").write_text(
        "int main() { return 0; }\n"
    )  # nobody asks it: the others compile in no time
    git(folder, "init", "--quiet", "--initial-branch=master")
    for number, step in enumerate(steps, start=1):
        fault = "" if step.builds else "undeclared();"
        (folder / "bench.cpp").write_text(_BENCH.replace("SPEED", str(step.speed)).replace("FAULT", fault))
        (folder / "tool.cpp").write_text(f"int main() {{ return {step.status}; }} // {number}\n")
        git(folder, "add", "--all")
        date = f"--date=2026-01-{number:02d}T00:00:00Z"
        git(folder, "commit", "--quiet", date, "-m", f"change number {number}")
        git(folder, "tag", f"b{number}")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """One git command as an author of no importance."""
    who = {
        f"GIT_{role}_{what}": text
        for role in ("AUTHOR", "COMMITTER")
        for what, text in (("NAME", "Ann"), ("EMAIL", "a@b"))
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={
            **os.environ,
            **who,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_COMMITTER_DATE": "2026-02-01T00:00:00Z",
        },
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()
