#!/usr/bin/env python3
"""A stand-in for ``llama-cli`` as a program that is asked once: it writes the transcript that the real one writes.

Its answer is ``Hello from the tiny llama.``. Faults come from ``FAKE_LLAMA``: ``cli-error`` fails as the real one does, with status
0 and ``Error:`` on stdout; ``cli-hang`` never ends; ``cli-exit=N`` ends with status N before it writes; ``cli-old`` has no
``--output``; ``cli-think`` thinks first. What it was called with is written beside it, into ``argv``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

OPTIONS = """----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context
-n,    --predict, --n-predict N         number of tokens to predict
-np,   --parallel N                     number of parallel sequences to decode
-m,    --model FNAME                    model path to load
--offline                               Offline mode
--log-colors [on|off|auto]              Set colored logging
-e,    --escape, --no-escape            whether to process escapes sequences
-f,    --file FNAME                     a file containing the prompt
-sysf, --system-prompt-file FNAME       a file containing the system prompt
-st,   --single-turn                    run conversation for a single turn only
--simple-io                             use basic IO
--temp, --temperature N                 temperature
-rea,  --reasoning [on|off|auto]        Use reasoning/thinking in the chat
"""
OUTPUT = "-o,    --output, --output-file FNAME    output file\n"
FLAGS = {"--offline", "--no-escape", "--single-turn", "--simple-io"}


def main(argv: list[str]) -> int:
    faults = dict(item.partition("=")[::2] for item in os.environ.get("FAKE_LLAMA", "").split(",") if item)
    if "--help" in argv:
        print(OPTIONS + ("" if "cli-old" in faults else OUTPUT), end="")
        return 0
    Path(__file__).with_name("argv").write_text("\n".join(argv), "utf-8")
    values, rest = {}, iter(argv)
    for word in rest:
        values[word] = "" if word in FLAGS else next(rest)
    print("\n\nLoading model...", flush=True)
    if "cli-hang" in faults:
        signal.pause()
    if "cli-exit" in faults:
        return int(faults["cli-exit"])
    prompt = Path(values["--file"]).read_text("utf-8")
    thought = "[Start thinking]\n\nLet me think.\n[End thinking]\n\n" if "cli-think" in faults else ""
    answer = "" if "cli-error" in faults else f"{thought}Hello from the tiny llama."
    if not answer:
        print("Error: request (9 tokens) exceeds the available context size (8 tokens), try increasing it")
    Path(values["--output"]).write_text(f"User:\n{prompt}\n\nAssistant:\n{answer}\n\n", "utf-8")
    print("Exiting...")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
