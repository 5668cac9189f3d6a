"""Repositories of the Hugging Face hub: chosen files fetched into the cache that all Hugging Face tools share.

``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` mean what they mean to huggingface_hub, which does the work.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamamgr.core.errors import (
    DiskFullError,
    LlamamgrError,
    NotFoundError,
    PermissionDeniedError,
    SourceUnreachableError,
)
from llamamgr.core.stages import Stage, Tell
from llamamgr.host.compilers import free_space

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_SPARE = 64 * 1024 * 1024
_FOREIGN = ("httpx", "httpx2", "requests", "urllib3")  # what the hub's own library lets through, by version


def fetch(
    repository: str, revision: str, choose: Callable[[Sequence[str]], Sequence[str]], tell: Tell
) -> Path:
    """The folder with those files of ``org/repo`` that ``choose`` picks of all names; ``revision`` "" = the newest.

    Files that are here already are not fetched again. Raises ``NotFoundError`` (no such repository, revision or file),
    ``PermissionDeniedError`` (needs a login), ``SourceUnreachableError`` or ``DiskFullError``.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what matters comes as an error
    try:
        return _fetch(repository, revision, choose, tell)
    except LlamamgrError:
        raise
    except Exception as error:
        raise _translated(error, repository, revision) from error


def _fetch(
    repository: str, revision: str, choose: Callable[[Sequence[str]], Sequence[str]], tell: Tell
) -> Path:
    from huggingface_hub import HfApi, constants, hf_hub_download

    info = HfApi().model_info(repository, revision=revision or None, files_metadata=True)
    sizes = _sizes(info, choose)
    if not sizes:
        raise NotFoundError(
            f"{repository} holds no files of a model to convert",
            "if it is a repository of GGUF files, they need no conversion",
        )
    done, total = 0, sum(sizes.values())
    _require_space(repository, total, Path(constants.HF_HUB_CACHE))
    title = f"fetching {repository}"
    places: list[tuple[str, Path]] = []
    for name, size in sizes.items():
        tell(Stage(title, done, total))
        counting = _counting(done, total, title, tell, hf_hub_download)
        places.append((name, Path(hf_hub_download(repository, name, revision=info.sha, **counting))))
        done += size
    tell(Stage(title, total, total))
    name, place = places[0]
    return place.parents[name.count("/")]


def _sizes(info: ModelInfo, choose: Callable[[Sequence[str]], Sequence[str]]) -> dict[str, int]:
    known = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    return {name: known[name] for name in choose(sorted(known))}


def _require_space(repository: str, needed: int, cache: Path) -> None:
    # what the cache has already is counted too: rather a refusal too many than a full disk
    free = free_space(cache)
    if free < needed + _SPARE:
        raise DiskFullError(
            f"{repository} takes {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in {cache}",
            "free some space, or set HF_HOME to a folder on another disk",
        )


def _counting(done: int, total: int, title: str, tell: Tell, download: Callable[..., Any]) -> dict[str, Any]:
    """The argument by which a download says how far it is; older versions of the library have none."""
    if "tqdm_class" not in inspect.signature(download).parameters:
        return {}
    base: Any = importlib.import_module("tqdm.auto").tqdm  # no types are to be had for it

    class Counter(base):  # type: ignore[misc]
        """Counts for ``tell``; draws nothing."""

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            settings.pop("name", None)  # the hub's own class takes it
            super().__init__(*arguments, **(settings | {"disable": True}))
            self._there = settings.get("initial") or 0

        def update(self, n: float | None = 1) -> bool | None:
            self._there += n or 0
            tell(Stage(title, min(done + int(self._there), total), total))
            return None

    return {"tqdm_class": Counter}


def _translated(error: Exception, repository: str, revision: str) -> Exception:
    """The error in our words; one that nobody foresaw as it is."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return PermissionDeniedError(
            f"{repository} is gated: its owner wants your consent and a login",
            f"accept the terms on the page of {repository}, then set HF_TOKEN",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFoundError(
            f"{repository} has no revision {revision!r}", "name a branch, tag or commit of it"
        )
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403):  # to strangers a private repository and none look alike
        return PermissionDeniedError(
            f"there is no repository {repository}, or it is private",
            "check the spelling; for a private one set HF_TOKEN",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return NotFoundError(f"there is no repository {repository}", "write org/name as on its page")
    if isinstance(error, errors.HFValidationError):
        return NotFoundError(f"{repository!r} names no repository", "write org/name")
    if isinstance(error, OSError) and error.errno == 28:
        return DiskFullError(
            f"no space left while fetching {repository}", "free some, or set HF_HOME to another disk"
        )
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _FOREIGN:
        return SourceUnreachableError(
            f"cannot fetch {repository}: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}",
            "check the network; HF_ENDPOINT names another hub; a folder on disk works without one",
        )
    return error
