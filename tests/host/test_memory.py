"""What a process takes of main memory."""

from __future__ import annotations

import subprocess
import sys

import psutil

from llamamgr.host.memory import resident, unshared

MIB = 1024 * 1024
HOLD = """
import mmap, sys
file = open(sys.argv[1], "rb")
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(mapped[at] for at in range(0, len(mapped), 4096))
own = b"x" * (20 * 1024 * 1024)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_mapped_file_is_resident_but_would_be_free_anyway(tmp_path):
    (tmp_path / "file").write_bytes(b"w" * 64 * MIB)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "file")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert resident(process.pid) > 80 * MIB
        assert 20 * MIB < unshared(process.pid) < 60 * MIB
        process.communicate()
    assert resident(process.pid) == unshared(process.pid) == 0
    assert not psutil.pid_exists(process.pid)


def test_no_process_takes_nothing():
    assert unshared(0) == resident(0) == 0
