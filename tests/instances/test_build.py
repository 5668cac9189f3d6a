"""Configure, compile, collect: what CMake is told, what is kept, and what a failure shows."""

import io
import shutil
from pathlib import Path

import msgspec
import pytest

from llamamgr.core.cards import Source
from llamamgr.core.errors import BuildFailedError, DiskFullError
from llamamgr.instances.build import Log, Order, Progress, build, configure_command, size_of
from llamamgr.instances.sources import Tree
from llamamgr.instances.tools import BuildTools, build_tools


@pytest.fixture
def sources(tree) -> Tree:
    return Tree(tree, Source("directory", str(tree)), 1234, "abc1234")


@pytest.fixture
def log(tmp_path):
    with (tmp_path / "build.log").open("w", encoding="utf-8") as file:
        yield Log(tmp_path / "build.log", file)


@pytest.fixture
def make(sources, log, paths, tmp_path):
    events: list[Progress] = []

    def run(*arguments: str, rpc: bool = False, sources: Tree = sources, **order: object) -> Path:
        scratch = tmp_path / "a scratch"
        scratch.mkdir(exist_ok=True)
        tools = build_tools(paths, print, print)
        return build(sources, Order(arguments, rpc, 2, **order), tools, scratch, log, events.append)

    run.events = events
    return run


def test_only_what_is_wanted_is_built_and_each_kind_of_file_has_its_place(make, sources):
    made = make()
    assert sorted(path.name for path in (made / "bin").iterdir()) == ["llama-quantize", "llama-server"]
    assert sorted(path.name for path in (made / "lib").iterdir()) == [
        "libllama.so",
        "libllama.so.0",
        "libllama.so.0.0.1",
    ]
    share = {path.name for path in (made / "share").iterdir()}
    assert share == {"convert_hf_to_gguf.py", "gguf-py", "conversion", "requirements"}
    assert size_of(made) > 10_000
    assert (sources.folder / "convert_hf_to_gguf.py").is_file()  # a source folder of the user's is only read


def test_backends_that_are_plugins_go_beside_the_programs_which_look_for_them_there(make):
    made = make("-DGGML_BACKEND_DL=ON")
    assert (made / "bin" / "libggml-cpu.so").is_file() and not (made / "lib" / "libggml-cpu.so").exists()
    assert (made / "lib" / "libllama.so").exists()


def test_the_rpc_server_is_built_where_asked(make):
    assert (make(rpc=True) / "bin" / "ggml-rpc-server").is_file()


def test_assertions_name_files_without_the_folder_they_were_built_in(make, sources, tmp_path):
    """So the compiler's work is the same wherever it is done, and a cache of it hits."""
    source = tmp_path / "a scratch" / "source"
    server = sources.folder / "server.cpp"
    server.write_text(server.read_text() + '\nextern const char where[] = "where:" __FILE__;\n')
    shutil.copytree(sources.folder, source)
    made = make(sources=msgspec.structs.replace(sources, folder=source))
    assert b"where:./source/server.cpp" in (made / "bin" / "llama-server").read_bytes()


def test_where_one_program_is_wanted_the_others_are_not_built(make, log):
    made = make(targets=("llama-quantize",), python=False)
    assert [path.name for path in (made / "bin").iterdir()] == ["llama-quantize"]
    assert "server.cpp" not in log.path.read_text()
    assert list((made / "share").iterdir()) == []


def test_a_wanted_program_that_the_tree_has_not_is_told(make):
    with pytest.raises(BuildFailedError, match="no target llama-nothing"):
        make(targets=("llama-nothing",))


def test_progress_counts_up_to_the_end(make):
    make()
    assert list(dict.fromkeys(event.step for event in make.events)) == ["configure", "build", "install"]
    counted = [(event.done, event.total) for event in make.events if event.total]
    assert counted == sorted(counted) and counted[-1][0] == counted[-1][1] > 3


