"""Where other programs keep their models, by their own environment variables and defaults. Nothing there is ever changed.

Facts: Ollama envconfig, llama.cpp common/hf-cache.cpp and download.cpp, huggingface_hub, LM Studio's documentation.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_OLLAMA_SERVICE = Path(
    "/usr/share/ollama/.ollama/models"
)  # of the service user that Ollama's installer makes


def ollama_stores() -> tuple[Path, ...]:
    """Folders with ``manifests/`` and ``blobs/``."""
    given = os.environ.get("OLLAMA_MODELS")
    return (Path(given),) if given else _existing(Path.home() / ".ollama" / "models", _OLLAMA_SERVICE)


def hub_caches() -> tuple[Path, ...]:
    """Folders with ``models--org--repo/snapshots/``."""
    for name in ("LLAMA_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return _existing(Path(os.environ[name]))
    home = os.environ.get("HF_HOME")
    return _existing(Path(home) / "hub" if home else _cache_home() / "huggingface" / "hub")


def llama_caches() -> tuple[Path, ...]:
    """Folders with GGUF files called ``org_repo_file.gguf``, which older llama.cpp downloaded."""
    given = os.environ.get("LLAMA_CACHE")
    if given:
        return _existing(Path(given))
    base = Path.home() / "Library" / "Caches" if sys.platform == "darwin" else _cache_home()
    return _existing(base / "llama.cpp")


def lmstudio_folders() -> tuple[Path, ...]:
    """Folders with ``publisher/repo/*.gguf``."""
    home = Path.home()
    return _existing(home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models")


def hub_token() -> str:
    """The token for Hugging Face: from the environment, else from where its own tools keep it; "" when there is none."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name):
            return os.environ[name].strip()
    home = os.environ.get("HF_HOME")
    file = Path(
        os.environ.get("HF_TOKEN_PATH") or (Path(home) if home else _cache_home() / "huggingface") / "token"
    )
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def hub_endpoint() -> str:
    """A mirror that the environment names; "" when it does not."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/")


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _existing(*folders: Path) -> tuple[Path, ...]:
    found = []
    for folder in folders:
        try:
            if folder.is_dir():
                found.append(folder)
        except OSError:
            continue  # another user's: not ours to read
    return tuple(found)
