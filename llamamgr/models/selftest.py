"""The self-test model: a real llama-architecture GGUF of 2 MB whose every answer is known beforehand.

Attention and feed-forward weights are zero, so the residual stream is the last token's embedding, and the output matrix
maps each token to the one that follows it: a chain, the same at any sensible temperature and on any device. The end of
the prompt picks the chain, and the chat template picks the end of the prompt:

===================================================  ========================================================
the last message                                     what the model says
===================================================  ========================================================
contains ``ENDLESS_PROMPT``                          `` one two three four one two …`` until stopped
any, with a tool called ``TOOL_NAME`` offered        a call of it with ``TOOL_ARGUMENTS``
any, ``enable_thinking`` true                        ``<think>THOUGHT</think>`` and ``ANSWER``
any other, a tool's result, a raw completion         ``ANSWER``
===================================================  ========================================================

llama-server itself sets ``enable_thinking`` for every template that can think, so a request that says nothing thinks;
``"chat_template_kwargs": {"enable_thinking": false}`` is the plain answer. Where a grammar forbids the chain the model
closes whatever is open: JSON mode gives ``{}``, a schema its smallest document with ``ANSWER`` for every string.

Widths are multiples of 256, so K-quants of this model are real ones. Byte tokens share one embedding: the vocabulary
may be larger than the embedding as long as the tokens that lead somewhere have a dimension of their own.
"""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

from llamamgr.host.files import write_atomic
from llamamgr.models.writer import F32Tensor, Value, gguf_bytes

NAME = "selftest"
FILE_NAME = "selftest.gguf"
ANSWER = "Every llama here is fed, brushed and ready."
THOUGHT = "They want to know how we are."
TOOL_NAME = "get_weather"
TOOL_ARGUMENTS: dict[str, Any] = {"city": "Paris"}
ENDLESS_PROMPT = "count forever"
CONTEXT = 16_384

_WIDTH = 256
_HEADS, _KV_HEADS = 4, 1
_FEED_FORWARD = 256

_BOS, _EOS = "<s>", "</s>"
_TURNS = ("<|system|>", "<|user|>", "<|tool|>")
_SAY, _CALL, _PONDER, _COUNT = (
    "<|assistant|>",
    "<|assistant_calls|>",
    "<|assistant_ponders|>",
    "<|assistant_counts|>",
)
_ANSWER = ("Every", "▁llama", "▁here", "▁is", "▁fed", ",", "▁brushed", "▁and", "▁ready", ".")
_THOUGHT = ("They", "▁want", "▁to", "▁know", "▁how", "▁we", "▁are.")
_NUMBERS = ("▁one", "▁two", "▁three", "▁four")
_TOOL = ("<tool_call>", '{"name":"get_weather",', '"arguments":{"city":', '"Paris"}}', "</tool_call>")
_THINK, _THOUGHT_END = "<think>", "</think>"

_CHAINS = (
    (_SAY, *_ANSWER, _EOS),
    (_CALL, *_TOOL, _EOS),
    (_PONDER, _THINK, *_THOUGHT, _THOUGHT_END, _ANSWER[0]),
    (_COUNT, *_NUMBERS, _NUMBERS[0]),
)

# Weights of the output matrix; a logit is 16 times as much. The gaps are wide enough for any temperature up to 10.
_CHAIN_WEIGHT = 16.0
_CLOSING_WEIGHTS = {_EOS: 7.0, '"': 6.5, "}": 4.5, "]": 4.0, ",": 3.5, ":": 3.5, "0": 3.0, "{": 2.0}
_EMPTY = (("{", "}"), ("[", "]"))
_EMPTY_WEIGHT = 8.0

_UNKNOWN_TYPE, _NORMAL, _CONTROL, _USER_DEFINED, _BYTE = 2, 1, 3, 4, 6

_TEMPLATE = (
    "{%- set given = namespace(tool=false) -%}"
    "{%- if tools -%}"
    "{%- for tool in tools -%}"
    "{%- if tool.function.name == '" + TOOL_NAME + "' -%}{%- set given.tool = true -%}{%- endif -%}"
    "{%- endfor -%}"
    "<|system|>{{ tools | tojson }}</s>"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}"
    "<|assistant|>"
    "{%- if message.reasoning_content -%}<think>{{ message.reasoning_content }}</think>{%- endif -%}"
    "{%- if message.content -%}{{ message.content }}{%- endif -%}"
    "{%- if message.tool_calls -%}{%- for call in message.tool_calls -%}"
    '<tool_call>{"name":"{{ call.function.name }}","arguments":{{ call.function.arguments | tojson }}}</tool_call>'
    "{%- endfor -%}{%- endif -%}"
    "</s>"
    "{%- else -%}"
    "<|{{ message.role if message.role in ['system', 'tool'] else 'user' }}|>{{ message.content }}</s>"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{%- set last = messages[-1] -%}"
    "{%- if last.content and '" + ENDLESS_PROMPT + "' in last.content -%}<|assistant_counts|>"
    "{%- elif given.tool and last.role != 'tool' -%}<|assistant_calls|>"
    "{%- elif enable_thinking is defined and enable_thinking -%}<|assistant_ponders|>"
    "{%- else -%}<|assistant|>"
    "{%- endif -%}"
    "{%- endif -%}"
)


def ensure(folder: Path) -> Path:
    """The model's file in ``folder``, written (by rename) when it is missing or is not what this version writes."""
    path = folder / FILE_NAME
    if _SOUND.get(path) == _identity(path) != ():
        return path
    content = selftest_bytes()
    try:
        is_sound = path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        is_sound = False  # missing or unreadable: what matters is whether it can be written
    if not is_sound:
        write_atomic(path, content)
    _SOUND[path] = _identity(path)
    return path


