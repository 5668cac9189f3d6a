"""The environment of the conversion scripts: made once, whole or not at all, and never with GPU packages."""

import ensurepip
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llamamgr.core.errors import LlamamgrError, MissingToolError, SourceUnreachableError
from llamamgr.core.stages import Stage
from llamamgr.host import python_environments as host
from llamamgr.instances.python_environment import ensure, nearest, present, read_card, read_requirements
from tests.fakes.package_index import PackageIndex

NOWHERE = "http://127.0.0.1:1/whl/cpu"
GPU = ("nvidia-cublas-cu12==12.8; platform_machine != 'abacus'", "helper")


@pytest.fixture
def share(tmp_path) -> Path:
    """A build's share folder with requirement files as llama.cpp has them."""
    folder = tmp_path / "share"
    (folder / "requirements").mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").write_text("import helper, torch\nprint('usage')\n")
    (folder / "requirements.txt").write_text("-r ./requirements/requirements-tool_bench.txt\nmatplotlib\n")
    write(folder, "legacy", "# why\nhelper~=1.0\n\ngguf>=0.1.0\n")
    write(
        folder,
        "convert_hf_to_gguf",
        f"-r ./requirements-legacy.txt\n--extra-index-url {NOWHERE}\n\n## why\ntorch==2.11.0\n",
    )
    write(
        folder,
        "convert_lora_to_gguf",
        f"-r ./requirements-convert_hf_to_gguf.txt\n--extra-index-url {NOWHERE}\n",
    )
    return folder


def write(share: Path, name: str, text: str) -> None:
    (share / "requirements" / f"requirements-{name}.txt").write_text(text)


@pytest.fixture(autouse=True)
def no_memory_between_tests():
    host._pip_settings.cache_clear()
    yield
    host._pip_settings.cache_clear()


@pytest.fixture(params=["uv", "pip"])
def installer(request, monkeypatch):
    """Both ways to install."""
    if request.param == "uv" and not host.uv_program():
        pytest.skip("there is no uv here")
    if request.param == "pip":
        monkeypatch.setattr(host, "uv_program", lambda: "")
    return request.param


