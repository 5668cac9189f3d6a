"""An update of the instance ``default`` that kills itself outright when a step is done: ``python -m … STEP MODEL ANSWER``.

A step is one that ``install`` says it passed, or one that it reports to have begun. With the step ``none`` it runs to its end and
prints all of them.
"""

from __future__ import annotations

import os
import signal
import sys

from llamamgr.host.paths import Paths
from llamamgr.instances.build import Progress
from llamamgr.instances.install import install
from llamamgr.instances.verify import SelfTest
from llamamgr.instances.wishes import Wish


def main(deadly: str, model: str, answer: str) -> None:
    def passed(step: str) -> None:
        if deadly == "none":
            print(step)
        if step == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def report(progress: Progress) -> None:
        passed(f"begin {progress.step}")

    install(Wish(fresh=True), Paths.of_environment(), SelfTest(model, "?", answer), report, passed)


if __name__ == "__main__":
    main(*sys.argv[1:])
