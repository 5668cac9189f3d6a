"""Number formats: ggml tensor types with their block sizes, llama file types, and the sizes of KV cache types.

Sources: ggml/include/ggml.h and ggml-common.h (types, blocks), include/llama.h (file types), all of llama.cpp b11434.
"""

from __future__ import annotations

import re

import msgspec


class TensorType(msgspec.Struct, frozen=True):
    """A ggml type: ``block`` elements are stored in ``size`` bytes. Both are 0 for a type newer than this table."""

    name: str
    block: int
    size: int

    def nbytes(self, elements: int) -> int:
        """Bytes of a tensor with so many elements; 0 when the type is unknown."""
        return elements // self.block * self.size if self.block else 0


_TENSOR_TABLE = """
0 F32 1 4         1 F16 1 2         2 Q4_0 32 18      3 Q4_1 32 20      6 Q5_0 32 22     7 Q5_1 32 24
8 Q8_0 32 34      9 Q8_1 32 40      10 Q2_K 256 84    11 Q3_K 256 110   12 Q4_K 256 144  13 Q5_K 256 176
14 Q6_K 256 210   15 Q8_K 256 292   16 IQ2_XXS 256 66 17 IQ2_XS 256 74  18 IQ3_XXS 256 98
19 IQ1_S 256 50   20 IQ4_NL 32 18   21 IQ3_S 256 110  22 IQ2_S 256 82   23 IQ4_XS 256 136
24 I8 1 1         25 I16 1 2        26 I32 1 4        27 I64 1 8        28 F64 1 8       29 IQ1_M 256 56
30 BF16 1 2       34 TQ1_0 256 54   35 TQ2_0 256 66   39 MXFP4 32 17    40 NVFP4 64 36
41 Q1_0 128 18    42 Q2_0 64 18
"""
_TENSOR_ROWS = re.findall(r"(\d+) ([A-Z]\S*) (\d+) (\d+)", _TENSOR_TABLE)
TENSOR_TYPES: dict[int, TensorType] = {
    int(number): TensorType(name, int(block), int(size)) for number, name, block, size in _TENSOR_ROWS
}

_FILE_TABLE = """
0 F32       1 F16       2 Q4_0     3 Q4_1     7 Q8_0    8 Q5_0     9 Q5_1      10 Q2_K     11 Q3_K_S
12 Q3_K_M   13 Q3_K_L   14 Q4_K_S  15 Q4_K_M  16 Q5_K_S 17 Q5_K_M  18 Q6_K     19 IQ2_XXS  20 IQ2_XS
21 Q2_K_S   22 IQ3_XS   23 IQ3_XXS 24 IQ1_S   25 IQ4_NL 26 IQ3_S   27 IQ3_M    28 IQ2_S    29 IQ2_M
30 IQ4_XS   31 IQ1_M    32 BF16    36 TQ1_0   37 TQ2_0  38 MXFP4_MOE 39 NVFP4  40 Q1_0     41 Q2_0
"""
FILE_TYPES: dict[int, str] = {
    int(number): name for number, name in re.findall(r"(\d+) ([A-Z]\S*)", _FILE_TABLE)
}

# What `--cache-type-k` and `--cache-type-v` take, by its spelling there.
CACHE_TYPES: dict[str, TensorType] = {
    kind.name.lower(): kind
    for kind in TENSOR_TYPES.values()
    if kind.name in {"F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"}
}

_TAG = re.compile(
    r"[-._]((?:UD-)?(?:IQ\d(?:_[A-Z0-9]+)*|Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4))\Z",
    re.IGNORECASE,
)


def split_quant(stem: str) -> tuple[str, str]:
    """A file name without ``.gguf`` and part number as (base, quant tag); the tag is upper-case, or empty.

    ``Qwen3-4B-UD-Q4_K_XL`` → (``Qwen3-4B``, ``UD-Q4_K_XL``). A tag that is the whole name is none.
    """
    found = _TAG.search(stem)
    if not found or found.start() == 0:
        return stem, ""
    tag = found[1].upper()
    return stem[: found.start()], {"FP16": "F16", "FP32": "F32"}.get(tag, tag)
