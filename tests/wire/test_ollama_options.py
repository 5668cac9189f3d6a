"""Ollama's options: types, bounds, defaults, and which of them shape the load."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire.errors import DialectError
from llamamgr.wire.ollama import LoadWishes, parse_options, settle


def test_ollamas_defaults_are_sent_explicitly() -> None:
    assert settle({}, 2048) == {
        "n_keep": 4,
        "seed": -1,
        "n_predict": 20480,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repeat_last_n": 64,
        "temperature": 0.8,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


def test_sampling_load_and_unknown_options_are_told_apart() -> None:
    read = parse_options(
        {"num_predict": 5, "num_ctx": 512, "use_mmap": False, "mirostat": 1, "stop": ["a"], "seed": None}
    )
    assert read.sampling == {"n_predict": 5, "stop": ["a"]}
    assert read.load == LoadWishes(context=512, use_mmap=False)
    assert read.ignored == ("mirostat",)


def test_all_load_options_have_a_place() -> None:
    wishes = {"num_ctx": 1, "num_batch": 2, "num_gpu": 0, "main_gpu": 4, "num_thread": 5, "use_mmap": True}
    assert parse_options({**wishes, "draft_num_predict": 4}).load == LoadWishes(4, 0, 2, 5, 4, use_mmap=True)
    assert parse_options(dict.fromkeys(wishes, None)).load == LoadWishes()
    assert parse_options({"num_ctx": -1, "num_gpu": -7, "num_batch": -1}).load == LoadWishes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"temperature": True}, 'option "temperature" must be of type float32'),
        ({"top_k": "x"}, 'option "top_k" must be of type integer'),
        ({"num_ctx": [1]}, 'option "num_ctx" must be of type integer'),
        ({"num_gpu": False}, 'option "num_gpu" must be of type integer'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "x"}, 'option "stop" must be of type array'),
        ({"stop": [1]}, 'option "stop" must be of an array of strings'),
        ({"draft_num_predict": "x"}, 'option "draft_num_predict" must be of type integer'),
    ],
)
def test_a_wrong_type_is_refused_in_ollamas_words(options: dict[str, object], message: str) -> None:
    with pytest.raises(DialectError) as refused:
        parse_options(options)
    assert (refused.value.status, refused.value.message) == (400, message)


@pytest.mark.parametrize(
    ("wanted", "sent"), [(-1, 5120), (0, 5120), (-2, 5120), (3, 3), (5121, 5120), (10**12, 5120), (1.9, 1)]
)
def test_an_answer_is_bounded_by_ten_contexts(wanted: float, sent: int) -> None:
    assert settle(parse_options({"num_predict": wanted}).sampling, 512)["n_predict"] == sent


def test_values_that_the_engine_refuses_are_made_ones_that_it_takes() -> None:
    sampling = parse_options({"repeat_last_n": -1, "seed": 2**32 + 7, "top_k": 10**30}).sampling
    settled = settle(sampling, 512)
    assert (settled["repeat_last_n"], settled["seed"], settled["top_k"]) == (512, 7, 2**31 - 1)
    assert settle({"seed": -5}, 512)["seed"] == -1


@given(
    values=st.dictionaries(
        st.sampled_from(["num_predict", "seed", "top_k", "num_keep", "repeat_last_n"]),
        st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    ),
    context=st.integers(0, 2**40),
)
def test_every_integer_fits_the_engine(values: dict[str, object], context: int) -> None:
    settled = settle(parse_options(values).sampling, min(context, 2**31 - 1))
    for name in ("n_predict", "top_k", "n_keep", "repeat_last_n"):
        assert -(2**31) < settled[name] < 2**31  # type: ignore[operator]
    assert -1 <= settled["seed"] < 2**32  # type: ignore[operator]
