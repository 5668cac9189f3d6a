"""The prompt cache of a child outlives its unloading: slots are saved to disk before the stop and restored at the next load.

Only what pays: reading the prompt again must take longer than writing and reading its file, by the pace of this disk as earlier
saves showed it. And only where it really works: on some builds a restore is accepted and forgotten, so each build is tried once,
on a child that is about to be stopped anyway (``timings.cache_n`` after save, erase and restore must cover the prompt). Facts:
llama-server's ``/slots/:id?action=save|restore|erase`` within ``--slot-save-path``; models with a projector refuse it.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from llamamgr.core.cards import ModelCard
from llamamgr.host.files import replace_quickly
from llamamgr.supervise.lease import Endpoint
from llamamgr.supervise.probe import ask, figures

_LEAST_TOKENS = 64  # below this, reading the prompt again costs less than the file
_USUAL_PACE = 500e6  # bytes a second of a disk that has not shown its own yet
_TOLD_LEAST = 1_000_000  # bytes: a smaller file says nothing of the disk
_SECONDS = 20.0  # for one save or restore
_PROBE = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"


log = logging.getLogger(__name__)


class _Slot(msgspec.Struct, frozen=True):
    id: int
    is_processing: bool = False
    n_prompt_tokens: int = 0


class _Timings(msgspec.Struct, frozen=True):
    cache_n: int = 0
    prompt_n: int = 0
    save_ms: float = 0.0


class _Acted(msgspec.Struct, frozen=True):
    n_saved: int = 0
    n_restored: int = 0
    n_written: int = 0
    timings: _Timings = _Timings()


class _Completion(msgspec.Struct, frozen=True):
    timings: _Timings = _Timings()


class SlotStore:
    """Saved slots under ``root``, at most ``limit`` bytes (0 = none are kept), of prompts whose file saves ``least_seconds``.

    Which builds can do it is remembered beside them.
    """

    def __init__(self, root: Path, limit: int, least_seconds: float) -> None:
        self._root = root
        self.limit = limit
        self._least_seconds = least_seconds
        self._verdicts = _read_verdicts(root / "builds.json")
        self._pace = _USUAL_PACE
        self._speeds: dict[str, float] = {}

    def folder(self, key: str) -> Path | None:
        """Where the slots of children of ``key`` lie, made when missing, private; None when none are kept, or cannot be."""
        folder = self._root / key
        try:
            if self.limit:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            log.warning("prompt caches are not kept: %s", error)
            return None
        return folder if self.limit else None

    async def restore(self, endpoint: Endpoint, key: str) -> int:
        """Put what was saved into the slots of a child that is ready; tokens restored. What does not fit is removed."""
        tokens = 0
        for file in sorted((self._root / key).glob("*.bin")) if self.limit else []:
            answer = await self._act(endpoint, file.stem, "restore", file.name)
            if answer is None:
                _discard(file)
            tokens += answer.n_restored if answer else 0
        return tokens

    async def save(
        self,
        endpoint: Endpoint,
        key: str,
        build: str,
        model: ModelCard,
        is_hurried: Callable[[], bool] = lambda: False,
    ) -> int:
        """Keep the slots of an idle child that is about to be stopped; tokens saved. None more once it ``is_hurried``."""
        if not self.limit or model.projector or self._verdicts.get(build) is False:
            return 0
        kept = 0
        for file in (self._root / key).glob("*.bin"):
            _discard(file)
        # none of one that hangs, which is then asked nothing more
        slots = [slot for slot in await _slots(endpoint) if slot.n_prompt_tokens >= _LEAST_TOKENS]
        seconds_per_token = await self._speed(endpoint, key) if slots else 0.0
        for slot in slots:
            if is_hurried():
                break
            tokens, size = slot.n_prompt_tokens, slot.n_prompt_tokens * max(1, model.kv_bytes_per_token)
            if slot.is_processing or size > self.limit // 2:
                continue
            if net_seconds(tokens * seconds_per_token, size, self._pace) < self._least_seconds:
                # a disk that was slow once gets another chance
                self._pace += (_USUAL_PACE - self._pace) / 100
                continue
            answer = await self._act(endpoint, str(slot.id), "save", f"{slot.id}.bin")
            kept += self._noted(answer) if answer else 0
        if kept and build not in self._verdicts and not is_hurried():
            self._verdicts[build] = await self._works(endpoint)
            with contextlib.suppress(OSError):  # a full disk: the next daemon tries the build again
                replace_quickly(self._root / "builds.json", msgspec.json.encode(self._verdicts), 0o600)
        if self._verdicts.get(build) is False:
            shutil.rmtree(self._root / key, ignore_errors=True)
            return 0
        self._shrink()
        return kept

    async def _speed(self, endpoint: Endpoint, key: str) -> float:
        """Seconds a token of a prompt takes on children of ``key``: their best average, since a restored one reads next to none."""
        seen = await _reading_speed(endpoint)
        if seen:
            self._speeds[key] = min(seen, self._speeds.get(key, seen))
        return self._speeds.get(key, 0.0)

    def _noted(self, saved: _Acted) -> int:
        """Learn the disk's pace from what was written; tokens saved."""
        if saved.n_written >= _TOLD_LEAST and saved.timings.save_ms > 0:
            self._pace = (self._pace + saved.n_written / saved.timings.save_ms * 1000) / 2
        return saved.n_saved

    async def _works(self, endpoint: Endpoint) -> bool:
        """Whether a slot that is saved, erased and restored knows its prompt again."""
        first = await _complete(endpoint)
        if first is None or await self._act(endpoint, "0", "save", "probe.tmp") is None:
            return False
        await self._act(endpoint, "0", "erase", "")
        await self._act(endpoint, "0", "restore", "probe.tmp")
        again = await _complete(endpoint)
        whole = first.timings.cache_n + first.timings.prompt_n
        return again is not None and again.timings.cache_n >= max(1, whole - 2)

    async def _act(self, endpoint: Endpoint, slot: str, action: str, name: str) -> _Acted | None:
        body = msgspec.json.encode({"filename": name} if name else {})
        answer = await ask(endpoint, f"/slots/{slot}?action={action}", _SECONDS, "POST", body)
        if answer is None or answer.status != 200:
            return None
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(answer.body, type=_Acted)
        return None

    def _shrink(self) -> None:
        """Remove the oldest files until the rest is within the limit."""
        files = sorted(self._files(), key=lambda file: -file.stat().st_mtime)
        left = self.limit
        for file in files:
            left -= file.stat().st_size
            if left < 0:
                _discard(file)

    def _files(self) -> Iterator[Path]:
        return self._root.glob("*/*")


