"""Benchmarks: each prints what it measured and the ratio that matters, all from this one run."""

from __future__ import annotations

import argparse
import asyncio
import compileall
import contextlib
import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

import llamamgr
from tests.bench import builds, proxies
from tests.bench.harness import build, daemon, home, model_file
from tests.bench.peers import faults, peers
from tests.bench.slots import slots
from tests.bench.soak import soak

CHAT = {"model": "selftest", "messages": [{"role": "user", "content": "hello"}]}


def _bare_argv(path: str) -> list[str]:
    """A llama-server as somebody would start it by hand, on the socket ``path``."""
    options = ["--host", path, "-np", "4", "-c", "8192", "--no-ui", "--offline"]
    return [build().tool("llama-server"), "-m", str(model_file()), *options]


class Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def cli() -> None:
    """Whole processes of commands that show or ask: milliseconds, median of 9."""
    compileall.compile_dir(Path(llamamgr.__file__).parent, quiet=1)  # as pip does when it installs
    with home(), daemon():
        for arguments in (["--help"], ["list"], ["ps"], ["show", "selftest"], ["version"]):
            taken = [_timed([sys.executable, "-m", "llamamgr", *arguments]) for _ in range(9)]
            print(
                f"  llamamgr {' '.join(arguments):16} {statistics.median(taken) * 1000:7.1f} ms   (promise: 120 ms)"
            )


def _timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def cold() -> None:
    """First answer of an unloaded model: through llamamgr against a bare llama-server, median of 9 each, taken in turn."""
    with home() as folder, daemon() as url:
        through, bare = [], []
        for _ in range(9):
            through.append(_cold_through(url))
            bare.append(_cold_bare(folder))
        ours, theirs = statistics.median(through), statistics.median(bare)
        print(f"  bare llama-server {theirs * 1000:6.1f} ms, llamamgr {ours * 1000:6.1f} ms:")
        print(
            f"  {ours / theirs:.2f} times, {1000 * (ours - theirs):+.1f} ms   (promise: +60 ms; the peers: about +230 ms)"
        )


def _cold_through(url: str) -> float:
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    started = time.perf_counter()
    _ask(connection, "/api/chat", {**CHAT, "stream": False})
    taken = time.perf_counter() - started
    _ask(connection, "/api/generate", {"model": "selftest", "keep_alive": 0})
    while json.loads(_get(connection, "/api/ps"))["models"]:
        time.sleep(0.01)
    connection.close()
    time.sleep(0.1)  # the former child is gone; let the machine settle for both sides alike
    return taken


