"""Where a child may live."""

from llamamgr.plan.events import HOST, Placement
from llamamgr.plan.memory import MIB, Shape
from llamamgr.plan.placement import HOST_SIDE, PER_PROCESS, Known, best_tier, is_open, placements, shares
from llamamgr.plan.state import Room

GIB = 1024 * MIB
SHAPE = Shape(4096, 4, 512, 10 * GIB)
TWO = {"CUDA0": 8 * GIB, "CUDA1": 24 * GIB}


def test_without_gpus_all_of_it_is_in_main_memory():
    [only] = placements(SHAPE, {})
    assert only.need == {HOST: SHAPE.need}
    assert (only.devices, only.tier) == ((), "gpu")


def test_one_gpu_that_holds_it_comes_before_a_split_and_the_emptiest_first():
    found = placements(SHAPE, TWO)
    assert [place.devices for place in found[:3]] == [("CUDA1",), ("CUDA0",), ("CUDA0", "CUDA1")]
    assert found[0].need["CUDA1"] > 9 * GIB
    assert found[0].need[HOST] < 2 * GIB


def test_the_gpu_that_is_emptiest_now_comes_first():
    found = placements(
        SHAPE, {"CUDA0": 24 * GIB, "CUDA1": 24 * GIB}, left={"CUDA0": 9 * GIB, "CUDA1": 24 * GIB}
    )
    assert found[0].devices == ("CUDA1",)


def test_a_split_is_in_proportion_to_what_the_gpus_hold():
    split = placements(SHAPE, TWO)[2]
    assert split.need["CUDA1"] > 2 * split.need["CUDA0"]
    assert split.need["CUDA0"] + split.need["CUDA1"] > 9 * GIB
    first, second = (int(share) for share in shares(split).split(","))
    assert abs(second / first - 3) < 0.01


def test_a_split_over_what_is_left_now_is_tried_as_well():
    wide = {"CUDA0": 10 * GIB, "CUDA1": 10 * GIB}
    found = placements(SHAPE, wide, left={"CUDA0": 2 * GIB, "CUDA1": 10 * GIB})
    splits = [place for place in found if len(place.devices) == 2 and place.tier == "gpu"]
    assert [place.need["CUDA0"] < 3 * GIB for place in splits] == [False, True]


def test_what_no_gpu_holds_overflows_into_main_memory_and_last_comes_main_memory_alone():
    *_, overflowing, alone = placements(SHAPE, {"CUDA0": 4 * GIB})
    assert (overflowing.tier, alone.tier) == ("partly", "host")
    assert overflowing.need["CUDA0"] == 4 * GIB
    assert overflowing.need[HOST] > 5 * GIB
    assert alone.devices == ()
    assert alone.need[HOST] >= SHAPE.need


def test_a_request_for_no_offload_is_kept_off_the_gpus():
    [only] = placements(SHAPE, {"CUDA0": 24 * GIB}, on_gpu=False)
    assert (only.need, only.tier) == ({HOST: SHAPE.need}, "host")


def test_what_was_measured_takes_the_place_of_the_estimate_on_one_gpu_and_on_the_same_two():
    known = Known({"CUDA0": 2 * GIB, "CUDA1": 3 * GIB, HOST: GIB}, alone=4 * GIB)
    one, _, both, *_, alone = placements(SHAPE, TWO, known=known)
    assert one.need == {"CUDA1": 5 * GIB - PER_PROCESS, HOST: GIB + 512 * MIB}
    assert both.need == {"CUDA0": 2 * GIB, "CUDA1": 3 * GIB, HOST: GIB + 512 * MIB}
    assert alone.need == {HOST: 4 * GIB + 512 * MIB + HOST_SIDE}


def test_the_engines_own_way_to_spread_a_model_takes_the_place_of_a_guess():
    own = Placement({"CUDA0": GIB, HOST: GIB}, ("CUDA0",), "partly")
    assert own in placements(SHAPE, {"CUDA0": 4 * GIB}, known=Known(partly=own))


def test_only_the_best_tier_that_could_ever_fit_counts():
    found = placements(SHAPE, TWO)
    assert {place.tier for place in best_tier(found, Room({**TWO, HOST: 64 * GIB}))} == {"gpu"}
    assert best_tier(found, Room({**TWO, HOST: 64 * GIB}))[0].devices == ("CUDA1",)
    small = Room({"CUDA0": GIB, "CUDA1": GIB, HOST: 64 * GIB})
    assert {place.tier for place in best_tier(found, small)} == {"host"}
    assert best_tier(found, Room({})) == list(found)


def test_a_better_figure_is_wanted_where_it_may_change_what_fits():
    assert not is_open(5 * GIB, [24 * GIB])
    assert is_open(5 * GIB, [6 * GIB, 24 * GIB])
    assert is_open(20 * GIB, [24 * GIB])
    assert is_open(100 * GIB, [24 * GIB])
