"""The lines that tell why a program failed. The samples are what llama.cpp b11434 printed."""

from llamamgr.core.last_words import last_words, without_folders

WRONG_VALUE = """\
error while handling argument "--flash-attn": error: unknown value for --flash-attn: 'perhaps'


usage:
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
                                        (env: LLAMA_ARG_FLASH_ATTN)


to show complete usage, run with -h
""".splitlines()
SERVING = """\
0.00.049.046 I slot launch_slot_: id  3 | task 0 | processing task, is_child = 0
0.00.129.305 I slot      release: id  3 | task 0 | stop processing: n_tokens = 25, truncated = 0
""".splitlines()


def test_the_mistake_is_told_and_not_the_usage_that_follows_it():
    option = "--check-tensors      check model tensor data for invalid values (default: false)"
    assert last_words([*WRONG_VALUE, option], 6) == (WRONG_VALUE[0],)


def test_lines_that_speak_of_no_failure_are_the_last_resort_and_may_be_left_out():
    assert last_words(SERVING, 1) == (
        "slot      release: id  3 | task 0 | stop processing: n_tokens = 25, truncated = 0",
    )
    assert last_words(SERVING, 6, only_failures=True) == ()
    assert last_words([], 6) == ()


def test_a_line_that_the_engine_itself_marks_as_an_error_is_told_whatever_its_words():
    assert last_words(["0.00.000.001 I srv  fine", "0.00.000.002 E srv  oh dear", "bye"], 3) == (
        "srv  oh dear",
    )


def test_a_usage_text_alone_is_told_from_its_end():
    assert last_words(["usage: tool [options]", "", "  -h  help"], 1) == ("-h  help",)


def test_of_many_failures_the_first_and_the_last_are_told_and_each_once():
    output = [f"error {number}" for number in (0, 1, 0, 1, 2, 3, 4, 5)]
    assert last_words(output, 3) == ("error 0", "error 1", "error 5")
    assert last_words(output[:4], 3) == ("error 0", "error 1")


def test_a_line_without_end_is_cut():
    assert len(last_words(["error " + "x" * 9000], 1)[0]) < 300


def test_paths_are_cut_to_their_last_name_and_addresses_of_pages_stay():
    told = without_folders("failed to open '/home/ann/models/a b.gguf', see https://example.org/a/b (1/2)")
    assert told == "failed to open '…/a b.gguf', see https://example.org/a/b (1/2)"
    assert without_folders("listening on unix:///tmp/x/run/c2-1.sock") == "listening on …/c2-1.sock"
