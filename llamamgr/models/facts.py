"""What one GGUF file says about itself, read once and remembered by path, size and time of change."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from llamamgr.core import gguf_facts, kv_cache
from llamamgr.core.gguf import SHORT_ARRAY, GgufError, Header, TruncatedError, read_header

# A small file's header comes with the first read; vocabularies of 260,000 tokens take 16 MB.
_LARGEST = 2**62  # what a count may be at most; a header that says more is wrong or malicious
_NUMBERS = ("parameters", "context", "embedding", "layers", "kv_bytes_per_token")
_STEPS = (256 * 1024, 4 * 1024**2, 32 * 1024**2, 512 * 1024**2)

_SAMPLES, _SAMPLE = 16, 4096  # pieces of the weights, from the first to the last, and bytes of each


class FileFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file as found (``size`` bytes, ``modified`` ns since the epoch) and what its header told.

    ``problem`` says why it cannot be used; then nothing else is known. ``digest`` is the SHA-256 of the header, the
    size and samples of the weights: checkpoints of one training have the same header. ``part``
    counts from 0 of ``parts``; a later part knows no more than its share of ``parameters``.
    """

    path: str
    size: int
    modified: int
    problem: str = ""
    kind: gguf_facts.FileKind = "model"
    digest: str = ""
    arch: str = ""
    quant: str = ""
    parameters: int = 0
    context: int = 0
    embedding: int = 0
    layers: int = 0
    kv_bytes_per_token: int = 0
    capabilities: tuple[str, ...] = ()
    chat_template: str = ""
    part: int = 0
    parts: int = 1


def read_facts(path: str, size: int, modified: int) -> FileFacts:
    """The facts of a file as it was found; faults of file or disk become its ``problem``."""
    try:
        header, head = load_header(Path(path))
        digest = _digest(Path(path), head, header, size)
    except (OSError, GgufError) as error:
        return FileFacts(path, size, modified, problem=_said(error))
    if header.file_size > size:
        missing = f"incomplete: {size:,} of {header.file_size:,} bytes are there"
        return FileFacts(path, size, modified, problem=missing)
    facts = _facts(header, head[: header.data_offset], path, size, modified, digest)
    absurd = [name for name in _NUMBERS if not 0 <= getattr(facts, name) <= _LARGEST]
    if absurd:
        return FileFacts(
            path, size, modified, problem=f"its header gives an impossible {absurd[0].replace('_', ' ')}"
        )
    return facts


def load_header(path: Path, *, arrays: int | None = SHORT_ARRAY) -> tuple[Header, bytes]:
    """The header and the bytes it was read from. Read, not mapped: a file cut while mapped would kill the process."""
    with path.open("rb", buffering=0) as file:
        data = b""
        for step in _STEPS:
            data += file.read(step - len(data))
            try:
                return read_header(data, arrays=arrays), data
            except TruncatedError:
                if len(data) < step:
                    raise
    raise GgufError(f"the header is longer than {_STEPS[-1]:,} bytes")


def _facts(header: Header, raw: bytes, path: str, size: int, modified: int, digest: str) -> FileFacts:
    stem = Path(path).stem
    kind = gguf_facts.kind(header, stem)
    split = gguf_facts.split(header, stem)
    is_projector = kind == "projector"
    known = (
        gguf_facts.projector_capabilities(header) if is_projector else gguf_facts.capabilities(header, raw)
    )
    return FileFacts(
        path,
        size,
        modified,
        kind=kind,
        digest=digest,
        arch=gguf_facts.architecture(header),
        quant=gguf_facts.quant(header, stem),
        parameters=gguf_facts.parameters(header),
        context=gguf_facts.context_length(header),
        embedding=gguf_facts.embedding_length(header),
        layers=gguf_facts.block_count(header),
        kv_bytes_per_token=kv_cache.kv_bytes_per_token(header),
        capabilities=known,
        chat_template=gguf_facts.chat_template(header),
        part=split.index if split else 0,
        parts=split.count if split else 1,
    )


def _digest(path: Path, head: bytes, header: Header, size: int) -> str:
    """Names the content without reading it all: 40 GB would take a minute."""
    digest = hashlib.sha256(head[: header.data_offset] + size.to_bytes(8, "little"))
    room = max(size - header.data_offset - _SAMPLE, 0)
    with path.open("rb", buffering=0) as file:
        for number in range(_SAMPLES):
            file.seek(header.data_offset + room * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _said(error: OSError | GgufError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