# what was found sound by this process: the daemon looks at its models' folders once a second
_SOUND: dict[Path, tuple[int, ...]] = {}


def _identity(path: Path) -> tuple[int, ...]:
    """What changes when the file does; () when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def selftest_bytes() -> bytes:
    """The file itself; the same bytes in every process on every machine."""
    vocabulary = _vocabulary()
    return gguf_bytes(_metadata(vocabulary), _tensors(vocabulary))


def _vocabulary() -> dict[str, int]:
    """Every token's text → its type, in the order of ids."""
    markers = dict.fromkeys((_BOS, _EOS, *_TURNS, _SAY, _CALL, _PONDER, _COUNT), _CONTROL)
    spoken = dict.fromkeys((_THINK, _THOUGHT_END, *_TOOL), _USER_DEFINED)
    pieces = dict.fromkeys((*_ANSWER, *_THOUGHT, *_NUMBERS), _NORMAL)
    return {
        "<unk>": _UNKNOWN_TYPE,
        **markers,
        **dict.fromkeys(map(_byte, range(256)), _BYTE),
        **spoken,
        **pieces,
    }


def _byte(value: int) -> str:
    return f"<0x{value:02X}>"


def _metadata(vocabulary: dict[str, int]) -> dict[str, Value]:
    ids = {token: number for number, token in enumerate(vocabulary)}
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": NAME,
        "general.file_type": 0,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": _WIDTH,
        "llama.block_count": 1,
        "llama.feed_forward_length": _FEED_FORWARD,
        "llama.attention.head_count": _HEADS,
        "llama.attention.head_count_kv": _KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": _WIDTH // _HEADS,
        "llama.vocab_size": len(vocabulary),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": list(vocabulary),
        "tokenizer.ggml.scores": [0.0] * len(vocabulary),
        "tokenizer.ggml.token_type": list(vocabulary.values()),
        "tokenizer.ggml.bos_token_id": ids[_BOS],
        "tokenizer.ggml.eos_token_id": ids[_EOS],
        "tokenizer.ggml.unknown_token_id": ids["<unk>"],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": _TEMPLATE,
    }


def _tensors(vocabulary: dict[str, int]) -> list[F32Tensor]:
    ids = {token: number for number, token in enumerate(vocabulary)}
    dimensions = _dimensions()
    embedding = [_row({dimensions.get(token, 0): 1.0}) for token in vocabulary]
    head = _WIDTH // _HEADS * _KV_HEADS
    return [
        F32Tensor("token_embd.weight", (_WIDTH, len(vocabulary)), b"".join(embedding)),
        F32Tensor("output_norm.weight", (_WIDTH,), _ones(_WIDTH)),
        F32Tensor("output.weight", (_WIDTH, len(vocabulary)), _output(ids, dimensions)),
        F32Tensor("blk.0.attn_norm.weight", (_WIDTH,), _ones(_WIDTH)),
        _zeros("blk.0.attn_q.weight", _WIDTH, _WIDTH),
        _zeros("blk.0.attn_k.weight", _WIDTH, head),
        _zeros("blk.0.attn_v.weight", _WIDTH, head),
        _zeros("blk.0.attn_output.weight", _WIDTH, _WIDTH),
        F32Tensor("blk.0.ffn_norm.weight", (_WIDTH,), _ones(_WIDTH)),
        _zeros("blk.0.ffn_gate.weight", _WIDTH, _FEED_FORWARD),
        _zeros("blk.0.ffn_up.weight", _WIDTH, _FEED_FORWARD),
        _zeros("blk.0.ffn_down.weight", _FEED_FORWARD, _WIDTH),
    ]


def _dimensions() -> dict[str, int]:
    """Tokens that lead somewhere of their own → their dimension; 0 is for all others."""
    leading = [token for chain in _CHAINS for token in chain[:-1]] + [_token(text) for text, _ in _EMPTY]
    return {token: number for number, token in enumerate(dict.fromkeys(leading), start=1)}


def _token(text: str) -> str:
    """The vocabulary's spelling of a closing token: one character is a byte token."""
    return text if len(text) > 1 else _byte(ord(text))


def _output(ids: dict[str, int], dimensions: dict[str, int]) -> bytes:
    """Row ``t``, column ``d``: how much the token of dimension ``d`` wants ``t`` to follow."""
    rows: list[dict[int, float]] = [{} for _ in ids]
    used = range(len(dimensions) + 1)
    for text, weight in _CLOSING_WEIGHTS.items():
        rows[ids[_token(text)]].update(dict.fromkeys(used, weight))
    for opening, closing in _EMPTY:
        rows[ids[_token(closing)]][dimensions[_token(opening)]] = _EMPTY_WEIGHT
        rows[ids[_ANSWER[0]]][dimensions[_token(opening)]] = _CHAIN_WEIGHT
    rows[ids[_ANSWER[0]]][0] = _CHAIN_WEIGHT
    for chain in _CHAINS:
        for token, following in itertools.pairwise(chain):
            rows[ids[following]][dimensions[token]] = _CHAIN_WEIGHT
    return b"".join(map(_row, rows))


def _row(values: dict[int, float]) -> bytes:
    row = bytearray(4 * _WIDTH)
    for column, value in values.items():
        struct.pack_into("<f", row, 4 * column, value)
    return bytes(row)


def _ones(count: int) -> bytes:
    return struct.pack("<f", 1.0) * count


def _zeros(name: str, width: int, rows: int) -> F32Tensor:
    return F32Tensor(name, (width, rows), bytes(4 * width * rows))