def _cold_bare(folder: Path) -> float:
    path = str(folder / "b.sock")
    Path(path).unlink(missing_ok=True)
    argv = _bare_argv(path)
    started = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            connection = Unix(path)
            try:
                connection.request(
                    "POST", "/v1/chat/completions", json.dumps(CHAT), {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    return time.perf_counter() - started
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()


def _ask(connection: http.client.HTTPConnection, path: str, body: object) -> bytes:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse().read()


def _get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    return connection.getresponse().read()


def proxy() -> None:
    """Proxies in front of an upstream that is faster than they are: requests, first bytes, chunks, CPU, memory."""
    amounts = proxies.Amounts(rounds=OPTIONS.rounds)
    if OPTIONS.tiny:
        amounts = proxies.Amounts(rounds=1, requests=64, firsts=8, chunks=20, body=2_000_000, settle=0)
    print(proxies.run(amounts, OPTIONS.llama_swap, OPTIONS.ollama), flush=True)


def engine() -> None:
    """Requests per second and time to first byte, through llamamgr against the same llama-server directly."""
    with home() as folder, daemon() as url:
        asyncio.run(_engine(url, folder))


async def _engine(url: str, folder: Path) -> None:
    path = str(folder / "d.sock")
    argv = _bare_argv(path)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await _until_healthy(path)
        direct = lambda: aiohttp.ClientSession(connector=aiohttp.UnixConnector(path, force_close=True))  # noqa: E731
        rows = [
            ("direct /v1 stream", direct, "http://localhost/v1/chat/completions"),
            ("llamamgr /v1 stream", aiohttp.ClientSession, f"{url}/v1/chat/completions"),
            ("llamamgr /api stream", aiohttp.ClientSession, f"{url}/api/chat"),
        ]
        figures = []
        for name, session, target in rows:
            await _load(session, target, 20, 1)
            rate, first = await _load(session, target, 400, 8)
            figures.append(rate)
            print(
                f"  {name:22} {rate:7.0f} requests/s   first byte p50 {first * 1000:5.1f} ms   (8 at once, 400 requests)"
            )
        print(f"  ratio to direct: /v1 {figures[1] / figures[0]:.2f}, /api {figures[2] / figures[0]:.2f}")
    finally:
        process.kill()
        process.wait()


async def _until_healthy(path: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get("http://localhost/health") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.02)


async def _load(
    make: Callable[[], aiohttp.ClientSession], url: str, total: int, clients: int
) -> tuple[float, float]:
    firsts: list[float] = []

    async def client() -> None:
        async with make() as session:
            for _ in range(total // clients):
                started = time.perf_counter()
                async with session.post(url, json={**CHAT, "stream": True}) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.content.readany()
                    firsts.append(time.perf_counter() - started)
                    await answer.read()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return total / (time.perf_counter() - started), statistics.median(firsts)


def swap() -> None:
    """Two models that may not be loaded together, asked in turn: what a swap costs above stopping one and loading the other."""
    with home() as folder:
        other = folder / "gguf" / "other.gguf"
        other.parent.mkdir()
        other.write_bytes(model_file().read_bytes() + bytes(64))
        (folder / "config").mkdir()
        settings = f'models_dirs = ["{other.parent}"]\n[scheduler]\nmax_models = 1\n'
        (folder / "config" / "config.toml").write_text(settings)
        with daemon() as url:
            swaps, bare, stops = [], [], []
            for turn in range(10):
                swaps.append(_asked(url, ("selftest", "other")[turn % 2]))
                bare.append(_cold_bare(folder))
                stops.append(_bare_stop(folder))
        ours, load, stop = statistics.median(swaps[1:]), statistics.median(bare), statistics.median(stops)
        print(f"  swap {ours * 1000:.1f} ms; bare stop {stop * 1000:.1f} ms + bare load {load * 1000:.1f} ms")
        print(f"  overhead {1000 * (ours - load - stop):+.1f} ms   (promise: +60 ms)")


def _asked(url: str, model: str) -> float:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    started = time.perf_counter()
    _ask(connection, "/api/chat", {**CHAT, "model": model, "stream": False})
    taken = time.perf_counter() - started
    connection.close()
    return taken


def _bare_stop(folder: Path) -> float:
    """From SIGTERM to the exit of an idle llama-server."""
    path = str(folder / "s.sock")
    Path(path).unlink(missing_ok=True)
    argv = _bare_argv(path)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    asyncio.run(_until_healthy(path))
    started = time.perf_counter()
    process.terminate()
    process.wait()
    return time.perf_counter() - started


def builds_() -> None:
    """Builds of neighbouring versions, the ccache empty before the first (half an hour; only when named)."""
    builds.run()


BENCHMARKS = {
    "cli": cli,
    "cold": cold,
    "engine": engine,
    "proxy": proxy,
    "swap": swap,
    "slots": slots,
    "faults": faults,
    "peers": peers,
    "soak": soak,
    "builds": builds_,
}
ONLY_WHEN_NAMED = ("soak", "builds")


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name:8} {body.__doc__}" for name, body in BENCHMARKS.items()),
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="what to run; default: all but soak and builds"
    )
    parser.add_argument(
        "--seconds", type=float, default=1200, help="length of the soak (default: %(default)g)"
    )
    of_proxy = parser.add_argument_group("proxy")
    of_proxy.add_argument("--llama-swap", default="", metavar="PATH", help="compare with this llama-swap")
    of_proxy.add_argument("--ollama", default="", metavar="PATH", help="and with this Ollama")
    of_proxy.add_argument("--rounds", type=int, default=5, help="figures are medians of so many rounds")
    of_proxy.add_argument("--tiny", action="store_true", help="a few requests only: does it work at all")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    return asked


OPTIONS = options()


def main() -> None:
    """Run what is named, or all but ``ONLY_WHEN_NAMED``; exit code 1 where one that makes promises saw one broken."""
    kept = True
    for name in OPTIONS.names or [name for name in BENCHMARKS if name not in ONLY_WHEN_NAMED]:
        body = BENCHMARKS[name]
        print(f"{name}: {body.__doc__}", flush=True)
        kept = (body(OPTIONS.seconds) if name == "soak" else body()) is not False and kept
    sys.exit(0 if kept else 1)


main()
