"""Which instance is meant: flag, environment, model, config, default; in this order."""

import pytest

from llamamgr.core.errors import InvalidNameError
from llamamgr.instances.choice import chosen


@pytest.mark.parametrize(
    ("said", "name", "rule"),
    [
        (("flag", "env", "model", "config"), "flag", "command line"),
        (("", "env", "model", "config"), "env", "LLAMAMGR_INSTANCE"),
        (("", "", "model", "config"), "model", "model's own"),
        (("", "", "", "config"), "config", "config.toml"),
        (("", "", "", ""), "default", "default"),
    ],
)
def test_the_first_that_says_something_wins_and_is_named(said, name, rule):
    choice = chosen(*said)
    assert choice.name == name and rule in choice.rule


def test_only_what_was_not_said_of_the_command_or_model_itself_gives_way_to_the_only_instance():
    assert chosen().or_only("ext").name == chosen(configured="nix").or_only("ext").name == "ext"
    assert chosen("flag").or_only("ext").name == "flag"
    assert chosen(model="own").or_only("ext").name == "own"
    assert "'default' has none" in chosen().or_only("ext").rule


def test_what_cannot_be_a_name_is_refused():
    with pytest.raises(InvalidNameError):
        chosen("", "../x")


def test_a_wrong_name_is_told_with_where_it_was_said():
    with pytest.raises(InvalidNameError, match=r"'Bad Name' \(`instance` in config.toml\)"):
        chosen(configured="Bad Name")
