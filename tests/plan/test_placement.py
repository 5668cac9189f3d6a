"""Where a child may live."""

from llamamgr.plan.events import HOST
from llamamgr.plan.memory import MIB, Shape
from llamamgr.plan.placement import placements

GIB = 1024 * MIB
SHAPE = Shape(4096, 4, 512, 10 * GIB)


def test_without_gpus_all_of_it_is_in_main_memory():
    [only] = placements(SHAPE, {})
    assert only.need == {HOST: SHAPE.need}
    assert only.devices == ()


def test_one_gpu_that_holds_it_comes_before_a_split_and_the_emptiest_first():
    found = placements(SHAPE, {"CUDA0": 8 * GIB, "CUDA1": 24 * GIB})
    assert [place.devices for place in found[:3]] == [("CUDA1",), ("CUDA0",), ("CUDA0", "CUDA1")]
    assert found[0].need["CUDA1"] > 9 * GIB
    assert found[0].need[HOST] < 2 * GIB


def test_a_split_is_in_proportion_to_what_the_gpus_hold():
    split = placements(SHAPE, {"CUDA0": 8 * GIB, "CUDA1": 24 * GIB})[2]
    assert split.need["CUDA1"] > 2 * split.need["CUDA0"]
    assert split.need["CUDA0"] + split.need["CUDA1"] > 9 * GIB


def test_what_no_gpu_holds_overflows_into_main_memory_and_last_comes_main_memory_alone():
    *_, overflowing, alone = placements(SHAPE, {"CUDA0": 4 * GIB})
    assert overflowing.need["CUDA0"] == 4 * GIB
    assert overflowing.need[HOST] > 5 * GIB
    assert alone.devices == ()
    assert alone.need[HOST] >= SHAPE.need


def test_a_request_for_no_offload_is_kept_off_the_gpus():
    assert placements(SHAPE, {"CUDA0": 24 * GIB}, on_gpu=False)[0].need == {HOST: SHAPE.need}
