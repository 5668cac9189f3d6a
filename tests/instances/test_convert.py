"""convert: the build's own script does it, nothing half-made is seen, and a model's code is not run unasked."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from llamamgr.core.cards import Source
from llamamgr.core.errors import (
    DiskFullError,
    EngineError,
    MissingToolError,
    NotFoundError,
    PermissionDeniedError,
    UsageError,
)
from llamamgr.core.stages import Stage
from llamamgr.instances.convert import (
    Order,
    base_of,
    check,
    convert,
    file_made,
    files_to_fetch,
    name_for,
    repository_in,
    script_of,
)
from tests.fakes import tiny_hf_model, tool_build

# The script's manners: all on stderr, a bar with \\r, a partial file where it fails.
SCRIPT = """
import json, os, sys
words = sys.argv[1:]
out = words[words.index("--outfile") + 1].format(FTYPE="F16")
if "--mmproj" in words:
    folder, name = os.path.split(out)
    out = os.path.join(folder, "mmproj-" + name)
with open(out, "w") as file:
    json.dump({"words": words, "environment": dict(os.environ)}, file)
sys.stderr.write("INFO:hf-to-gguf:Loading model\\n\\rWriting:   0%|    | 0.00/1.0M\\rWriting:  50%|##  |")
sys.stderr.write("\\rWriting: 100%|####| 1.0M/1.0M\\n")
FAULT
sys.stderr.write("INFO:hf-to-gguf:Model successfully exported to x\\n")
"""


@pytest.fixture
def build(tmp_path):
    made = tool_build.make(tmp_path / "build", {})
    (tmp_path / "build" / "share").mkdir()
    return made


@pytest.fixture
def model(tmp_path) -> Path:
    return tiny_hf_model.write(tmp_path / "Tiny")


@pytest.fixture
def run(build, model, tmp_path):
    stages: list[Stage] = []
    folder = tmp_path / "made"
    folder.mkdir()

    def act(fault: str = "", **order):
        for name in ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py"):
            (Path(build.root) / "share" / name).write_text(SCRIPT.replace("FAULT", fault))
        return convert(build, Path(sys.executable), Order(model, "Tiny", **order), folder, stages.append)

    act.stages = stages
    act.folder = folder
    return act


def said_to(path: Path) -> list[str]:
    return list(json.loads(path.read_text())["words"])


def test_the_script_gets_type_flags_and_folder_and_the_file_is_named_by_model_and_type(run, model):
    made = run(outtype="f16", flags=("--no-lazy",))
    assert made == run.folder / "Tiny-F16.gguf"
    assert said_to(made) == [
        "--outfile",
        f"{run.folder}/Tiny-{{FTYPE}}.gguf",
        "--outtype",
        "f16",
        "--no-lazy",
        str(model),
    ]


def test_percents_of_the_bar_are_told(run):
    run()
    counts = [stage.done for stage in run.stages if stage.total]
    assert counts == sorted(counts) and counts[-1] == 100


def test_a_projector_and_an_adapter_are_asked_for_in_the_scripts_own_words(run, tmp_path):
    assert run(kind="projector").name == "mmproj-Tiny-F16.gguf"
    for path in run.folder.iterdir():
        path.unlink()
    words = said_to(run(kind="adapter", base=tmp_path, trusted=True))
    assert words[words.index("--base") + 1] == str(tmp_path) and "--trust-remote-code" in words
    assert words[words.index("--outtype") + 1] == "f16"


def test_the_script_runs_without_the_net_and_without_what_would_disturb_it(run, monkeypatch):
    for name, value in (
        ("TQDM_ASCII", "1"),
        ("PYTHONPATH", "/x"),
        ("NO_LOCAL_GGUF", "1"),
        ("LLAMA_ARG_PORT", "1"),
    ):
        monkeypatch.setenv(name, value)
    environment = json.loads(run().read_text())["environment"]
    assert environment["HF_HUB_OFFLINE"] == environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert not {"TQDM_ASCII", "PYTHONPATH", "NO_LOCAL_GGUF", "LLAMA_ARG_PORT"} & set(environment)


@pytest.mark.parametrize(
    ("fault", "kind", "reason", "hint"),
    [
        (
            "sys.stderr.write('ERROR:hf-to-gguf:Model Foo is not supported\\n'); sys.exit(1)",
            EngineError,
            "Model Foo is not supported",
            "newer llama.cpp",
        ),
        (
            "raise NotImplementedError('BPE pre-tokenizer was not recognized')",
            EngineError,
            "BPE pre-tokenizer was not",
            "newer llama.cpp",
        ),
        (
            "raise KeyError('lm_head')\nsys.stderr.write('\\rWriting: 9%|')",
            EngineError,
            "KeyError: 'lm_head'",
            "whole",
        ),
        ("raise OSError(28, 'No space left on device')", DiskFullError, "no space left", "--output"),
        (
            "os.kill(os.getpid(), 9)",
            EngineError,
            "signal 9, as the system does when memory runs out",
            "whole",
        ),
        ("import nothing_here", EngineError, "No module named 'nothing_here'", "spoiled"),
        ("os.unlink(out)", EngineError, "successfully exported", "whole"),
    ],
)
def test_a_failure_is_told_with_the_scripts_own_last_lines(run, fault, kind, reason, hint):
    with pytest.raises(kind) as caught:
        run(fault)
    assert reason in caught.value.what and hint in caught.value.hint
    assert "Writing:" not in caught.value.what


def test_a_build_without_the_script_says_so(build, model, tmp_path):
    with pytest.raises(MissingToolError, match=r"has no convert_hf_to_gguf\.py") as caught:
        convert(build, Path(sys.executable), Order(model, "Tiny"), tmp_path, print)
    assert "--with-python" in caught.value.hint
    card = msgspec.structs.replace(build.card, source=Source("prebuilt"))
    with pytest.raises(MissingToolError) as caught:
        script_of(msgspec.structs.replace(build, card=card), "adapter")
    assert "convert_lora_to_gguf.py" in caught.value.what and "--instance built" in caught.value.hint


def test_a_model_without_a_projector_is_told_that_it_may_have_none(run):
    with pytest.raises(EngineError) as caught:
        run(
            "sys.stderr.write('ERROR:hf-to-gguf:Model Foo is not supported\\n'); sys.exit(1)",
            kind="projector",
        )
    assert "leave --mmproj out" in caught.value.hint


@pytest.mark.parametrize(
    ("config", "order", "name"),
    [
        ({"torch_dtype": "bfloat16"}, {}, "x-BF16.gguf"),
        ({"text_config": {"dtype": "float16"}}, {}, "x-F16.gguf"),
        ({"dtype": "float32"}, {"kind": "projector"}, "mmproj-x-F16.gguf"),
        ({"dtype": "float64"}, {}, ""),
        ([], {"outtype": "q8_0"}, "x-Q8_0.gguf"),
        ([], {}, ""),
        ({}, {"kind": "adapter"}, "x-F16.gguf"),
    ],
)
def test_the_name_of_the_result_is_known_beforehand_where_the_config_tells_its_type(
    tmp_path, config, order, name
):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert file_made(Order(tmp_path, "x", **order)) == name


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_a_model_that_brings_code_is_refused_unless_it_is_trusted(model, file):
    (model / file).write_text('{"auto_map": {"AutoTokenizer": ["tokenization_x.X", null]}}')
    with pytest.raises(PermissionDeniedError, match=file) as caught:
        check(Order(model, "Tiny"))
    assert "--trust-remote-code" in caught.value.hint
    check(Order(model, "Tiny", trusted=True))


def test_a_base_model_that_brings_code_is_refused_too(model, tmp_path):
    adapter = tiny_hf_model.write_lora(tmp_path / "lora", "some/base")
    check(Order(adapter, "a", "adapter", base=model))
    (model / "config.json").write_text('{"auto_map": {"AutoConfig": "x.X"}}')
    with pytest.raises(PermissionDeniedError):
        check(Order(adapter, "a", "adapter", base=model))


def test_a_folder_without_a_model_and_an_unknown_type_are_refused(model, tmp_path):
    with pytest.raises(NotFoundError, match=r"no config\.json"):
        check(Order(tmp_path, "x"))
    with pytest.raises(NotFoundError, match=r"adapter_config\.json"):
        check(Order(model, "x", "adapter"))
    with pytest.raises(UsageError, match="q4_0"):
        check(Order(model, "x", outtype="q4_0"))


def test_configs_that_are_no_json_or_no_object_are_left_to_the_script(model):
    (model / "a.json").write_text("{")
    (model / "b.json").write_text("[1]")
    check(Order(model, "Tiny"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("org/name", ("org/name", "")),
        ("org/name@v1", ("org/name", "v1")),
        ("https://huggingface.co/org/name", ("org/name", "")),
        ("hf.co/org/na.me-1/", ("org/na.me-1", "")),
        ("hf:org/name", ("org/name", "")),
        ("name", None),
        ("./name", None),
        ("../a", None),
        ("/a/b", None),
        ("~/a", None),
        ("a/b/c", None),
    ],
)
def test_a_repository_is_told_from_a_path(text, found):
    assert repository_in(text) == found


def test_a_model_is_named_after_its_folder_or_repository(tmp_path, monkeypatch):
    (tmp_path / "My Model {1}").mkdir()
    assert name_for(str(tmp_path / "My Model {1}")) == "My-Model-1"
    assert name_for("org/Some.Model@main") == "Some.Model"
    monkeypatch.chdir(tmp_path / "My Model {1}")
    assert name_for(".") == "My-Model-1"


def test_only_what_a_conversion_needs_is_fetched():
    names = [
        "README.md", "config.json", "tokenizer.model", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json", "consolidated.safetensors", "pytorch_model.bin", "modeling_x.py", "tf_model.h5",
        "onnx/model.onnx", "onnx/config.json", "original/params.json", "model.gguf", "1_Pooling/config.json",
    ]  # fmt: skip
    chosen = set(files_to_fetch(names))
    assert {
        "config.json",
        "tokenizer.model",
        "1_Pooling/config.json",
        "model-00002-of-00002.safetensors",
    } <= chosen
    assert not chosen & {
        "consolidated.safetensors",
        "pytorch_model.bin",
        "modeling_x.py",
        "onnx/config.json",
        "model.gguf",
    }
    assert "modeling_x.py" in files_to_fetch(names, code=True)
    assert not [name for name in files_to_fetch(names, weights=False) if name.endswith(".safetensors")]
    assert files_to_fetch(["config.json", "pytorch_model.bin"]) == ["config.json", "pytorch_model.bin"]
    assert files_to_fetch(["params.json", "consolidated.safetensors"])[-1] == "consolidated.safetensors"


def test_an_adapter_says_what_it_was_made_for(tmp_path):
    assert base_of(tiny_hf_model.write_lora(tmp_path / "lora", "org/base")) == "org/base"
    assert base_of(tmp_path) == ""
