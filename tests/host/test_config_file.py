"""One line of config.toml changes; the rest stays as it was written."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.errors import ConfigError
from llamamgr.host.config_file import _with_line, set_instance
from llamamgr.host.paths import Paths


@pytest.fixture
def paths() -> Paths:
    return Paths.of_environment()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'instance = "new"\n'),
        ('instance = "old"\n', 'instance = "new"\n'),
        ("  instance='old'   # mine\nkeep_alive = 5\n", '  instance="new"   # mine\nkeep_alive = 5\n'),
        ("# top\nkeep_alive = 5", '# top\nkeep_alive = 5\ninstance = "new"\n'),
        (
            '# top\n\n[server]\nhost = "127.0.0.1:1"\n',
            '# top\ninstance = "new"\n\n[server]\nhost = "127.0.0.1:1"\n',
        ),
        ('"instance" = "old"\n', '"instance" = "new"\n'),
        ('instance = "old"\r\nkeep_alive = 5\r\n', 'instance = "new"\r\nkeep_alive = 5\r\n'),
    ],
)
def test_only_the_one_line_changes(paths, before, after):
    paths.config.mkdir(parents=True)
    paths.config_file.write_bytes(before.encode())
    set_instance(paths, "new")
    assert paths.config_file.read_bytes().decode() == after


@pytest.mark.parametrize(
    "text",
    [
        'instance = """\nold"""\n',
        'models_dirs = [\n  "a",\n  "[b",\n]\ninstance = """old"""\n',
        "keep_alive = [",
        "unknown = 1\n",
    ],
)
def test_what_cannot_be_edited_so_is_left_alone(paths, text):
    paths.config.mkdir(parents=True)
    paths.config_file.write_text(text)
    with pytest.raises(ConfigError):
        set_instance(paths, "new")
    assert paths.config_file.read_text() == text


@given(
    st.lists(
        st.sampled_from(["# note", "", "keep_alive = 5", 'instance = "a"  # b', "[server]"]), unique=True
    )
)
def test_the_outcome_is_toml_with_one_instance_and_all_other_lines(lines):
    top = lines[: lines.index("[server]")] if "[server]" in lines else lines
    if any(line.startswith("instance") for line in lines[len(top) :]):
        return  # another table's key of the same name
    text = "\n".join(lines)
    edited = _with_line(text, "new")
    assert tomllib.loads(edited)["instance"] == "new"
    assert [line for line in edited.splitlines() if not line.startswith("instance")] == [
        line for line in text.splitlines() if not line.startswith("instance")
    ]


def test_a_link_is_followed_and_who_may_read_it_stays(paths, tmp_path):
    kept = tmp_path / "dotfiles" / "config.toml"
    kept.parent.mkdir()
    kept.write_text("# mine\n")
    kept.chmod(0o600)
    paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    paths.config_file.symlink_to(kept)
    set_instance(paths, "old")
    assert paths.config_file.is_symlink()
    assert kept.read_text() == '# mine\ninstance = "old"\n'
    assert kept.stat().st_mode & 0o777 == 0o600
