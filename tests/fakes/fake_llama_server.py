#!/usr/bin/env python3
"""A stand-in for ``llama-server``: a real process with real sockets, the same answers, and switches that make it fail.

It knows the options of ``OPTIONS`` (any other is fatal, as with the real one), serves a UNIX socket or loopback TCP, and answers
a fixed sentence, a fixed tool call and, when asked to think, a fixed thought. What it promises is checked by the contract suite,
which runs on the real ``llama-server`` too. One file of the standard library only: it starts fast, and a copy of it will do for
a build's program.

Faults come from the environment: ``FAKE_LLAMA="slow-load=0.5,exit-at=mid-stream,exit-code=3"``.

==================  ==================================================================================
``once=PATH``       all faults hold only for the first process that finds no file PATH (it makes one)
``slow-load=S``     stays ``Loading model`` for S seconds
``never-healthy``   stays ``Loading model`` for ever
``early-models``    answers ``/v1/models`` while it loads, as builds of a year ago do
``hung-health``     accepts connections and never answers ``/health``
``exit-at=WHEN``    exits at ``start``, ``load``, ``ready`` (just after it), ``request``, ``reading``, ``mid-stream``
``exit-code=N``     with that code (default 1); a negative one is a signal (``-9``)
``ignore-sigterm``  does not stop on SIGTERM, however often; ``ignore-sigterm=N`` ignores the first N
``flood-stdout``    writes 8 MB of log at load and 1 MB at each request, and blocks when nobody reads
``says=TEXT``       writes a line to its log at each request; ``~`` are spaces
``split=N``         writes answers in pieces of N bytes
``delay=S``         S seconds before each token
``stall=N``         after N tokens sends nothing more and keeps the connection open
``garbage-frame``   after 2 tokens breaks the HTTP chunk framing
``garbage-json``    after 2 tokens sends an event that is no JSON
``error-stream``    after 2 tokens sends an error event and ends
``cut=N``           after N tokens closes the connection without the last chunk
``no-done``         ends a chat stream cleanly but without its last events
``fail=STATUS``     answers every generation with that error status before any token
``stuck=WORD``      a request whose prompt has WORD in it gives 2 tokens and then holds its slot for ever; others go on
``record=PATH``     appends each request that has a body to PATH: one JSON line of path and body
``wrong-port``      listens on another port than the asked one
``grandchild``      starts a process that inherits its pipes and outlives it by 20 s at most
``keep-vram``       leaves its memory on the made-up GPUs when it ends, as a driver that is late does
``old-help``        is a build of a year ago: older options, older ``--version``, no UNIX sockets
==================  ==================================================================================

Made-up GPUs come from the folder ``FAKE_GPUS`` (tests/fakes/gpus.py); they are called ``CUDA0`` …, or ``FAKE_GPU_KIND``. A fake
with ``FAKE_VRAM=BYTES`` takes that much of those that it may use, and ends when one has too little.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

ANSWER = ["Hello", " from", " the", " tiny", " llama", "."]
THOUGHT = ["Let", " me", " think", "."]
TOOL_NAME, TOOL_ARGUMENTS = "get_weather", '{"city":"Paris"}'
ENDLESS = "count forever"
PIECES = {
    "Hello": 263,
    " from": 264,
    " the": 265,
    " tiny": 266,
    " llama": 267,
    ".": 268,
    "<tool_call>": 269,
    "</tool_call>": 271,
}
MARKS = {
    "<s>": 1,
    "</s>": 2,
    "<|user|>": 259,
    "<|assistant|>": 260,
    "<|system|>": 261,
    "<|assistant_tools|>": 262,
}
TRAINED_CONTEXT = 2048
KEEP_ALIVE_SECONDS, KEEP_ALIVE_REQUESTS = 5, 100

# (names, value hint or "", description, era): era "both", "new" or "old"
# fmt: off
OPTIONS = [
    (("-h", "--help", "--usage"), "", "print usage and exit", "both"),
    (("--version",), "", "show version and build info", "both"),
    (("--list-devices",), "", "print list of available devices and exit", "both"),
    (("-t", "--threads"), "N", "number of CPU threads to use during generation (default: -1)", "both"),
    (("-tb", "--threads-batch"), "N", "number of threads to use during batch and prompt processing", "both"),
    (("-c", "--ctx-size"), "N", "size of the prompt context (default: 0, 0 = loaded from model)", "both"),
    (("-n", "--predict", "--n-predict"), "N", "number of tokens to predict (default: -1, -1 = infinity)", "both"),
    (("-b", "--batch-size"), "N", "logical maximum batch size (default: 2048)", "both"),
    (("-ub", "--ubatch-size"), "N", "physical maximum batch size (default: 512)", "both"),
    (("--keep",), "N", "number of tokens to keep from the initial prompt (default: 0, -1 = all)", "both"),
    (("-fa", "--flash-attn"), "[on|off|auto]", "set Flash Attention use ('on', 'off', or 'auto')", "both"),
    (("-ctk", "--cache-type-k"), "TYPE", "KV cache data type for K", "both"),
    (("-ctv", "--cache-type-v"), "TYPE", "KV cache data type for V", "both"),
    (("-lm", "--load-mode"), "MODE", "how the model is loaded (default: auto)", "new"),
    (("--mlock",), "", "force system to keep model in RAM rather than swapping or compressing", "old"),
    (("--no-mmap",), "", "do not memory-map model", "old"),
    (("-ngl", "--gpu-layers", "--n-gpu-layers"), "N", "max. number of layers to store in VRAM", "both"),
    (("-mg", "--main-gpu"), "INDEX", "the GPU to use for the model (default: 0)", "both"),
    (("-fit", "--fit"), "[on|off]", "whether to adjust unset arguments to fit in device memory", "new"),
    (("-fitt", "--fit-target"), "MiB0,MiB1,MiB2,...", "target margin per device for --fit", "new"),
    (("-dev", "--device"), "<dev1,dev2,..>", "comma-separated list of devices to use for offloading", "new"),
    (("-ts", "--tensor-split"), "N0,N1,N2,...", "fraction of the model to offload to each GPU", "both"),
    (("-ot", "--override-tensor"), "<tensor name pattern>=<buffer type>,...", "override tensor buffer type", "both"),
    (("--lora",), "FNAME", "path to LoRA adapter", "both"),
    (("-m", "--model"), "FNAME", "model path to load", "both"),
    (("--offline",), "", "Offline mode: forces use of cache, prevents network access", "both"),
    (("--log-colors",), "[on|off|auto]", "Set colored logging", "both"),
    (("-lv", "--verbosity", "--log-verbosity"), "N", "Set the verbosity threshold", "both"),
    (("-md", "--model-draft"), "FNAME", "draft model for speculative decoding", "both"),
    (("--draft", "--draft-n", "--draft-max"), "N", "the argument has been removed. use --spec-draft-n-max", "new"),
    (("-cram", "--cache-ram"), "N", "set the maximum cache size in MiB (default: 8192)", "new"),
    (("-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"), "", "use single unified KV buffer", "new"),
    (("--context-shift", "--no-context-shift"), "", "whether to use context shift on infinite text generation", "both"),
    (("--pooling",), "{none,mean,cls,last,rank}", "pooling type for embeddings", "both"),
    (("-np", "--parallel"), "N", "number of server slots (default: -1, -1 = auto)", "both"),
    (("-mm", "--mmproj"), "FILE", "path to a multimodal projector file", "both"),
    (("-a", "--alias"), "STRING", "set alias for model name (to be used by REST API)", "both"),
    (("--host",), "HOST", "ip address to listen, or bind to an UNIX socket if the address ends with .sock", "both"),
    (("--port",), "PORT", "port to listen (default: 8080)", "both"),
    (("--ui", "--webui", "--no-ui", "--no-webui"), "", "whether to enable the Web UI (default: enabled)", "new"),
    (("--no-webui",), "", "Disable the Web UI (default: enabled)", "old"),
    (("--embedding", "--embeddings"), "", "restrict to only support embedding use case", "both"),
    (("--rerank", "--reranking"), "", "enable reranking endpoint on server", "both"),
    (("--api-key",), "KEY", "API key to use for authentication", "both"),
    (("--api-key-file",), "FNAME", "path to file containing API keys", "both"),
    (("-to", "--timeout"), "N", "server read/write timeout in seconds", "both"),
    (("--sse-ping-interval",), "N", "seconds between pings of a silent stream", "new"),
    (("--metrics",), "", "enable prometheus compatible metrics endpoint", "both"),
    (("--props",), "", "enable changing global properties via POST /props", "both"),
    (("--slots", "--no-slots"), "", "expose slots monitoring endpoint", "both"),
    (("--slot-save-path",), "PATH", "path to save slot kv cache", "both"),
    (("--jinja", "--no-jinja"), "", "whether to use jinja template engine for chat", "both"),
    (("--warmup", "--no-warmup"), "", "whether to perform warmup with an empty run", "both"),
]
# fmt: on
CANONICAL_FIRST = (
    "--host",
    "--port",
    "--model",
    "--alias",
    "--ctx-size",
    "--parallel",
    "--api-key",
    "--api-key-file",
)


def parse_faults(text: str) -> dict[str, str]:
    """``a,b=1`` → ``{"a": "", "b": "1"}``; nothing when ``once=PATH`` has been used up."""
    faults = dict((item.strip().partition("=")[::2]) for item in text.split(",") if item.strip())
    once = faults.pop("once", "")
    if once:
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return {}
    return faults


def offered(faults: dict[str, str]) -> list[tuple[tuple[str, ...], str, str]]:
    era = "old" if "old-help" in faults else "new"
    return [(names, hint, text) for names, hint, text, of in OPTIONS if of in ("both", era)]


def help_text(faults: dict[str, str]) -> str:
    """As llama-server prints it: options at column 0, descriptions at column 40, a section line on top."""
    lines = ["----- common params -----", ""]
    for names, hint, text in offered(faults):
        first = f"{names[0]}," if len(names) > 1 else names[0]
        head = (
            f"{first:<6} {', '.join(names[1:])}" if len(first) <= 6 and len(names) > 1 else ", ".join(names)
        )
        head = f"{head} {hint}".rstrip()
        lines += [f"{head:<40}{text}"] if len(head) < 40 else [head, " " * 40 + text]
        lines.append(" " * 40 + f"(env: LLAMA_ARG_{names[-1].strip('-').upper().replace('-', '_')})")
    return "\n".join(lines) + "\n"


def parse_argv(argv: list[str], faults: dict[str, str]) -> dict[str, str]:
    """Canonical spelling → value; exits 1 on an option that is not offered, as the real one does."""
    known = {
        name: (names, hint)
        for names, hint, text in offered(faults)
        if "removed" not in text
        for name in names
    }
    values: dict[str, str] = {}
    rest = iter(argv)
    for word in rest:
        if word not in known:
            die(f"error: invalid argument: {word}")
        names, hint = known[word]
        key = next((n for n in names if n in CANONICAL_FIRST), word)
        value = next(rest, None) if hint else ""
        if value is None:
            die(f'error while handling argument "{word}": expected value for argument')
        values[key] = value
    return values


def die(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(1)


def log(message: str) -> None:
    sys.stderr.write(f"0.00.{int(time.monotonic() * 1e6) % 1_000_000:06d} I srv  {message}\n")
    sys.stderr.flush()


def tokenize(text: str, special: bool = True) -> list[int]:
    """tinychat's vocabulary: marks, the full stop, and bytes with spaces as U+2581."""
    tokens, at = [], 0
    while at < len(text):
        mark = next((m for m in MARKS if special and text.startswith(m, at)), "")
        if mark:
            tokens.append(MARKS[mark])
            at += len(mark)
        elif text[at] == ".":
            tokens.append(268)
            at += 1
        else:
            tokens += [3 + byte for byte in text[at].replace(" ", "▁").encode()]
            at += 1
    return tokens


