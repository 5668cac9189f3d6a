"""What llama-fit-params prints, from its own source and from runs of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.fit_params import HOST, Device, Options, parse_devices, parse_options

MIB = 1024 * 1024
LOG = "0.00.001.751 I llama_fit_params: printing estimated memory in MiB to stdout (device, model, context, compute) ...\n"
TABLE = "0.00.1 I common_memory_breakdown_print: |   - Host               |      7 =     1 +       0 +       5       |\n"


def test_the_memory_of_each_device_is_read_and_what_was_rounded_down_is_rounded_up():
    found = parse_devices(
        LOG + "CUDA0 4403 512 304 \nRPC0[10.0.0.2:50052] 100 0 7 \nHost 281 0 12 \n" + TABLE
    )
    assert found == {
        "CUDA0": Device(4404 * MIB, 513 * MIB, 305 * MIB),
        "RPC0[10.0.0.2:50052]": Device(101 * MIB, 0, 8 * MIB),
        "Host": Device(282 * MIB, 0, 13 * MIB),
    }
    assert found["CUDA0"].total == (4404 + 513 + 305) * MIB


def test_output_without_a_line_for_main_memory_tells_nothing():
    assert parse_devices(LOG + "CUDA0 1 2 3 \n") == {}
    assert parse_devices("error: invalid argument: --fit-print\n") == {}


def test_options_are_read_and_all_layers_are_a_large_number():
    assert parse_options(LOG + "-c 2048 -ngl -1\n") == Options(9999)
    split = '-c 4096 -ngl 28 -ts 14,14 -ot "blk\\.14\\.ffn_(up|down)_exps=CPU,blk\\.15\\.ffn_up=CUDA1"\n'
    assert parse_options(split) == Options(
        28, "14,14", "blk\\.14\\.ffn_(up|down)_exps=CPU,blk\\.15\\.ffn_up=CUDA1"
    )
    assert parse_options("-c 4096 -ngl 48 -ot blk\\.1\\.ffn=CPU\n") == Options(48, "", "blk\\.1\\.ffn=CPU")


def test_options_of_an_unknown_kind_are_not_passed_on():
    assert parse_options("-c 4096 -ngl 3 --host 0.0.0.0\n") is None
    assert parse_options('-c 4096 -ngl 3 -ot "a=CPU" --host 0.0.0.0\n') is None


LINES = st.lists(
    st.sampled_from(
        [
            "CUDA0 4403 512 304 ",
            "Host 281 0 12",
            "Host 281 0",
            "Host 9999999999 0 0",
            "Vulkan0 1 2 3",
            "-c 4096 -ngl 28 -ts 14,14",
            "-c 4096 -ngl -1",
            '-c 4096 -ngl 3 -ot "a=CPU"',
            "-c 4096 -ngl 3 --host 0.0.0.0",
        ]
    )
    | st.text(max_size=20)
).map("\n".join)


@given(LINES)
def test_any_text_gives_whole_tables_and_options_that_can_be_passed_or_nothing(text: str):
    found = parse_devices(text)
    assert not found or HOST in found
    for device in found.values():
        assert all(size >= 0 and size % MIB == 0 for size in (device.weights, device.context, device.compute))
    options = parse_options(text)
    if options is not None:
        assert options.layers >= 0
        assert set(options.split) <= set("0123456789,.")
        assert not set(options.overrides) & set('" \n')
