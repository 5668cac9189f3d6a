"""The table of findings is whole."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.e2e.peers.findings import FINDINGS, Finding

ROOT = Path(__file__).parents[2]


def functions_of(path: str) -> dict[str, set[str]]:
    """Name of each test in a file → its arguments."""
    body = ast.parse((ROOT / path).read_text()).body
    found = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name: {argument.arg for argument in node.args.args} for node in found}


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.name)
def test_every_finding_has_its_tests_and_says_why_where_no_real_engine_shows_it(finding: Finding):
    engines = set()
    for path, name in finding.shown:
        arguments = functions_of(path).get(name)
        assert arguments is not None, f"{path} has no {name}"
        engines |= arguments & {"engine", "stubborn"}
    assert engines or finding.fake_only


def test_every_test_beside_the_table_stands_in_it():
    shown = {test for finding in FINDINGS for test in finding.shown}
    for file in ("test_streams.py", "test_scheduling.py", "test_processes.py"):
        path = f"e2e/peers/{file}"
        missing = {(path, name) for name in functions_of(path) if name.startswith("test_")} - shown
        assert not missing
