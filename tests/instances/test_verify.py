"""Verification: what a build says of itself is written down, and a wrong answer is never let through."""

import msgspec
import pytest

from llamamgr.core.cards import Source
from llamamgr.core.errors import VerifyFailedError
from llamamgr.core.recipe import Recipe
from llamamgr.instances import verify
from llamamgr.instances.build import Log, Order, build
from llamamgr.instances.sources import Tree
from llamamgr.instances.tools import build_tools
from llamamgr.instances.verify import parse_devices, probe, self_test

CPU = Recipe("cpu", "CPU", 0)
CUDA = Recipe("cuda", "NVIDIA CUDA", 1, verify_device="CUDA")


@pytest.fixture
def make(tree, paths, tmp_path):
    def run(*arguments: str):
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        sources = Tree(tree, Source("directory", str(tree)), 1234, "abc1234")
        with (tmp_path / "log").open("w") as file:
            order, log = Order(arguments, False, 2), Log(tmp_path / "log", file)
            return build(sources, order, build_tools(paths, print, print), scratch, log, lambda event: None)

    return run


def test_a_build_is_asked_for_all_that_later_launches_rely_on(make):
    said = probe(make())
    assert (said.number, said.commit, said.unix_socket) == (1234, "abc1234", True)
    assert said.version == "version: 0.0.1-dev (build 1234, commit abc1234)"
    assert said.tools == ("llama-quantize", "llama-server")
    assert said.flags["-m"] == "--model" and "--mlock" not in said.flags
    assert said.devices == ()


def test_a_right_answer_is_verified_with_the_engines_own_variables_out_of_the_way(
    make, question, monkeypatch
):
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1")
    monkeypatch.setenv("LLAMA_API_KEY", "secret")
    made = make()
    seen: list[str] = []
    assert self_test(made, probe(made), CPU, question, seen.append) == "verified on the CPU"
    assert seen == ["CPU"]


def test_a_wrong_answer_is_shown_beside_the_right_one(make, question):
    made = make("-DFAKE_ANSWER=nonsense")
    with pytest.raises(
        VerifyFailedError, match=r"on the CPU: it said 'nonsense' instead of 'the right answer'"
    ):
        self_test(made, probe(made), CPU, question)


def test_an_old_build_without_unix_sockets_is_verified_over_loopback(make, question):
    made = make("-DFAKE_TCP=ON")
    said = probe(made)
    assert not said.unix_socket and said.version == "version: 1234 (abc1234)" and said.commit == "abc1234"
    assert self_test(made, said, CPU, question) == "verified on the CPU"


def test_a_server_that_ends_at_once_is_told_with_its_last_words(make, question):
    made = make()
    said = msgspec.structs.replace(
        probe(made), flags={"--model": "--model", "--host": "--host", "--jinja": "--jinja"}
    )
    with pytest.raises(
        VerifyFailedError, match=r"ended with status 1 before it was ready(.|\n)*invalid argument: --jinja"
    ):
        self_test(made, said, CPU, question)


def test_a_server_that_never_gets_ready_is_given_up(make, question, monkeypatch):
    made = make()
    said = probe(made)
    (made / "bin" / "llama-server").write_text("#!/bin/sh\necho loading\nexec sleep 60\n")
    monkeypatch.setattr(verify, "_LOAD_TIMEOUT", 0.3)
    with pytest.raises(VerifyFailedError, match=r"not ready within 0\.3 s(.|\n)*loading"):
        self_test(made, said, CPU, question)


def test_each_device_of_the_arch_is_tried_and_none_here_is_noted(make, question):
    made = make()
    said = probe(made)
    assert "sees no NVIDIA CUDA device" in self_test(made, said, CUDA, question)
    two = msgspec.structs.replace(said, devices=("CUDA0: A (1 MiB)", "CUDA1: B (1 MiB)", "RPC0: C"))
    seen: list[str] = []
    assert self_test(made, two, CUDA, question, seen.append) == "verified on the CPU, CUDA0, CUDA1"
    assert seen == ["CPU", "CUDA0", "CUDA1"]


@pytest.mark.parametrize(
    ("script", "tells"),
    [
        ("exit 1", "ended with status 1"),
        ("echo 'error while loading shared libraries'; exit 127", "shared libraries"),
        ("echo hello", "names no version"),
        ("echo 'version: 5 (abc)'", "lists no options"),
    ],
)
def test_a_build_that_makes_no_sense_is_refused_with_what_it_said(tmp_path, script, tells):
    (tmp_path / "bin").mkdir()
    server = tmp_path / "bin" / "llama-server"
    server.write_text(f"#!/bin/sh\n{script}\n")
    server.chmod(0o755)
    with pytest.raises(VerifyFailedError, match=tells):
        probe(tmp_path)


def test_devices_are_the_lines_below_their_heading_only():
    text = (
        "ggml_cuda_init: found 1 CUDA devices:\n  Device 0: X\nAvailable devices:\n"
        "  CUDA0: NVIDIA X (24109 MiB, 23500 MiB free)\n  Vulkan0: Y (1 MiB, 1 MiB free)\n"
    )
    assert parse_devices(text) == (
        "CUDA0: NVIDIA X (24109 MiB, 23500 MiB free)",
        "Vulkan0: Y (1 MiB, 1 MiB free)",
    )
    assert parse_devices("Available devices:\n  (none)\n") == () == parse_devices("")


@pytest.mark.real
def test_a_real_build_says_and_answers_what_it_should(real_build, tmp_path):
    from pathlib import Path

    from llamamgr.models import selftest

    said = probe(Path(real_build.root))
    assert said == real_build.card.capability and said.number == real_build.card.number and said.unix_socket
    assert len(said.flags) > 300 and said.flags["-m"] == "--model"
    model = selftest.ensure(tmp_path)
    right = verify.SelfTest(str(model), "hello", selftest.ANSWER)
    assert self_test(Path(real_build.root), said, CPU, right) == "verified on the CPU"
    wrong = msgspec.structs.replace(right, answer="something else")
    with pytest.raises(VerifyFailedError, match="fed, brushed"):
        self_test(Path(real_build.root), said, CPU, wrong)