def test_a_compiler_error_is_shown_as_the_compiler_said_it_and_the_log_is_named(make, log):
    with pytest.raises(BuildFailedError, match=r"server\.cpp:\d+:\d+: error: .*undeclared_thing") as caught:
        make("-DFAKE_FAULT=compile")
    assert str(log.path) in caught.value.hint
    assert "FAILED" not in caught.value.what
    assert "[1/" in log.path.read_text() and "$ " in log.path.read_text()


def test_a_linker_error_is_shown(make):
    with pytest.raises(BuildFailedError, match="undefined reference to `nowhere_defined'"):
        make("-DFAKE_FAULT=link")


def test_a_configure_error_is_shown_with_its_message(make):
    with pytest.raises(BuildFailedError, match=r"configure failed(.|\n)*the fake tree refuses to configure"):
        make("-DFAKE_FAULT=configure")


def test_a_full_disk_is_recognised_by_what_the_compiler_says(make):
    with pytest.raises(DiskFullError, match="no space left"):
        make("-DFAKE_FAULT=disk")


def test_sources_without_a_server_are_refused(make, sources):
    lists = sources.folder / "CMakeLists.txt"
    lists.write_text(lists.read_text().replace("llama-server", "server"))
    with pytest.raises(BuildFailedError, match="no target llama-server"):
        make()


def test_cmake_is_told_the_stamp_the_run_path_and_the_users_words_last(sources):
    command = configure_command(
        sources, Order(("-DX=1", "-DCMAKE_BUILD_TYPE=Debug"), True, 1), BuildTools("cmake", "n"), Path("b")
    )
    assert {
        "-DLLAMA_BUILD_NUMBER=1234",
        "-DLLAMA_BUILD_COMMIT=abc1234",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
    } <= set(command)
    assert "-DGGML_RPC=ON" in command and "-DLLAMA_CURL=OFF" in command
    assert command[-2:] == ["-DX=1", "-DCMAKE_BUILD_TYPE=Debug"]


def test_a_tree_that_knows_no_curl_option_is_not_told_of_it(sources):
    (sources.folder / "CMakeLists.txt").write_text("llama_option_depr(WARNING LLAMA_CURL)\n")
    command = configure_command(sources, Order((), False, 1), BuildTools("cmake", "n"), Path("b"))
    assert not [word for word in command if "CURL" in word]


def failure_of(*lines: str) -> str:
    log = Log(Path("x.log"), io.StringIO())
    log.heading(["ninja"])
    for line in lines:
        log.line(line)
    return str(log.failure("compilation failed"))


def test_the_first_error_counts_not_those_that_follow_from_it():
    text = failure_of(
        "[1/9] a",
        "FAILED: a.o",
        "c++ -c a.cpp",
        "a.cpp:1:2: error: first",
        "  here",
        "b.cpp:1:2: error: second",
    )
    assert "a.cpp:1:2: error: first\n    here\n" in text and "FAILED" not in text


def test_what_the_compiler_says_is_shown_instead_of_what_cmake_says_about_it():
    text = failure_of(
        "CMake Error at CMakeTestCXXCompiler.cmake:60 (message):",
        "  The C++ compiler",
        '    "/usr/bin/c++"',
        "  is not able to compile a simple test program.",
        "    FAILED: CMakeFiles/cmTC_1.dir/test.cxx.o",
        "    cc1plus: error: bad value 'nonsense' for '-march=' switch",
        "    cc1plus: note: valid arguments are: x86-64",
        "CMake will not be able to correctly generate this project.",
    )
    assert "  cc1plus: error: bad value" in text and "simple test program" not in text


def test_without_any_known_word_the_last_lines_are_shown():
    text = failure_of(*(f"line {n}" for n in range(20)))
    assert "line 19" in text and "line 14" in text and "line 13" not in text


def test_a_compiler_killed_for_memory_gets_the_advice_that_helps():
    text = failure_of("FAILED: a.o", "c++: fatal error: Killed signal terminated program cc1plus")
    assert "--parallel 1" in text