def detokenize(tokens: list[int]) -> str:
    names = {number: text for text, number in (PIECES | MARKS).items()}
    raw = b"".join(bytes([t - 3]) if 3 <= t < 259 else names.get(t, "").encode() for t in tokens)
    return raw.decode("utf-8", "replace")


def render(body: dict) -> str:
    """tinychat's chat template."""
    tools = body.get("tools")
    prompt = f"<|system|>{json.dumps(tools)}</s>" if tools else ""
    for message in body["messages"]:
        role = {"assistant": "assistant", "system": "system"}.get(message.get("role", ""), "user")
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content)
        prompt += f"<|{role}|>{content}</s>"
    return prompt + ("<|assistant_tools|>" if tools else "<|assistant|>")


class Refusal(Exception):
    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", **more: int) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": status, "message": message, "type": kind, **more}}


def too_long(tokens: int, context: int) -> Refusal:
    message = (
        f"request ({tokens} tokens) exceeds the available context size ({context} tokens), try increasing it"
    )
    return Refusal(400, message, "exceed_context_size_error", n_prompt_tokens=tokens, n_ctx=context)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\nX-Accel-Buffering: no\r\n"
    b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
)
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Internal Server Error",
           501: "Not Implemented", 503: "Service Unavailable"}  # fmt: skip