def net_seconds(reading: float, size: int, pace: float) -> float:
    """What a file of ``size`` bytes saves of ``reading`` seconds, once it is written and read at ``pace`` bytes a second."""
    return reading - 2 * size / pace


async def _slots(endpoint: Endpoint) -> list[_Slot]:
    answer = await ask(endpoint, "/slots", 3.0)
    if answer is None or answer.status != 200:
        return []
    try:
        return msgspec.json.decode(answer.body, type=list[_Slot])
    except msgspec.DecodeError:
        return []


async def _reading_speed(endpoint: Endpoint) -> float:
    """Seconds that a token of a prompt took on this child so far, on average; 0.0 when it does not tell."""
    told = await figures(endpoint, 3.0)
    tokens = told.get("prompt_tokens_total", 0.0)
    return told.get("prompt_seconds_total", 0.0) / tokens if tokens else 0.0


async def _complete(endpoint: Endpoint) -> _Completion | None:
    body = msgspec.json.encode({"prompt": _PROBE, "n_predict": 1, "id_slot": 0, "cache_prompt": True})
    answer = await ask(endpoint, "/completion", _SECONDS, "POST", body)
    if answer is None or answer.status != 200:
        return None
    try:
        return msgspec.json.decode(answer.body, type=_Completion)
    except msgspec.DecodeError:
        return None


def _read_verdicts(path: Path) -> dict[str, bool]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, bool])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _discard(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
