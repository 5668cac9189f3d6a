"""Reading a build's help, and writing an argv that it accepts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.flags import SPELLINGS, parse_help, write_argv

NEW = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)
-lm,   --load-mode MODE                 model loading mode (default: auto)
--jinja, --no-jinja                     whether to use jinja template engine for chat (default: enabled)
--draft, --draft-n, --draft-max N       the argument has been removed. use
                                        --spec-draft-n-max
-m,    --model FNAME                    model path to load
--no-ui, --no-webui                     disable the web UI

example usage:
  llama-server -m model.gguf
"""
OLD = """\
-m,    --model FNAME                    model path
-c,    --ctx-size N                     size of the prompt context
--mlock                                 force system to keep model in RAM
--no-mmap                               do not memory-map model
--no-webui                              Disable the Web UI
"""


def test_every_spelling_leads_to_the_first_long_one_and_removed_options_are_absent():
    flags = parse_help(NEW)
    assert flags["-c"] == flags["--ctx-size"] == "--ctx-size"
    assert flags["--no-jinja"] == "--jinja"
    assert "--draft" not in flags
    assert "--draft-max" not in flags
    assert "llama-server" not in flags


@pytest.mark.parametrize(("help_text", "said"), [(NEW, ["--load-mode", "none"]), (OLD, ["--no-mmap"])])
def test_a_setting_is_said_in_the_builds_own_spelling(help_text: str, said: list[str]):
    assert write_argv({"load_mode": "none"}, parse_help(help_text)) == (said, [])


def test_what_a_build_cannot_say_is_left_out_and_named():
    argv, unsaid = write_argv({"model": "/m", "offline": True, "cache_ram": 5}, parse_help(OLD))
    assert (argv, unsaid) == (["--model", "/m"], ["offline", "cache_ram"])


def test_false_and_empty_settings_are_left_out():
    assert write_argv({"offline": False, "projector": ""}, parse_help(NEW)) == ([], [])


@given(st.text())
def test_any_text_is_read_without_an_error(text: str):
    assert all(name.startswith("-") for name in parse_help(text))


@given(st.sets(st.sampled_from([s.option for spellings in SPELLINGS.values() for s in spellings])))
def test_an_argv_never_holds_an_option_that_the_build_does_not_know(known: set[str]):
    flags = {option: option for option in known} | {"--nothing": "--nothing"}
    settings = dict.fromkeys(SPELLINGS, "on")
    argv, _ = write_argv(settings, flags)
    assert {word for word in argv if word.startswith("-")} <= set(flags)
