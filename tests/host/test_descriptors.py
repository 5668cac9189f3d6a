"""The limit of open files, of a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")

SCRIPT = """
import resource
from llamamgr.host.descriptors import allow_descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 400))
print(*[f"{allow_descriptors(wanted)} {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}" for wanted in (100, 300, 9999)])
"""


def test_the_limit_is_raised_as_far_as_it_may_and_never_lowered() -> None:
    told = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["200", "200", "300", "300", "400", "400"]