def visible_gpus() -> list[Path]:
    """The folders of the GPUs that CUDA_VISIBLE_DEVICES shows, as CUDA reads it."""
    root = os.environ.get("FAKE_GPUS", "")
    found = sorted(Path(root).glob("[0-9][0-9]")) if root else []
    found.sort(key=lambda place: (place / "address").read_text())
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return found
    visible = []
    for word in shown.split(","):
        match = [g for i, g in enumerate(found) if word in (str(i), (g / "uuid").read_text())]
        if not match:
            break
        visible += match
    return visible


def gpu_names() -> dict[str, Path]:
    kind = os.environ.get("FAKE_GPU_KIND", "CUDA")
    return {f"{kind}{number}": place for number, place in enumerate(visible_gpus())}


def free_on(place: Path) -> int:
    held = sum(int(file.read_text()) for file in (place / "held").glob("[0-9]*"))
    return int((place / "total").read_text()) - held


def take_memory(values: dict[str, str]) -> None:
    """FAKE_VRAM bytes of the devices of --device (all without), by --tensor-split or in proportion to what is free."""
    wanted, names = int(os.environ.get("FAKE_VRAM", "0")), gpu_names()
    said = values.get("--device", ",".join(names))
    if not said or said == "none":
        return
    if strange := [name for name in said.split(",") if name not in names]:
        die(f'error while handling argument "--device": invalid device: {strange[0]}')
    places = [names[name] for name in said.split(",")]
    parts = [float(part) for part in values.get("--tensor-split", "").split(",") if part]
    parts = parts or [float(free_on(place)) for place in places]
    for place, part in zip(places, parts, strict=True):
        size = int(wanted * part / sum(parts))
        if size > free_on(place):
            die("ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory")
        if size:
            (place / "held" / f".{os.getpid()}").write_text(str(size))
            (place / "held" / f".{os.getpid()}").replace(place / "held" / str(os.getpid()))


def give_memory_back() -> None:
    for place in visible_gpus():
        (place / "held" / str(os.getpid())).unlink(missing_ok=True)


