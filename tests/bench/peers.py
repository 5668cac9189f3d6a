"""Findings about the peers and injected faults, as tables: each test is run now, and what it measured is printed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

import msgspec

_ROOT = Path(__file__).parent.parent
Test = tuple[str, str]


class Ran(msgspec.Struct, frozen=True):
    """One test with its parameters: of which function, on which engine ("" = none named), whether it passed, what it measured."""

    test: Test
    engine: str
    passed: bool
    measured: tuple[str, ...]


def run(tests: Iterable[Test]) -> list[Ran]:
    """Run tests, given as files under tests/ with names, in one pytest of their own."""
    wanted = sorted(set(tests))
    with tempfile.TemporaryDirectory(prefix="lmb-") as folder:
        report = Path(folder) / "report.xml"
        ids = [f"{_ROOT}/{path}::{name}" for path, name in wanted]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "-o",
            "junit_family=xunit1",
            f"--junitxml={report}",
            *ids,
        ]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=_ROOT.parent
        )
        ran = _read(report, wanted) if report.exists() else []
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
    return ran


def _read(report: Path, wanted: list[Test]) -> list[Ran]:
    by_module = {
        (f"tests/{path}".removesuffix(".py").replace("/", "."), name): (path, name) for path, name in wanted
    }
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        function, _, parameters = case.get("name", "").partition("[")
        test = by_module[case.get("classname", ""), function]
        if case.find("skipped") is None:
            engine = next(
                (word for word in parameters.rstrip("]").split("-") if word in ("fake", "real")), ""
            )
            passed = case.find("failure") is None and case.find("error") is None
            measured = tuple(str(one.get("value")) for one in case.iter("property"))
            found.append(Ran(test, engine, passed, measured))
    return found


def held(ran: Iterable[Ran]) -> str:
    """``held``, ``NOT HELD``, or a dash for nothing that ran."""
    outcomes = [one.passed for one in ran]
    return "-" if not outcomes else "held" if all(outcomes) else "NOT HELD"


def peers() -> bool:
    """Where the peers were seen to fail, each fault injected now: what they do, and what was measured here."""
    from tests.e2e.peers.findings import FINDINGS

    ran = run(test for finding in FINDINGS for test in finding.shown)
    kept = True
    for finding in FINDINGS:
        mine = [one for one in ran if one.test in finding.shown]
        real = [one for one in mine if one.engine == "real"]
        on_fake = held(one for one in mine if one.engine != "real")
        on_real = held(real) if real else f"fake only: {finding.fake_only}"
        kept = kept and set(finding.shown) <= {one.test for one in mine} and all(one.passed for one in mine)
        print(f"  {finding.name}\n    peer: {finding.peer}\n    here: {finding.here}")
        print(f"    fake {on_fake}, real {on_real}" if real else f"    {on_fake} ({on_real})")
        for one in mine:
            for measured in one.measured:
                print(f"      {one.engine or 'fake'}: {measured}")
    return kept


def faults() -> bool:
    """The faults that are injected in tests, each run now, on the fake and on a real llama-server: one line each."""
    from tests.supervise.test_faults import FAULTS
    from tests.supervise.test_faults_real import FAKE_ONLY, REAL

    ran = run([*FAULTS.values(), *REAL.values()])
    kept = True
    for fault, test in FAULTS.items():
        on_fake = held(one for one in ran if one.test == test)
        shown = REAL.get(fault)
        on_real = held(one for one in ran if one.test == shown and one.engine in ("", "real"))
        kept = (
            kept
            and on_fake == "held"
            and on_real in ("held", "-")
            and (on_real == "held") == (shown is not None)
        )
        print(f"  {fault:36} {on_fake:9} {on_real if shown else f'- ({FAKE_ONLY[fault]})'}")
    return kept
