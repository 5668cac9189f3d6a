"""The soak test, as long as it is wanted, with its report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent


def soak(seconds: float) -> bool:
    """Three models in the room of two, eight clients, a fault every two seconds (--seconds): a report; nothing may get lost."""
    test = str(_ROOT / "tests" / "e2e" / "test_soak.py")
    command = [sys.executable, "-m", "pytest", "-q", "-s", "--tb=short", test]
    with subprocess.Popen(command, env={**os.environ, "SOAK_SECONDS": str(seconds)}, cwd=_ROOT) as process:
        try:
            return process.wait() == 0
        except KeyboardInterrupt:
            process.send_signal(
                signal.SIGINT
            )  # it has a daemon to stop, which takes longer than Popen gives it
            process.wait()
            raise
