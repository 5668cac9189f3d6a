"""A build whose tools are small shell scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llamamgr.core.cards import Build, BuildCard, Source

# A llama-quantize: knows its types, says what it does in pieces, and leaves half a file where it fails.
QUANTIZE = r"""
case "$1" in --help) cat <<'TEXT'
usage: llama-quantize [--help] [--dry-run] [--pure] model-f32.gguf [model-quant.gguf] type [nthreads]
-----------------------------------------------------------------------------
 allowed quantization types
-----------------------------------------------------------------------------

  15  or  Q4_K    : alias for Q4_K_M
  15  or  Q4_K_M  :  4.58G, +0.1754 ppl @ Llama-3-8B
   7  or  Q8_0    :  7.96G, +0.0026 ppl @ Llama-3-8B
          COPY    : only copy tensors, no quantizing
TEXT
exit 0;; esac
echo "$@" >> "$0.calls"
dry=
while :; do case "$1" in --dry-run) dry=1; shift;; --*) flag=$1; shift;; *) break;; esac; done
if [ "$dry" ]; then
  printf 'model size  =   100.00 MiB (16.00 BPW)\nquant size  =  %s MiB (4.85 BPW)\n' "${FAKE_QUANT_SIZE:-30.00}" >&2; exit 0
fi
in=$1 out=$2 type=$3 threads=$4
printf 'half a file' > "$out"
case "$FAKE_QUANTIZE" in
  requantize)
    printf '[   1/   2] output.weight - type = q8_0, ' >&2
    echo 'llama_model_quantize: failed to quantize: requantizing from type q8_0 is disabled' >&2; exit 1;;
  hang) echo '[   1/   2] output.weight - [ 8 ], type = f16, converting' >&2; : > "$0.hangs"; exec sleep 600;;
esac
printf '[   1/   2] output.weight - [ 8 ], type = f16, ' >&2
printf 'converting to q4_K .. size = 1 MiB -> 0 MiB\n[   2/' >&2
printf '   2] blk.0.weight - [ 8 ], type = f16, size = 1 MiB\n' >&2
printf 'model size  =   100.00 MiB\nquant size  =    30.00 MiB (4.85 BPW)\n' >&2
printf 'GGUF %s %s %s' "$(cat "$in")" "$type" "$threads" > "$out"
"""

# A llama-bench: pp and tg at the speeds in FAKE_SPEEDS ("pp tg").
BENCH = r"""
case "$1" in --help) echo "  --progress   print test progress indicators"; exit 0;; esac
for word; do case "$word" in --bogus) echo "error: invalid parameter for argument: --bogus" >&2; exit 1;; esac; done
set -- ${FAKE_SPEEDS:-1000 100}
echo "llama-bench: benchmark 1/2: prompt run 1/3" >&2
echo '{"n_prompt": 512, "n_gen": 0, "avg_ts": 1, "stddev_ts": 0.5, "samples_ts": ['"$1, $1, $1"'], "n_threads": 2, "new": {"a": 1}}'
echo "llama-bench: benchmark 2/2: generation run 3/3" >&2
echo '{"n_prompt": 0, "n_gen": 128, "avg_ts": 1, "stddev_ts": 0.5, "samples_ts": ['"$2, $2, $2"'], "n_threads": 2}'
"""


def make(root: Path, tools: Mapping[str, str], instance: str = "default", number: int = 1) -> Build:
    """A build in ``root`` with these scripts as ``bin/NAME``."""
    (root / "bin").mkdir(parents=True)
    for name, script in tools.items():
        path = root / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)
    card = BuildCard(f"b{number}-abc-cpu", instance, "cpu", number, "abc", Source("git"), verified=True)
    return Build(card, str(root))
