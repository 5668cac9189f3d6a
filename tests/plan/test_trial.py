"""A build on trial."""

from llamamgr.plan.trial import Rules, Trials


def trial(**rules: float) -> Trials:
    trials = Trials(Rules(**{"crashes": 3, "period": 100, **rules}))  # type: ignore[arg-type]
    trials.started("new", 0)
    return trials


def test_enough_crashes_in_the_first_minutes_send_the_build_back():
    trials = trial()
    assert [trials.crashed("new", "m", at, "old") for at in (1, 2, 3)] == [False, False, True]


def test_without_a_former_build_there_is_nothing_to_go_back_to():
    trials = trial()
    assert not any(trials.crashed("new", "m", at, "") for at in range(10))


def test_crashes_after_its_first_minutes_are_not_the_updates_fault():
    trials = trial()
    assert not any(trials.crashed("new", "m", 101 + at, "old") for at in range(10))


def test_a_model_that_crashed_the_former_build_too_is_not_counted():
    trials = trial()
    trials.crashed("old", "broken", 0, "")
    assert not any(trials.crashed("new", "broken", at, "old") for at in range(1, 10))
    assert [trials.crashed("new", "good", at, "old") for at in (10, 11, 12)] == [False, False, True]


def test_a_build_that_was_given_up_starts_anew():
    trials = trial(crashes=1)
    assert trials.crashed("new", "m", 1, "old")
    trials.forget("new")
    trials.started("new", 500)
    assert trials.crashed("new", "m", 501, "old")
