"""Protocols without I/O: bytes in, events out, bytes out.

===========  ======================================================================
errors       what can be wrong with bytes from a peer or a client
http1        client side of HTTP/1.1, as llama-server answers it
sse          server-sent events, both ways
neutral      the vocabulary in the middle: requests, and events of an answer
engine       llama-server's own dialect: calls to it; ``engine_stream``: its streams → neutral events
golang       JSON as Go's encoder writes it, and Go's words for a wrong type
ollama       Ollama's dialect: ``ollama_request`` and ``_options`` → ``_translate`` → ``ollama_answer``
openai       OpenAI's dialect, as far as a byte-for-byte passage needs it
===========  ======================================================================
"""