@pytest.fixture
def bare(index: PackageIndex, monkeypatch) -> PackageIndex:
    """An index without torch. uv takes the pip of a new environment from the index: the wheel that comes with Python does."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(Path(ensurepip.__file__).parent / "_bundled"))
    index.add_wheel("helper", "1.2", {"helper.py": ""})
    return index


@pytest.fixture
def packages(bare: PackageIndex) -> PackageIndex:
    bare.add_wheel("torch", "2.10.0+cpu", {"torch/__init__.py": "here = 'older'"})
    bare.add_wheel("torch", "2.13.0+cpu", {"torch/__init__.py": "here = 'nearest'"}, ("helper",))
    bare.add_wheel("torch", "2.14.0+cpu", {"torch/__init__.py": "here = 'farther'"})
    bare.add_wheel("torch", "2.11.0", {"torch/__init__.py": "here = 'gpu'"}, GPU)
    return bare


def notes(stages: list[Stage]) -> str:
    return "\n".join(stage.note for stage in stages if stage.note)


def test_requirements_are_inlined_without_options_gguf_and_what_other_scripts_want(share):
    found = read_requirements(share)
    assert (found.torch, found.others, found.indexes) == (("torch==2.11.0",), ("helper~=1.0",), (NOWHERE,))


def test_files_outside_of_the_build_and_circles_are_not_followed(share, tmp_path):
    (tmp_path / "secret.txt").write_text("evil\n")
    write(share, "legacy", "-r ../../secret.txt\n-r requirements-convert_hf_to_gguf.txt\nhelper\n")
    assert read_requirements(share).others == ("helper",)


def test_the_key_follows_the_requirements_and_not_their_comments(share):
    key = read_requirements(share).key
    write(share, "legacy", "helper~=1.0  # another comment\ngguf>=9\n")
    assert read_requirements(share).key == key
    write(share, "legacy", "helper~=1.1\n")
    assert read_requirements(share).key != key


def test_a_tree_of_long_ago_has_one_file_for_all(share):
    for path in (share / "requirements").iterdir():
        path.unlink()
    assert read_requirements(share).others == ("matplotlib",)
    (share / "requirements.txt").unlink()
    with pytest.raises(MissingToolError):
        read_requirements(share)


@pytest.mark.parametrize("pinned", ["torch==2.11.0", "torch~=2.11.0; platform_machine != 's390x'"])
def test_the_nearest_newer_version_stands_in_first_then_the_nearest_older(pinned):
    versions = ["2.15.0+cpu", "2.11.1+cpu", "2.10.0+cpu", "2.9.1+cpu", "2.13.0+cpu"]
    assert nearest(versions, pinned) == ["2.11.1+cpu", "2.13.0+cpu", "2.15.0+cpu", "2.10.0+cpu", "2.9.1+cpu"]


def test_the_nearest_cpu_torch_is_taken_and_said_when_the_pinned_index_does_not_answer(
    share, paths, packages, installer
):
    stages: list[Stage] = []
    python = ensure(paths, share, stages.append)
    assert (
        subprocess.check_output([python, "-c", "import torch; print(torch.here)"], text=True) == "nearest\n"
    )
    assert "torch==2.11.0 for the CPU cannot be had from 127.0.0.1:1: taking torch 2.13.0+cpu" in notes(
        stages
    )
    assert read_card(python).torch == "2.13.0+cpu"
    assert present(paths, share) == python
    assert [path.name for path in (paths.data / "python").iterdir()] == [python.parent.parent.name]
    [log] = (paths.state / "logs").glob("python-*.log")
    assert "torch" in log.read_text()


def test_the_pinned_index_is_taken_without_a_word_when_it_answers(
    share, paths, packages, tmp_path, installer
):
    pinned = PackageIndex(tmp_path / "pinned")
    pinned.add_wheel("torch", "2.11.0+cpu", {"torch/__init__.py": "here = 'pinned'"}, ("helper",))
    url = pinned.environment["PIP_INDEX_URL"]
    write(
        share, "convert_hf_to_gguf", f"-r ./requirements-legacy.txt\n--extra-index-url {url}\ntorch==2.11.0\n"
    )
    stages: list[Stage] = []
    python = ensure(paths, share, stages.append)
    assert subprocess.check_output([python, "-c", "import torch; print(torch.here)"], text=True) == "pinned\n"
    assert notes(stages) == ""


def test_a_torch_that_brings_gpu_packages_is_never_taken(share, paths, bare, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Linux")
    bare.add_wheel("torch", "2.11.0", {"torch/__init__.py": ""}, GPU)
    with pytest.raises(SourceUnreachableError, match="no torch for the CPU") as caught:
        ensure(paths, share, print)
    assert "PIP_FIND_LINKS" in caught.value.hint
    assert list((paths.data / "python").iterdir()) == []


def test_a_torch_without_any_tag_is_taken_where_it_brings_no_gpu_packages(share, paths, bare):
    needs = ("helper", "nvidia-cublas-cu12; platform_machine == 'abacus'")
    bare.add_wheel("torch", "2.12.0", {"torch/__init__.py": ""}, needs)
    assert read_card(ensure(paths, share, print)).torch == "2.12.0"


def test_a_missing_package_is_named_and_nothing_half_made_stays(share, paths, packages):
    write(share, "legacy", "helper~=1.0\nnowhere-to-be-found==1.0\n")
    with pytest.raises(SourceUnreachableError, match="nowhere-to-be-found"):
        ensure(paths, share, print)
    assert list((paths.data / "python").iterdir()) == [] and present(paths, share) is None


def test_an_environment_in_which_the_script_does_not_come_up_is_refused(share, paths, packages):
    (share / "convert_hf_to_gguf.py").write_text("import something_else\n")
    with pytest.raises(MissingToolError, match="No module named 'something_else'"):
        ensure(paths, share, print)
    assert present(paths, share) is None


def test_two_at_once_make_one(share, paths, packages, monkeypatch):
    made: list[Path] = []
    real = host.create
    monkeypatch.setattr(host, "create", lambda folder, on_line: (made.append(folder), real(folder, on_line)))
    found: list[Path | LlamamgrError] = []

    def make() -> None:
        found.append(ensure(paths, share, lambda stage: None))

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0] == found[1] and len(made) == 1


def test_what_a_killed_one_left_goes_and_is_never_taken_for_whole(share, paths, packages):
    key = read_requirements(share).key
    left = paths.data / "python" / f".scratch-{key}-1" / "bin"
    torn = paths.data / "python" / key / "bin"
    for folder in (left, torn):
        folder.mkdir(parents=True)
        (folder / "python").symlink_to(sys.executable)
    assert present(paths, share) is None
    python = ensure(paths, share, print)
    assert read_card(python).key == key and not left.exists()


def test_pips_own_settings_reach_uv(monkeypatch, tmp_path):
    (tmp_path / "pip.conf").write_text(
        "[global]\nextra-index-url = https://a/simple https://b/simple\ncert = /c.pem\n"
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    words = host._uv_indexes()
    assert words[:6] == [
        "--extra-index-url",
        "https://a/simple",
        "--extra-index-url",
        "https://b/simple",
        "--find-links",
        "/wheels",
    ]
    inside = host._environment(index="https://pinned")
    assert (
        inside["PIP_CERT"] == "/c.pem"
        and "PIP_FIND_LINKS" not in inside
        and inside["PIP_CONFIG_FILE"] == os.devnull
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    host._pip_settings.cache_clear()
    assert (
        "--no-index" in host._uv_indexes() and host.offered(tmp_path, "torch", index="https://pinned") == ()
    )
