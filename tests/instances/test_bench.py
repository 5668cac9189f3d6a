"""bench: figures of builds, and the history in which a regression is seen."""

import pytest

from llamamgr.core.errors import EngineError, MissingToolError, NotFoundError
from llamamgr.core.stages import Stage
from llamamgr.instances.bench import History, Subject, choose, measure
from tests.fakes import tool_build

SUBJECT = Subject("m", "/m.gguf")


@pytest.fixture
def build(tmp_path):
    return tool_build.make(tmp_path / "build", {"llama-bench": tool_build.BENCH}, number=7)


def test_each_test_gives_a_record_and_progress_counts_runs_inside_of_tests(build, monkeypatch):
    monkeypatch.setenv("FAKE_SPEEDS", "5000 70.5")
    stages: list[Stage] = []
    prompt, generation = measure(build, SUBJECT, stages.append)
    assert (prompt.test, prompt.speed, prompt.number) == ("pp512", 5000, 7)
    assert (generation.test, generation.speed, generation.settings) == ("tg128", 70.5, " 0 0, n_threads=2")
    assert [(stage.done, stage.total) for stage in stages if stage.total] == [(25, 200), (175, 200)]


def test_a_failure_is_told_in_the_tools_own_words(build):
    with pytest.raises(EngineError, match="invalid parameter for argument: --bogus"):
        measure(build, Subject("m", "/m.gguf", ("--bogus",)), print)


def test_a_build_without_the_tool_says_so(tmp_path):
    with pytest.raises(MissingToolError, match="has no llama-bench"):
        measure(tool_build.make(tmp_path / "bare", {}), SUBJECT, print)


def test_what_was_measured_is_remembered_for_each_instance(build, paths):
    records = measure(build, SUBJECT, print)
    history = History(paths)
    history.add(records)
    history.add(records)
    assert history.records(["default"]) == records * 2
    assert history.records(["other"]) == ()


def test_a_torn_line_costs_itself_only(build, paths):
    history = History(paths)
    first, second = measure(build, SUBJECT, print)
    history.add([first])
    file = paths.state / "bench" / "default.jsonl"
    file.write_bytes(file.read_bytes() + b'{"instance": "def')
    history.add([second])
    assert history.records(["default"]) == (first, second)


def test_the_history_is_bounded_and_the_oldest_goes_first(build, paths, monkeypatch):
    monkeypatch.setattr("llamamgr.instances.bench._KEPT", 3)
    history = History(paths)
    first, second = measure(build, SUBJECT, print)
    for _ in range(3):
        history.add([first])
    history.add([second])
    assert history.records(["default"]) == (first, first, second)


def test_a_build_is_chosen_by_id_or_number(run_install, store):
    made = run_install(cmake="-DFAKE_ANSWER='the right answer'").build
    for text in (f"default/{made.card.id}", f"default/b{made.card.number}"):
        assert choose(store, text) == made
    with pytest.raises(NotFoundError) as caught:
        choose(store, "default/b99999")
    assert made.card.id in caught.value.hint


@pytest.mark.real
def test_a_real_llama_bench_is_understood(real_build, tmp_path):
    from llamamgr.models import selftest

    subject = Subject("selftest", str(selftest.ensure(tmp_path)), ("-p", "32", "-n", "8", "-r", "3"))
    records = measure(real_build, subject, print)
    assert [record.test for record in records] == ["pp32", "tg8"]
    assert all(record.speed > 1 and len(record.samples) == 3 for record in records)
