"""What a process gives back of its memory."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

MB = 1_000_000
# a picture comes and goes, then one that is smaller, above which something small lives on
SCRIPT = """
import os, sys
from llamamgr.host import memory
if sys.argv[1] == "settled":
    memory.give_back_what_is_freed()
def resident():
    return memory.resident(os.getpid())
before = resident()
pins = []
for size in (20_000_000, 15_000_000):
    picture = b"x" * size
    pins += [bytes(5000) for _ in range(100)]
    del picture
if sys.argv[1] == "trimmed":
    memory.trim()
print(resident() - before)
"""


def grown(how: str) -> int:
    """Bytes by which a process is larger after it held pictures."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library"
)
def test_freed_pictures_leave_the_process():
    assert grown("as it is") > 10 * MB  # or there is nothing to do
    assert grown("settled") < 4 * MB
    assert grown("trimmed") < 4 * MB
