"""A slot that has come to a halt is told from one that is slow, reads, or stands still with all the others."""

from __future__ import annotations

from llamamgr.plan.progress import Progress, SlotSeen


def seen(*looks: tuple[float, dict[int, int]], task: int = 1) -> Progress:
    """Looks as (time, slot → tokens so far)."""
    progress = Progress()
    for now, slots in looks:
        progress.saw([SlotSeen(slot, task, decoded) for slot, decoded in slots.items()], now)
    return progress


def test_a_slot_that_gives_nothing_while_another_goes_on_is_stuck():
    progress = seen((1, {0: 5, 1: 5}), (2, {0: 10, 1: 10}), (31, {0: 10, 1: 100}))
    assert progress.stuck(31.9) == frozenset()
    assert progress.stuck(32) == {0}


def test_a_slot_that_moves_again_is_stuck_no_more():
    progress = seen((1, {0: 5, 1: 5}), (40, {0: 5, 1: 100}))
    assert progress.stuck(40) == {0}
    progress.saw([SlotSeen(0, 1, 6), SlotSeen(1, 1, 120)], 41)
    assert progress.stuck(41) == frozenset()


def test_slots_that_all_stand_still_are_not_told_apart():
    assert seen((1, {0: 5, 1: 5}), (500, {0: 5, 1: 5})).stuck(500) == frozenset()


def test_a_slot_alone_is_not_judged():
    assert seen((1, {0: 5}), (500, {0: 5})).stuck(500) == frozenset()


def test_a_slot_that_has_given_nothing_yet_may_be_reading():
    assert seen((1, {0: 0, 1: 5}), (500, {0: 0, 1: 900})).stuck(500) == frozenset()


def test_many_slow_others_are_not_one_that_goes_on():
    """On a slow model each step gives every slot one token: a hundred others have given a hundred, and none has gone ahead."""
    slots = dict.fromkeys(range(1, 101), 1)
    later = dict.fromkeys(slots, 2)
    assert seen((1, {0: 1} | slots), (41, {0: 1} | later)).stuck(41) == frozenset()


def test_a_slow_slot_is_given_fifty_of_its_own_intervals():
    looks = [(float(2 * n), {0: n, 1: 100 * n}) for n in range(1, 11)]  # a token in 2 s
    progress = seen(*looks, (119.0, {0: 10, 1: 5000}))
    assert progress.stuck(119) == frozenset()
    assert progress.stuck(120) == {0}


def test_a_new_request_on_a_slot_starts_afresh():
    progress = seen((1, {0: 5, 1: 5}))
    progress.saw([SlotSeen(0, 2, 1), SlotSeen(1, 1, 900)], 40)
    assert progress.stuck(60) == frozenset()


def test_what_a_finished_request_gave_counts_for_its_slot():
    progress = seen((1, {0: 5, 1: 40}))
    progress.saw([SlotSeen(0, 1, 5), SlotSeen(1, 2, 30)], 20)
    progress.saw([SlotSeen(0, 1, 5)], 25)
    progress.saw([SlotSeen(0, 1, 5), SlotSeen(1, 3, 30)], 40)
    assert progress.stuck(40) == {0}


def test_the_pace_is_that_of_one_answer():
    progress = seen((1, {0: 10, 1: 10}), (3, {0: 30, 1: 50}))
    assert progress.pace == 15.0
    progress.saw([SlotSeen(0, 1, 30), SlotSeen(1, 1, 50)], 4)
    assert progress.pace == 15.0
    progress.rest()
    assert progress.pace == 15.0


def test_after_a_rest_nothing_is_remembered_against_anybody():
    progress = seen((1, {0: 5, 1: 5}))
    progress.rest()
    progress.saw([SlotSeen(0, 1, 5), SlotSeen(1, 1, 900)], 100)
    assert progress.stuck(100) == frozenset()
    assert progress.pace == 0.0
