"""The trail of current builds: pushing, going back, and what survives a broken file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.instances.ledger import FILE, Event, Ledger, Mark, read_ledger, write_ledger


def ledger(*builds: str) -> Ledger:
    return Ledger(tuple(Event(build, "install", float(at)) for at, build in enumerate(builds)))


@pytest.mark.parametrize(
    ("moves", "trail"),
    [
        ("", ""),
        ("abc", "abc"),
        ("abcb", "ab"),  # gone back
        ("abcba", "a"),  # twice
        ("abcbd", "abd"),  # and on to something new
        ("abcbc", "abc"),  # and forth again
    ],
)
def test_going_back_cuts_the_trail_and_anything_else_lengthens_it(moves, trail):
    assert ledger(*moves).stack(moves[-1:]) == tuple(trail)


def test_what_is_current_on_disk_counts_even_when_it_was_not_written_down():
    assert ledger("a", "b").stack("c") == ("a", "b", "c")
    assert ledger("a", "b").stack("a") == ("a",)
    assert ledger("a").arrival("c") is None


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30))
def test_the_trail_never_names_a_build_twice_and_ends_with_the_current_one(moves):
    trail = ledger(*moves).stack(moves[-1])
    assert len(set(trail)) == len(trail) and trail[-1] == moves[-1]


def test_a_mark_is_kept_until_it_is_forgotten_and_the_newest_reason_counts():
    marked = Ledger().with_mark(Mark("a", "crashed", 1.0)).with_mark(Mark("a", "crashed again", 2.0))
    found = marked.mark("a")
    assert found is not None and found.reason == "crashed again" and len(marked.marks) == 1
    assert marked.forgetting(["a"]).mark("a") is None


def test_the_file_says_all_again_and_one_that_cannot_be_read_is_no_history(tmp_path):
    made = ledger("a", "b").with_mark(Mark("b", "line 1\nline 2", 3.5))
    write_ledger(tmp_path, made)
    assert read_ledger(tmp_path) == made
    for text in ("events = 5", "[[", "marks = [{}]"):
        (tmp_path / FILE).write_text(text)
        assert read_ledger(tmp_path) == Ledger()


def test_history_does_not_grow_for_ever():
    grown = Ledger()
    for number in range(500):
        grown = grown.with_event(Event(f"b{number}", "update", 0.0))
    assert len(grown.events) == 200 and grown.events[-1].build == "b499"
