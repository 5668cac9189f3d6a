#!/usr/bin/env python3
"""A stand-in for ``llama-fit-params``: the lines of the real one for a model of FAKE_FIT MiB, on the devices it is told to use.

``FAKE_FIT="model=4000,context=500,compute=300"``; ``fail`` ends as on a model that cannot be read, ``hang`` never answers,
``garbage`` says something else. Each call is appended to the file FAKE_FIT_LOG.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context
-np,   --parallel N                     number of parallel sequences to decode
-ub,   --ubatch-size N                  physical maximum batch size
-ctk,  --cache-type-k TYPE              KV cache data type for K
-m,    --model FNAME                    model path to load
-dev,  --device <dev1,dev2,..>          comma-separated list of devices to use for offloading
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
-ts,   --tensor-split N0,N1,N2,...      fraction of the model to offload to each GPU
-ot,   --override-tensor <tensor name pattern>=<buffer type>,...
                                        override tensor buffer type
-ncmoe, --n-cpu-moe N                   keep the MoE weights of the first N layers in the CPU
-fitt, --fit-target MiB0,MiB1,MiB2,...  target margin per device for --fit
-fitp, --fit-print [on|off]             print the estimated required memory
"""


def main(argv: list[str]) -> None:
    if "--help" in argv:
        print(HELP)
        return
    with Path(os.environ["FAKE_FIT_LOG"]).open("a") as log:
        log.write(" ".join(argv) + "\n")
    faults = dict(item.partition("=")[::2] for item in os.environ.get("FAKE_FIT", "").split(","))
    if "hang" in faults:
        time.sleep(60)
    if "fail" in faults:
        print("terminate called after throwing an instance of 'std::runtime_error'", file=sys.stderr)
        os.abort()
    if "garbage" in faults:
        print("All is well.")
        return
    sizes = [int(faults.get(name, "0")) for name in ("model", "context", "compute")]
    devices = [d for d in value(argv, "--device").split(",") if d and d != "none"]
    if "--fit-print" not in argv:
        shares = f" -ts {','.join(['9'] * len(devices))}" if len(devices) > 1 else ""
        print(f'-c 4096 -ngl 18{shares} -ot "blk\\.17\\.ffn_(up|down).*=CPU"')
        return
    on_gpus = 0.5 if "--override-tensor" in argv else 1.0
    for device in devices:
        print(device, *(int(size * on_gpus) // len(devices) for size in sizes), "")
    print("Host", *((int(size * (1 - on_gpus)) if devices else size) for size in sizes), "")


def value(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1] if name in argv else ""


if __name__ == "__main__":
    main(sys.argv[1:])
