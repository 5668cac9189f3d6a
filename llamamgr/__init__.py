"""llamamgr: build, version, supervise and serve your own llama.cpp.

The packages, top to bottom (imports only point downward; ARCHITECTURE.md has the picture):

==============  ==============================================================
``cli``         one file per command
``daemon``      composition root, control client, auto-spawn
``proxy``       HTTP front: routes, relay, upstream connection
``supervise``   makes ``plan`` real: children, the supervisor loop, health, logs
``instances``   llama.cpp builds: sources, build, verify, publish, list
``models``      GGUF models: self-test model, scan, index, resolve
``host``        the only door to the machine
``plan``        pure decisions: scheduler, memory
``wire``        pure protocols: HTTP/1.1, SSE, engine, dialects
``core``        facts: errors, names, config, cards, flags, GGUF header
==============  ==============================================================
"""

__version__ = "0.1.0"
