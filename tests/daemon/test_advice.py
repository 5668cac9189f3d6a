"""Settings that can be read and will not do what they are there for are told, and nothing else is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llamamgr.core.advice import Advice
from llamamgr.core.config import parse_config
from llamamgr.daemon.advice import advice
from llamamgr.host.paths import Paths
from llamamgr.models.index import Index
from tests.conftest import GOLDEN_MODELS


def told(data: dict[str, object]) -> list[Advice]:
    paths = Paths.of_environment()
    config = parse_config({"models_dirs": [str(GOLDEN_MODELS)], **data})
    return list(advice(config, paths, Index(paths, config)))


@pytest.mark.parametrize(
    ("data", "key", "what", "hint"),
    [
        ({"instance": "nix"}, "instance", "no instance 'nix'; 'default' is used", "there are: default"),
        ({"models_dirs": ["/nix"]}, "models_dirs", "no folder /nix", "make it"),
        ({"models_dirs": ["~nobody-of-this-name/a"]}, "models_dirs", "no folder ~nobody", "make it"),
        ({"default_model": "nix"}, "default_model", "model 'nix' not found", "llamamgr list"),
        ({"models": {"tinychatt": {}}}, 'models."tinychatt"', "not found", "tinychat:latest"),
        ({"models": {"library/tinychat": {}}}, 'models."library/tinychat"', "in full", '"tinychat:latest"'),
        ({"models": {"no model!": {}}}, 'models."no model!"', "invalid model name", "model[:tag]"),
        (
            {"models": {"tinychat": {"instance": "cuda"}}},
            'models."tinychat".instance',
            "no instance 'cuda'",
            "there are: default",
        ),
        (
            {"models": {"tinychat": {"aliases": ["Selftest"]}}},
            'models."tinychat".aliases',
            '"Selftest" hides the model selftest:latest',
            "who asks for Selftest gets tinychat",
        ),
        (
            {"models": {"tinychat": {"flags": {"flsh-attn": "on"}}}},
            'models."tinychat".flags',
            "no llama-server option --flsh-attn",
            "flash-attn",
        ),
        (
            {"models": {"tinychat": {"flags": {"port": 1}}}},
            'models."tinychat".flags',
            "--port",
            "server.host",
        ),
        (
            {"models": {"tinychat": {"draft_model": "/nix.gguf"}}},
            'models."tinychat".draft_model',
            "no file /nix.gguf",
            "path",
        ),
        (
            {"models": {"tinychat": {"projector": str(GOLDEN_MODELS)}}},
            'models."tinychat".projector',
            "no file",
            "path",
        ),
        (
            {"models": {"tinychat": {"adapters": ["~/a.gguf"]}}},
            'models."tinychat".adapters',
            "no file ~/a.gguf",
            "path",
        ),
        ({"groups": {"g": {"models": ["selftest", "nix"]}}}, 'groups."g".models', "'nix' not found", "list"),
    ],
)
def test_what_is_not_there_is_told_with_its_key_and_what_to_do(
    data: dict[str, object], key: str, what: str, hint: str, install_fake: Callable[..., Path]
) -> None:
    install_fake()
    (said,) = told(data)
    assert said.key == key
    assert what in said.what
    assert hint in said.hint


def test_nothing_is_said_of_what_is_there(install_fake: Callable[..., Path], tmp_path: Path) -> None:
    install_fake()
    adapter = tmp_path / "a.gguf"
    shutil.copy(next(GOLDEN_MODELS.glob("*.gguf")), adapter)
    table = {
        "instance": "default",
        "aliases": ["gpt-4o", "tinychat"],
        "flags": {"flash-attn": "on"},
        "adapters": [str(adapter)],
    }
    models = {"TinyChat": table, "tinyembed:latest": {"pin": True}, "selftest": {}}
    said = told({"models": models, "default_model": "gpt-4o", "groups": {"g": {"models": ["tinychat"]}}})
    assert said == []


def test_a_variable_is_named_where_it_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMAMGR_INSTANCE", "nix")
    assert [said.key for said in told({"instance": "nix"})] == ["LLAMAMGR_INSTANCE"]


def test_without_any_instance_the_general_one_is_not_complained_about() -> None:
    assert told({}) == []
