"""Prompt caches across swaps: what keeping them on disk saves, and what it costs the model that takes over."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from pathlib import Path

import msgspec

from llamamgr.models import selftest
from tests.bench import random_model
from tests.bench.harness import daemon, home

_ROUNDS = 3
_OTHER = "selftest"
_LENGTHS = (200, 1500, 4000)  # tokens


class Figures(msgspec.Struct):
    """Medians in seconds; ``takeover`` is the other model's first token, which waits for the file. ``file`` is bytes."""

    first: float
    warm: float
    after_swap: float
    takeover: float
    file: int


def slots() -> None:
    """Time to the first token of a long prompt: never unloaded, after a swap with its cache kept on disk, and without."""
    print(f"  a model of random weights, {random_model.PARAMETERS / 1e6:.0f} M parameters in half precision")
    print(
        "  | prompt | read anew | never unloaded | after a swap, kept | not kept | gain | file "
        "| the other model, kept | not kept |"
    )
    print("  |---|---|---|---|---|---|---|---|---|")
    for length in _LENGTHS:
        kept, lost = measure(length, "slot_cache = 1073741824"), measure(length, "slot_cache = 0")
        cells = (
            f"{length} tokens",
            _ms(kept.first),
            _ms(kept.warm),
            _ms(kept.after_swap),
            _ms(lost.after_swap),
            f"{lost.after_swap / kept.after_swap:.1f} times",
            f"{kept.file / 1e6:.1f} MB" if kept.file else "none",
            _ms(kept.takeover),
            _ms(lost.takeover),
        )
        print(f"  | {' | '.join(cells)} |", flush=True)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def measure(tokens: int, setting: str) -> Figures:
    """Swap between the random model and the self-test model, ``_ROUNDS`` times, under one line of ``[scheduler]``."""
    with home() as folder:
        models = folder / "gguf"
        models.mkdir()
        random_model.write(models / "random.gguf")
        (folder / "config").mkdir()
        lines = f'models_dirs = ["{models}"]\n[scheduler]\nmax_models = 1\nparallel = 1\n{setting}\n'
        (folder / "config" / "config.toml").write_text(lines)
        with daemon() as url:
            return _measure(url, tokens, folder)


def _measure(url: str, tokens: int, folder: Path) -> Figures:
    text = ("llamas" * tokens)[: tokens - 20]  # a token per byte, and the template's own
    _first_token(url, _OTHER, "hello")
    first = _first_token(url, "random", text)
    warm = _first_token(url, "random", text)
    takeovers, returns = [], []
    for _ in range(_ROUNDS):
        takeovers.append(_first_token(url, _OTHER, "hello"))
        returns.append(_first_token(url, "random", text))
    file = max((f.stat().st_size for f in (folder / "state" / "slots").glob("*/*.bin")), default=0)
    return Figures(first, warm, statistics.median(returns), statistics.median(takeovers), file)


def _first_token(url: str, model: str, text: str) -> float:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "options": {"num_ctx": selftest.CONTEXT // 2, "num_predict": 1},
        "think": False,
        "stream": False,
    }
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
    started = time.perf_counter()
    connection.request("POST", "/api/chat", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    taken = time.perf_counter() - started
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{model}: {answer.status} {said.decode()}")
    return taken
