"""The error tree and its published table."""

import re
from pathlib import Path

from llamamgr.core import errors
from llamamgr.core.errors import LlamamgrError


def every_error() -> list[type[LlamamgrError]]:
    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, LlamamgrError)
    ]
    assert len(found) > 10
    return found


def test_the_docstring_lists_every_error_with_its_exit_code_and_status():
    table = dict(re.findall(r"(\w+Error) +(\d+ +\d+)", errors.__doc__ or ""))
    for error in every_error():
        if error is not LlamamgrError:
            assert table[error.__name__].split() == [str(error.exit_code), str(error.status)]


def test_the_readme_explains_every_exit_code():
    readme = (Path(__file__).parent.parent.parent / "README.md").read_text()
    told = {int(code) for code in re.findall(r"\| (\d+) \|", readme)}
    assert {error.exit_code for error in every_error()} <= told


def test_a_hint_is_told_after_the_fact():
    assert str(LlamamgrError("it broke", "mend it")) == "it broke\nhint: mend it"
    assert str(LlamamgrError("it broke")) == "it broke"
