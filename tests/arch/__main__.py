"""``python -m tests.arch`` writes the expected plans anew; look at the difference before you keep it."""

import os
import tempfile
from pathlib import Path

from tests.arch.machines import MACHINES, fake_machine
from tests.arch.test_plans import EXPECTED, plan_text

for arch in MACHINES:
    with tempfile.TemporaryDirectory() as folder:
        machine = fake_machine(arch, Path(folder) / "root")
        os.environ.clear()
        os.environ.update(machine.environment)
        (EXPECTED / f"{arch}.txt").write_text(plan_text(arch, machine), "utf-8")
