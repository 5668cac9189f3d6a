"""quantize: what is asked for reaches the tool, and only what is whole is ever seen."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llamamgr.core.errors import ConflictError, DiskFullError, EngineError, MissingToolError, UsageError
from llamamgr.core.quant_types import find_type
from llamamgr.core.stages import Stage
from llamamgr.host.processes import wait_until
from llamamgr.instances.quantize import Ear, Order, known_types, preview, quantize, several_targets, target_of
from llamamgr.models import selftest
from tests.fakes import tool_build


@pytest.fixture
def build(tmp_path):
    return tool_build.make(tmp_path / "build", {"llama-quantize": tool_build.QUANTIZE})


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "Base-F16.gguf"
    path.write_text("content")
    return path


@pytest.fixture
def make(build, source, tmp_path):
    kind = find_type(known_types(build), "Q4_K_M")
    stages: list[Stage] = []

    def run(target: Path | None = None, **order):
        wanted = Order(source, target or tmp_path / "out" / "Base-Q4_K_M.gguf", kind, **order)
        return quantize(build, wanted, tmp_path / "locks", stages.append)

    run.stages = stages
    return run


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_asked_for_reaches_the_tool_and_the_result_appears_under_its_name(make, build, tmp_path):
    done = make(flags=("--pure",), threads=3)
    target = tmp_path / "out" / "Base-Q4_K_M.gguf"
    assert done.paths == (str(target),) and target.read_text() == "GGUF content Q4_K_M 3"
    assert (done.sizes.bits, done.size) == (4.85, target.stat().st_size)
    assert names_in(target.parent) == [target.name]
    calls = Path(build.tool("llama-quantize") + ".calls").read_text().splitlines()
    assert [call.split()[:2] for call in calls] == [
        ["--dry-run", "--pure"],
        ["--pure", str(tmp_path / "Base-F16.gguf")],
    ]


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
def test_progress_is_counted_wherever_the_pipe_cuts_the_output(piece):
    said = "".join(
        f"[ {n:3}/ 12] blk.{n}.weight - [ 8 ], type = f16, converting .. size = 1 MiB\n" for n in range(1, 13)
    )
    stages: list[Stage] = []
    ear = Ear("x", stages.append)
    for start in range(0, len(said), piece):
        ear(said[start : start + piece])
    counts = [(stage.done, stage.total) for stage in stages if stage.total]
    assert counts == ([(n, 12) for n in range(1, 13)] if piece < 80 else [(12, 12)])
    assert ear.said == said


def test_sizes_are_told_before_and_counts_while_it_works(make):
    make()
    assert "105 MB → 31 MB" in make.stages[0].note
    assert make.stages[-1] == Stage("quantizing to Q4_K_M", 2, 2)


def test_a_failure_leaves_neither_half_a_file_nor_a_folder_and_keeps_what_was_there(
    make, tmp_path, monkeypatch
):
    target = tmp_path / "out.gguf"
    target.write_text("former")
    monkeypatch.setenv("FAKE_QUANTIZE", "requantize")
    with pytest.raises(EngineError, match="requantizing from type q8_0 is disabled") as caught:
        make(target, replace=True)
    assert "--allow-requantize" in caught.value.hint
    assert target.read_text() == "former"
    assert not [name for name in names_in(tmp_path) if "unfinished" in name]


def test_an_existing_file_is_refused_unless_it_shall_be_replaced(make, tmp_path):
    target = tmp_path / "out.gguf"
    target.write_text("former")
    with pytest.raises(ConflictError, match="exists already"):
        make(target)
    assert target.read_text() == "former"
    with target.open() as reader:
        make(target, replace=True)
        assert reader.read() == "former"  # who has it open keeps what he had
    assert target.read_text().startswith("GGUF")


def test_the_input_is_never_its_own_output(make, source, tmp_path):
    link = tmp_path / "link.gguf"
    link.symlink_to(source)
    for target in (source, link):
        with pytest.raises(ConflictError, match="input itself"):
            make(target, replace=True)
    assert source.read_text() == "content"


def test_too_small_a_disk_is_told_before_anything_is_written(make, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_QUANT_SIZE", "999999999.00")
    with pytest.raises(DiskFullError, match="are free there"):
        make()
    assert not (tmp_path / "out").exists()


def test_a_killed_run_leaves_the_former_file_and_its_leftovers_go_with_the_next(
    build, make, source, tmp_path
):
    target = tmp_path / "out.gguf"
    target.write_text("former")
    code = (
        "import sys; from pathlib import Path; from tests.fakes import tool_build\n"
        "from llamamgr.core.cards import Build; from llamamgr.instances.quantize import *\n"
        "from llamamgr.core.quant_types import QuantType\n"
        f"card = tool_build.make(Path({str(tmp_path / 'other')!r}), {{}}).card\n"
        f"order = Order(Path({str(source)!r}), Path({str(target)!r}), QuantType(15, 'Q4_K_M', ''), replace=True)\n"
        f"quantize(Build(card, {build.root!r}), order, Path({str(tmp_path / 'locks')!r}), print)\n"
    )
    hangs = Path(build.tool("llama-quantize") + ".hangs")
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "FAKE_QUANTIZE": "hang"},
        stdout=subprocess.DEVNULL,
    ) as process:
        assert wait_until(hangs.exists, timeout=20)
        with pytest.raises(ConflictError, match="another llamamgr"):
            make(target, replace=True)
        process.send_signal(signal.SIGKILL)
    left = [name for name in names_in(tmp_path) if name.endswith(".unfinished")]
    assert target.read_text() == "former" and [name.startswith(".out.gguf-") for name in left] == [True]
    make(target, replace=True)
    assert target.read_text().startswith("GGUF") and left[0] not in names_in(tmp_path)


def test_a_build_without_the_tool_says_so(tmp_path):
    with pytest.raises(MissingToolError, match="has no llama-quantize"):
        known_types(tool_build.make(tmp_path / "bare", {}))


def test_a_tool_that_cannot_say_sizes_beforehand_is_used_without(build, source, tmp_path):
    tool = Path(build.tool("llama-quantize"))
    tool.write_text(tool.read_text().replace("[--dry-run]", ""))
    kind = find_type(known_types(build), "Q8_0")
    assert preview(build, Order(source, tmp_path / "x.gguf", kind)) is None


@pytest.mark.parametrize(
    ("output", "target"),
    [
        ("", "/store/Base-Q8_0.gguf"),
        ("/a/", "/a/Base-Q8_0.gguf"),
        ("/a/x-{type}.gguf", "/a/x-Q8_0.gguf"),
        ("/a/x.gguf", "/a/x.gguf"),
    ],
)
def test_the_target_is_a_file_a_pattern_a_folder_or_the_own_store(build, output, target):
    kind = find_type(known_types(build), "Q8_0")
    for source in ("/m/Base-F16.gguf", "/m/Base-F16-00001-of-00003.gguf", "/m/Base.gguf"):
        assert target_of(Path(source), kind, output, Path("/store"), several=False) == Path(target)


def test_one_file_cannot_hold_several_types_and_no_type_is_made_twice(build, tmp_path):
    kinds = [find_type(known_types(build), text) for text in ("Q8_0", "q4_k", "15")]
    with pytest.raises(UsageError, match="several types"):
        several_targets(Path("/m/B.gguf"), kinds, str(tmp_path / "x.gguf"), tmp_path)
    targets = several_targets(Path("/m/B.gguf"), kinds, str(tmp_path), tmp_path)
    assert [target.name for _, target in targets] == ["B-Q8_0.gguf", "B-Q4_K_M.gguf"]
    with pytest.raises(UsageError, match="no GGUF file"):
        several_targets(Path("/m/B.gguf"), kinds[:1], str(tmp_path / "x.bin"), tmp_path)


@pytest.mark.real
def test_a_real_quantize_keeps_parts_and_refuses_what_needs_a_matrix(real_build, own_home, tmp_path):
    model = selftest.ensure(tmp_path)
    types = known_types(real_build)
    assert len(types) > 30 and {"Q4_K_M", "IQ1_S", "BF16", "COPY"} <= {kind.name for kind in types}
    with pytest.raises(EngineError, match="imatrix") as caught:
        order = Order(model, tmp_path / "x.gguf", find_type(types, "IQ1_S"))
        quantize(real_build, order, tmp_path / "locks", print)
    assert "--imatrix" in caught.value.hint and not (tmp_path / "x.gguf").exists()
    subprocess.run(
        [
            real_build.tool("llama-gguf-split"),
            "--split",
            "--split-max-tensors",
            "5",
            model,
            tmp_path / "part",
        ],
        check=True,
        capture_output=True,
    )
    first = tmp_path / "part-00001-of-00003.gguf"
    order = Order(first, tmp_path / "kept.gguf", find_type(types, "Q8_0"), flags=("--keep-split",))
    done = quantize(real_build, order, tmp_path / "locks", print)
    assert [Path(path).name for path in done.paths] == [f"kept-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert done.sizes.bits == pytest.approx(8.5, abs=0.1)


def test_parts_that_are_there_already_are_told_before_the_work(build, make, tmp_path):
    (tmp_path / "out[1]-00001-of-00002.gguf").write_text("former")
    with pytest.raises(ConflictError, match=r"-00001-of-00002\.gguf exists already"):
        make(tmp_path / "out[1].gguf", flags=("--keep-split",))
    make(tmp_path / "out[2].gguf", flags=("--keep-split",))
