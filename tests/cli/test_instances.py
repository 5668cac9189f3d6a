"""``llamamgr instances``: a table for people, a document for programs."""

import json

import pytest

from llamamgr.cli import instances as command
from llamamgr.core.cards import BuildCard, Capability, InstanceSpec, Source
from llamamgr.host.paths import Paths
from llamamgr.instances.store import Store


@pytest.fixture
def two_builds(monkeypatch):
    store = Store(Paths.of_environment())
    source = Source("git", "https://example.com/x")
    for number, commit in ((6000, "aaa1111"), (6001, "bbb2222")):
        with store.changing("default") as workshop:
            made = workshop.scratch / "made"
            made.mkdir()
            card = BuildCard(
                f"b{number}", "default", "cuda", number, commit, source, created=1000.0 + number, size=24_369_129, verified=True,
                capability=Capability("version: x", number, commit, (), {"-m": "--model"}),
            )  # fmt: skip
            workshop.publish(InstanceSpec("default", "cuda", source), card, made)
    monkeypatch.setattr(command.time, "time", lambda: 7001.0 + 3 * 3600)
    return store


def test_the_table_tells_each_build_and_marks_the_current_one(two_builds, capsys):
    command.instances(as_json=False)
    head, newest, older = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "ARCH", "BUILD", "COMMIT", "SIZE", "AGE", "VERIFIED", "CURRENT", "NOTE"]
    assert newest.split() == ["default", "cuda", "b6001", "bbb2222", "24", "MB", "3", "hours", "yes", "*"]
    assert older.split() == ["default", "cuda", "b6000", "aaa1111", "24", "MB", "3", "hours", "yes"]


def test_the_document_has_everything_but_the_long_list_of_options(two_builds, capsys):
    (two_builds.root / "stranger").write_text("")
    command.instances(as_json=True)
    document = json.loads(capsys.readouterr().out)
    (instance,) = document["instances"]
    assert instance["current"] == "b6001" and instance["source"]["location"] == "https://example.com/x"
    assert [(build["id"], build["current"]) for build in instance["builds"]] == [
        ("b6001", True),
        ("b6000", False),
    ]
    assert "flags" not in instance["builds"][0]["capability"] and instance["builds"][0]["root"].endswith(
        "builds/b6001"
    )
    assert "stranger" in document["warnings"][0]


def test_nothing_installed_is_said_with_the_next_step_and_is_no_failure(capsys):
    command.instances(as_json=False)
    assert "run `llamamgr install`" in capsys.readouterr().err


def test_an_instance_whose_builds_are_gone_still_shows(two_builds, capsys):
    import shutil

    shutil.rmtree(two_builds.root / "default" / "builds")
    command.instances(as_json=False)
    assert capsys.readouterr().out.splitlines()[1].split() == ["default", "cuda", *["-"] * 7]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 seconds"),
        (1.5, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (7200, "2 hours"),
        (86400, "1 day"),
        (86400 * 800, "2 years"),
    ],
)
def test_ages_are_round(seconds, text):
    assert command.age(seconds) == text