class Fake:
    """One running fake: its options, its faults, and the state ``loaded``."""

    def __init__(self, values: dict[str, str], faults: dict[str, str]) -> None:
        self.faults = faults
        self.alias = values.get("--alias") or values.get("--model", "")
        self.model = values.get("--model", "")
        self.slots = max(1, int(values.get("--parallel", "4")))
        total = int(values.get("--ctx-size", "0")) or TRAINED_CONTEXT
        self.context = total // self.slots if "--parallel" in values else total
        self.embeddings = "--embeddings" in values or "--embedding" in values
        self.reranks = "--reranking" in values or "--rerank" in values
        self.keys = [
            k for k in (values.get("--api-key") or os.environ.get("LLAMA_API_KEY", "")).split(",") if k
        ]
        if "--api-key-file" in values:
            self.keys += Path(values["--api-key-file"]).read_text().split()
        self.loaded = threading.Event()
        self.free = threading.Semaphore(self.slots)
        self.working: dict[int, Reply] = {}  # by slot
        self.tasks = 0
        self.predicted = [0, 0.0]  # tokens and seconds of answers that are over
        self.lock = threading.Lock()
        self.answer, self.thought, self.call, self.endless = known_answers(self.model)

    def flag(self, name: str) -> bool:
        return name in self.faults

    def number(self, name: str, default: float) -> float:
        return float(self.faults.get(name) or default)

    def exit(self, why: str) -> None:
        code = int(self.number("exit-code", 1))
        sys.stderr.write(f"fake llama-server: exits now ({why})\n")
        sys.stderr.flush()
        if code < 0:
            os.kill(os.getpid(), -code)
            time.sleep(5)
        os._exit(code)

    def exit_if(self, when: str) -> None:
        if self.faults.get("exit-at") == when:
            self.exit(when)

    def flood(self, size: int) -> None:
        if self.flag("flood-stdout"):
            line = "flood " + "x" * 993 + "\n"
            for _ in range(size // len(line)):
                sys.stdout.write(line)
            sys.stdout.flush()

    def load(self) -> None:
        self.flood(8_000_000)
        time.sleep(self.number("slow-load", 0))
        self.exit_if("load")
        if not Path(self.model).is_file() or Path(self.model).read_bytes()[:4] != b"GGUF":
            log(f"load_model: failed to load model, '{self.model}'")
            log("llama_server: exiting due to model loading error")
            os._exit(1)
        if self.flag("never-healthy"):
            threading.Event().wait()


def known_answers(model: str) -> tuple[list[str], list[str], tuple[str, str], str]:
    """What this model says: the self-test model's own words when it is that one, else tinychat's."""
    if "selftest" not in Path(model).name:
        return ANSWER, THOUGHT, (TOOL_NAME, TOOL_ARGUMENTS), ENDLESS
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    try:
        from llamamgr.models import selftest as known
    except ImportError:  # a copy of this file, run by a Python without llamamgr
        return ANSWER, THOUGHT, (TOOL_NAME, TOOL_ARGUMENTS), ENDLESS

    return (
        words(known.ANSWER),
        words(known.THOUGHT),
        (known.TOOL_NAME, known.TOOL_ARGUMENTS),
        known.ENDLESS_PROMPT,
    )


def words(text: str) -> list[str]:
    parts = text.split(" ")
    return parts[:1] + [" " + part for part in parts[1:]]


class Connection:
    """One accepted connection: reads requests one after the other, answers them, closes as cpp-httplib would."""

    def __init__(self, fake: Fake, peer: socket.socket) -> None:
        self.fake = fake
        self.peer = peer
        self.buffer = b""
        self.close = False
        self.over = False  # a fault has ended the running stream
        self.begun = False  # the head of an answer is out

    def serve(self) -> None:
        try:
            for _ in range(KEEP_ALIVE_REQUESTS):
                self.peer.settimeout(KEEP_ALIVE_SECONDS)
                request = self.read_request()
                if request is None:
                    return
                self.peer.settimeout(None)
                self.answer(*request)
                if self.close:
                    return
        except OSError:
            return
        finally:
            self.peer.close()

    def read_request(self) -> tuple[str, str, dict[str, str], bytes] | None:
        while b"\r\n\r\n" not in self.buffer:
            if not self.receive():
                return None
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        length = int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            if not self.receive():
                return None
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        self.close = headers.get("connection", "").lower() == "close"
        return method, target.partition("?")[0], headers, body

    def receive(self) -> bool:
        data = self.peer.recv(65536)
        self.buffer += data
        return bool(data)

    def write(self, data: bytes) -> None:
        step = int(self.fake.number("split", 0))
        if not step:
            self.peer.sendall(data)
            return
        for at in range(0, len(data), step):
            self.peer.sendall(data[at : at + step])
            time.sleep(0)

    def respond(self, status: int, body: dict | list) -> None:
        raw = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        self.respond_raw(status, raw, "application/json; charset=utf-8")

    def respond_text(self, status: int, text: str) -> None:
        self.respond_raw(status, text.encode(), "text/plain; version=0.0.4")

    def respond_raw(self, status: int, raw: bytes, kind: str) -> None:
        self.close = self.close or status >= 400
        keep = (
            "Connection: close"
            if self.close
            else f"Keep-Alive: timeout={KEEP_ALIVE_SECONDS}, max={KEEP_ALIVE_REQUESTS}"
        )
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}", "Server: llama.cpp", "Access-Control-Allow-Origin: ",
                 f"Content-Type: {kind}", f"Content-Length: {len(raw)}", keep, "", ""]  # fmt: skip
        self.write("\r\n".join(lines).encode() + raw)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        fake = self.fake
        self.begun = False
        if path in ("/health", "/v1/health") and fake.flag("hung-health"):
            threading.Event().wait()
        try:
            if not fake.loaded.is_set() and not (fake.flag("early-models") and path == "/v1/models"):
                raise Refusal(503, "Loading model", "unavailable_error")
            self.check_key(path, headers)
            if body and fake.flag("record"):
                self.record(path, body)
            handler = ROUTES.get((method, path))
            if handler is None:
                raise Refusal(404, "File Not Found", "not_found_error")
            try:
                handler(self, read_json(body) if method == "POST" else {})
            except (TypeError, AttributeError, KeyError, ValueError, OverflowError) as error:
                # what the real one's JSON library says of a wrong type
                raise Refusal(400, f"[json.exception.type_error.302] {error}") from None
        except Refusal as refusal:
            if not self.begun:
                self.respond(refusal.status, refusal.body)
            self.close = True

    def record(self, path: str, body: bytes) -> None:
        with Path(self.fake.faults["record"]).open("ab") as file:
            file.write(json.dumps({"path": path, "body": json.loads(body)}).encode() + b"\n")

    def check_key(self, path: str, headers: dict[str, str]) -> None:
        given = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
        if self.fake.keys and path not in ("/health", "/v1/health") and given not in self.fake.keys:
            raise Refusal(401, "Invalid API Key", "authentication_error")

    def health(self, _: dict) -> None:
        self.respond(200, {"status": "ok"})

    def props(self, _: dict) -> None:
        fake = self.fake
        self.respond(200, {
            "default_generation_settings": {"params": {"temperature": 0.8, "n_predict": -1}, "n_ctx": fake.context},
            "total_slots": fake.slots, "model_alias": fake.alias, "model_path": fake.model,
            "modalities": {"vision": False, "video": False, "audio": False}, "endpoint_slots": True,
            "chat_template": "{{ messages }}", "bos_token": "<s>", "eos_token": "</s>", "build_info": "b11434-0c1e570",
            "is_sleeping": False,
        })  # fmt: skip

    def models(self, _: dict) -> None:
        meta = {"n_vocab": 272, "n_ctx": self.fake.context, "n_ctx_train": TRAINED_CONTEXT, "n_embd": 320}
        card = {
            "id": self.fake.alias,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "llamacpp",
            "meta": meta,
        }
        self.respond(200, {"object": "list", "data": [card]})

    def slots(self, _: dict) -> None:
        fake = self.fake
        self.respond(200, [self.slot(i, fake.working.get(i)) for i in range(fake.slots)])

    def slot(self, number: int, reply: Reply | None) -> dict:
        row = {"id": number, "n_ctx": self.fake.context, "is_processing": reply is not None}
        if reply is not None:
            row |= {"id_task": reply.task, "n_prompt_tokens_processed": reply.prompt_tokens,
                    "next_token": [{"has_next_token": True, "n_decoded": reply.count}]}  # fmt: skip
        return row

    def metrics(self, _: dict) -> None:
        tokens, seconds = self.fake.predicted
        figures = {"tokens_predicted_total": tokens, "tokens_predicted_seconds_total": seconds}
        lines = [
            f"# TYPE llamacpp:{name} counter\nllamacpp:{name} {value}\n" for name, value in figures.items()
        ]
        self.respond_text(200, "".join(lines))

    def apply_template(self, body: dict) -> None:
        self.respond(200, {"prompt": render(with_messages(body))})

    def tokenize(self, body: dict) -> None:
        tokens = tokenize(body.get("content", ""), body.get("parse_special", True))
        self.respond(200, {"tokens": [1, *tokens] if body.get("add_special") else tokens})

    def detokenize(self, body: dict) -> None:
        self.respond(200, {"content": detokenize(body.get("tokens", []))})

    def embeddings(self, body: dict) -> None:
        if not self.fake.embeddings:
            raise Refusal(
                501,
                "This server does not support embeddings. Start it with `--embeddings`",
                "not_supported_error",
            )
        given = body.get("input", body.get("content", ""))
        texts = given if isinstance(given, list) else [given]
        rows = [
            {"object": "embedding", "embedding": [1.0, 0.0, 0.0, 0.0], "index": i}
            for i, _ in enumerate(texts)
        ]
        count = sum(len(tokenize(str(text))) + 1 for text in texts)
        usage = {"prompt_tokens": count, "total_tokens": count}
        self.respond(200, {"object": "list", "model": self.fake.alias, "data": rows, "usage": usage})

    def rerank(self, body: dict) -> None:
        if not self.fake.reranks:
            raise Refusal(
                501,
                "This server does not support reranking. Start it with `--reranking`",
                "not_supported_error",
            )
        asked = set(body.get("query", "").split())
        rows = [
            {"index": i, "relevance_score": float(len(asked & set(text.split())))}
            for i, text in enumerate(body.get("documents", []))
        ]
        usage = {"prompt_tokens": len(rows), "total_tokens": len(rows)}
        self.respond(200, {"model": self.fake.alias, "object": "list", "usage": usage, "results": rows})

    def lora_adapters(self, _: dict) -> None:
        self.respond(200, [])

    def input_tokens(self, body: dict) -> None:
        tokens = 1 + len(tokenize(render(with_messages(body))))
        self.respond(200, {"object": "response.input_tokens", "input_tokens": tokens})

    def chat(self, body: dict) -> None:
        self.generate(Chat(self.fake, with_messages(body)))

    def completion(self, body: dict) -> None:
        if "prompt" not in body:
            raise Refusal(400, '"prompt" is required')
        self.generate(Completion(self.fake, body))

    def generate(self, reply: Reply) -> None:
        fake = self.fake
        fake.exit_if("request")
        fake.flood(1_000_000)
        if fake.flag("says"):
            print(fake.faults["says"].replace("~", " "), flush=True)
        if fake.flag("fail"):
            status = int(fake.number("fail", 500))
            raise Refusal(
                status, "fake failure", "server_error" if status >= 500 else "invalid_request_error"
            )
        if reply.prompt_tokens >= fake.context:
            raise too_long(reply.prompt_tokens, fake.context)
        with fake.free:
            reply.begin()
            try:
                if reply.body.get("stream"):
                    self.stream(reply)
                else:
                    fake.exit_if("mid-stream")
                    pieces = self.until_gone(reply.pieces(delay=fake.number("delay", 0)))
                    self.respond(200, reply.whole([*pieces]))
            finally:
                reply.end()

    def until_gone(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces while the client is there; the real one looks once a second."""
        for piece in pieces:
            if select.select([self.peer], [], [], 0)[0] and not self.peer.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError("the client left")
            yield piece

    def stream(self, reply: Reply) -> None:
        fake = self.fake
        self.close = self.begun = True  # the real one closes after each stream, whatever its headers say
        self.write(STREAM_HEAD)
        first = reply.first()
        for event in first:
            self.event(event)
        if len(first) > 1:
            fake.exit_if("reading")
        told = 0
        is_stuck = fake.flag("stuck") and fake.faults["stuck"] in reply.prompt
        for piece in reply.pieces(delay=fake.number("delay", 0)):
            if is_stuck and told == 2:
                threading.Event().wait()
            self.mishap(told)
            if self.over:
                return
            if piece:
                self.event(reply.delta(piece))
            told += 1
        self.mishap(told)
        if self.over:
            return
        if not fake.flag("no-done"):
            for event in reply.last():
                self.event(event)
        self.write(b"0\r\n\r\n")

    def event(self, event: dict | str) -> None:
        raw = (
            event if isinstance(event, str) else json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        )
        data = f"data: {raw}\n\n".encode()
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def mishap(self, told: int) -> None:
        """The faults of a running stream, before token number ``told``; sets ``over`` when it has ended the stream."""
        fake = self.fake
        if told == 2:
            self.fault_after_two()
        if fake.flag("stall") and told == int(fake.number("stall", 2)):
            while self.peer.recv(4096):
                pass
            self.over = True
        if fake.flag("cut") and told == int(fake.number("cut", 2)):
            self.over = True

    def fault_after_two(self) -> None:
        fake = self.fake
        fake.exit_if("mid-stream")
        if fake.flag("garbage-frame"):
            self.write(b"zz not hex\r\ngarbage")
            self.over = True
        if fake.flag("garbage-json"):
            self.event('{"choices": [nonsense')
        if fake.flag("error-stream"):
            self.event(
                {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}
            )
            self.write(b"0\r\n\r\n")
            self.over = True


def read_json(body: bytes) -> dict:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"[json.exception.parse_error.101] parse error: {error}") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object")
    return value


def with_messages(body: dict) -> dict:
    if not isinstance(body.get("messages"), list):
        raise Refusal(400, "'messages' is required")
    for message in body["messages"]:
        if isinstance(message.get("content"), list) and any(
            p.get("type") == "image_url" for p in message["content"]
        ):
            raise Refusal(
                400,
                "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
            )
    return body


class Reply:
    """What is to be said to one request, as tokens; subclasses know how one endpoint frames them."""

    def __init__(self, fake: Fake, body: dict, prompt: str | list, said: list[str]) -> None:
        self.fake = fake
        self.body = body
        text = prompt if isinstance(prompt, str) else detokenize([p for p in prompt if isinstance(p, int)])
        self.prompt = text
        self.prompt_tokens = 1 + len(tokenize(text)) if isinstance(prompt, str) else len(prompt)
        self.said = said
        self.endless = fake.endless in text
        self.count = 0
        self.finish = "stop"
        self.stopping_word = ""
        self.id = "chatcmpl-" + os.urandom(16).hex()
        self.created = int(time.time())

    def begin(self) -> None:
        """Take a slot."""
        fake = self.fake
        self.since = time.monotonic()
        with fake.lock:
            fake.tasks += 1
            self.task = fake.tasks
            self.slot = next(i for i in range(fake.slots) if i not in fake.working)
            fake.working[self.slot] = self

    def end(self) -> None:
        fake = self.fake
        with fake.lock:
            del fake.working[self.slot]
            fake.predicted[0] += self.count
            fake.predicted[1] += time.monotonic() - self.since

    def limit(self) -> int:
        given = [
            self.body[name]
            for name in ("n_predict", "max_tokens", "max_completion_tokens")
            if self.body.get(name) is not None
        ]
        asked = given[0] if given else -1
        return asked if asked >= 0 else 10**9

    def pieces(self, delay: float):
        """The tokens one after the other, until the end, a stop string or the limit."""
        stops = self.body.get("stop") or []
        stops = [stops] if isinstance(stops, str) else stops if isinstance(stops, list) else []
        at = 0
        while self.endless or at < len(self.said):
            if self.count >= self.limit():
                self.finish = "length"
                return
            piece = self.said[at % len(self.said)]
            at += 1
            self.count += 1
            if piece in stops:
                self.stopping_word = piece
                return
            time.sleep(delay or (0.001 if self.endless else 0))
            yield piece
        if self.count >= self.limit():
            self.finish = "length"
            return
        self.count += 1  # the end-of-text token

    def timings(self) -> dict:
        count = max(1, self.count)
        return {"cache_n": 0, "prompt_n": self.prompt_tokens, "prompt_ms": 0.5, "prompt_per_token_ms": 0.1,
                "prompt_per_second": 2000.0, "predicted_n": self.count, "predicted_ms": 0.25 * count,
                "predicted_per_token_ms": 0.25, "predicted_per_second": 4000.0}  # fmt: skip

    def logprob(self, piece: str, top: int) -> dict:
        row = {"id": PIECES.get(piece, 0), "token": piece, "bytes": list(piece.encode()), "logprob": 0.0}
        others = [{"id": 0, "token": "", "bytes": [], "logprob": -17.8599910736084} for _ in range(top - 1)]
        return {**row, "top_logprobs": [dict(row), *others] if top else []}


class Chat(Reply):
    def __init__(self, fake: Fake, body: dict) -> None:
        self.calls = bool(body.get("tools")) and body.get("tool_choice") != "none"
        self.thinks = (body.get("chat_template_kwargs") or {}).get("enable_thinking") is True
        said = ["<call>", "", ""] if self.calls else fake.answer
        self.thinking = len(fake.thought) if self.thinks else 0
        super().__init__(fake, body, render(body), (fake.thought if self.thinks else []) + said)
        self.sent = 0

    def frame(self, **more) -> dict:
        return {**more, "created": self.created, "id": self.id, "model": self.fake.alias,
                "system_fingerprint": "b11434-0c1e570", "object": "chat.completion.chunk"}  # fmt: skip

    def choice(self, delta: dict, finish: str | None = None, **more) -> dict:
        return self.frame(choices=[{"finish_reason": finish, "index": 0, "delta": delta, **more}])

    def first(self) -> list[dict]:
        role = self.choice({"role": "assistant", "content": None})
        if not self.body.get("return_progress"):
            return [role]
        total = self.prompt_tokens
        progress = [{"total": total, "cache": 0, "processed": read, "time_ms": 0} for read in (0, total)]
        return [*({**role, "prompt_progress": one} for one in progress), role]

    def delta(self, piece: str) -> dict:
        self.sent += 1
        if self.sent <= self.thinking:
            return self.choice({"reasoning_content": piece})
        if self.calls:
            return self.choice({"tool_calls": [self.tool_call()]})
        if self.body.get("logprobs"):
            return self.choice(
                {"content": piece},
                logprobs={"content": [self.logprob(piece, self.body.get("top_logprobs", 0))]},
            )
        return self.choice({"content": piece})

    def tool_call(self) -> dict:
        name, arguments = self.fake.call
        return {
            "index": 0,
            "id": os.urandom(16).hex(),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }

    def ended(self) -> str:
        return "tool_calls" if self.calls and self.finish == "stop" else self.finish

    def usage(self) -> dict:
        return {"completion_tokens": self.count, "prompt_tokens": self.prompt_tokens,
                "total_tokens": self.count + self.prompt_tokens, "prompt_tokens_details": {"cached_tokens": 0}}  # fmt: skip

    def last(self) -> list[dict | str]:
        end = self.choice({}, self.ended())
        if self.body.get("verbose"):
            end["__verbose"] = {"content": "", "stopping_word": self.stopping_word}
        if (self.body.get("stream_options") or {}).get("include_usage"):
            return [
                end,
                {**self.frame(choices=[]), "usage": self.usage(), "timings": self.timings()},
                "[DONE]",
            ]
        return [{**end, "timings": self.timings()}, "[DONE]"]

    def whole(self, pieces: list[str]) -> dict:
        thought, said = pieces[: self.thinking], pieces[self.thinking :]
        message: dict = {"role": "assistant", "content": "" if self.calls else "".join(said)}
        if thought:
            message["reasoning_content"] = "".join(thought)
        if self.calls and said:
            call = self.tool_call()
            message["tool_calls"] = [{"type": "function", "function": call["function"], "id": call["id"]}]
        choice: dict = {"finish_reason": self.ended(), "index": 0, "message": message}
        if self.body.get("logprobs"):
            choice["logprobs"] = {
                "content": [self.logprob(p, self.body.get("top_logprobs", 0)) for p in said]
            }
        return {
            **self.frame(choices=[choice]),
            "object": "chat.completion",
            "usage": self.usage(),
            "timings": self.timings(),
        }


class Completion(Reply):
    def __init__(self, fake: Fake, body: dict) -> None:
        prompt = body["prompt"]
        text = prompt if isinstance(prompt, str) else detokenize(prompt)
        name, arguments = fake.call
        call = ["<tool_call>", f'{{"name":"{name}","arguments":{arguments}}}', "</tool_call>"]
        super().__init__(fake, body, prompt, call if text.endswith("<|assistant_tools|>") else fake.answer)
        self.tokens: list[int] = []

    def first(self) -> list[dict]:
        return []

    def chunk(self, content: str, tokens: list[int]) -> dict:
        return {"index": 0, "content": content, "tokens": tokens, "stop": False, "id_slot": -1,
                "tokens_predicted": self.count, "tokens_evaluated": self.prompt_tokens}  # fmt: skip

    def delta(self, piece: str) -> dict:
        chunk = self.chunk(piece, [PIECES.get(piece, 270)] if self.body.get("return_tokens") else [])
        top = self.body.get("n_probs") or 0
        return {**chunk, "completion_probabilities": [self.logprob(piece, top)]} if top else chunk

    def final(self, content: str, tokens: list[int]) -> dict:
        kind = "limit" if self.finish == "length" else "word" if self.stopping_word else "eos"
        return {"index": 0, "content": content, "tokens": tokens, "id_slot": 0, "stop": True, "model": self.fake.alias,
                "tokens_predicted": self.count, "tokens_evaluated": self.prompt_tokens, "generation_settings": {},
                "prompt": "<s>" + self.prompt, "has_new_line": False, "truncated": False, "stop_type": kind,
                "stopping_word": self.stopping_word, "tokens_cached": self.count + self.prompt_tokens - 1,
                "timings": self.timings()}  # fmt: skip

    def last(self) -> list[dict]:
        end = (
            [self.chunk("", [2] if self.body.get("return_tokens") else [])]
            if self.finish == "stop" and not self.stopping_word
            else []
        )
        return [*end, self.final("", [])]

    def whole(self, pieces: list[str]) -> dict:
        tokens = [PIECES.get(piece, 270) for piece in pieces] + ([2] if self.finish == "stop" else [])
        return self.final("".join(pieces), tokens if self.body.get("return_tokens") else [])


ROUTES = {
    ("GET", "/health"): Connection.health, ("GET", "/v1/health"): Connection.health, ("GET", "/props"): Connection.props,
    ("GET", "/metrics"): Connection.metrics,
    ("GET", "/slots"): Connection.slots, ("GET", "/v1/models"): Connection.models, ("GET", "/models"): Connection.models,
    ("POST", "/completion"): Connection.completion, ("POST", "/completions"): Connection.completion,
    ("POST", "/v1/chat/completions"): Connection.chat, ("POST", "/chat/completions"): Connection.chat,
    ("POST", "/apply-template"): Connection.apply_template, ("POST", "/tokenize"): Connection.tokenize,
    ("POST", "/detokenize"): Connection.detokenize, ("POST", "/v1/embeddings"): Connection.embeddings,
    ("POST", "/embedding"): Connection.embeddings, ("POST", "/v1/rerank"): Connection.rerank,
    ("GET", "/lora-adapters"): Connection.lora_adapters,
    ("POST", "/v1/chat/completions/input_tokens"): Connection.input_tokens,
}  # fmt: skip


def listen(values: dict[str, str], faults: dict[str, str]) -> tuple[socket.socket, str]:
    host, port = values.get("--host", "127.0.0.1"), int(values.get("--port", "8080"))
    try:
        if host.endswith(".sock") and "old-help" not in faults:
            server = socket.socket(socket.AF_UNIX)
            server.bind(host)
            name = f"unix://{host}"
        else:
            server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((host, 0 if "wrong-port" in faults else port))
            name = f"http://{host}:{server.getsockname()[1]}"
        server.listen(512)
    except OSError as error:
        die(f"srv  start: couldn't bind HTTP server socket, hostname: {host}, port: {port}: {error}")
    return server, name


def accept_forever(fake: Fake, server: socket.socket) -> None:
    while True:
        try:
            peer, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=Connection(fake, peer).serve, daemon=True).start()


def start_grandchild() -> None:
    if os.fork() == 0:
        signal.alarm(20)
        signal.pause()


def catch_stop(faults: dict[str, str]) -> None:
    left = [int(faults.get("ignore-sigterm") or 10**9) if "ignore-sigterm" in faults else 0]

    def stop(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            if "keep-vram" not in faults:
                give_memory_back()
            os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def main(argv: list[str]) -> None:
    asked = {"-h", "--help", "--usage", "--version", "--list-devices"} & set(argv)
    text = os.environ.get("FAKE_LLAMA", "")
    faults = parse_faults(
        ",".join(item for item in text.split(",") if not (asked and item.strip().startswith("once=")))
    )
    if asked:
        print_and_exit(asked, faults)
    values = parse_argv(argv, faults)
    if faults.get("exit-at") == "start":
        Fake({}, faults).exit("start")
    if "grandchild" in faults:
        start_grandchild()
    server, name = listen(values, faults)
    fake = Fake(values, faults)
    threading.Thread(target=accept_forever, args=(fake, server), daemon=True).start()
    log("init: no API key is set")
    fake.load()
    catch_stop(faults)
    take_memory(values)
    fake.loaded.set()
    log(f"llama_server: listening on {name}")
    fake.exit_if("ready")
    while True:
        signal.pause()


def print_and_exit(asked: set[str], faults: dict[str, str]) -> None:
    if "--version" in asked:
        new = "version: 0.6.0-dev (build 11434, commit 0c1e570)\nbuilt with GNU 12.2.0 for Linux x86_64"
        old = "version: 6500 (ed7adbfef)\nbuilt with cc (Debian 12.2.0) 12.2.0 for x86_64-linux-gnu"
        print(old if "old-help" in faults else new, file=sys.stderr)
    elif "--list-devices" in asked:
        mib = 1024 * 1024
        lines = [
            f"  {name}: Made-up GPU ({int((place / 'total').read_text()) // mib} MiB, {free_on(place) // mib} MiB free)"
            for name, place in gpu_names().items()
        ]
        print("\n".join(["Available devices:", *(lines or ["  (none)"])]))
    else:
        print(help_text(faults), end="")
    sys.exit(0)


def install(folder: Path, name: str = "llama-server") -> Path:
    """Put an executable ``name`` into ``folder`` that runs this fake (the process keeps its pid); its path."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / name
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{Path(__file__).resolve()}" "$@"\n')
    script.chmod(0o755)
    return script


if __name__ == "__main__":
    main(sys.argv[1:])
