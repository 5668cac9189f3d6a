"""The HTTP front: Ollama's, OpenAI's, Anthropic's and llama.cpp's own APIs over the supervisor's children.

============  =====================================================================================
app           ``build_app``: the routes of the public address
control       ``build_control_app``: the same and ``/control/*``, for the socket of the command line
services      what the handlers work with, given by the composition root
connections   the connections of clients: how slow they may be, how many there may be
site          the address it listens on, with TLS or without
gate          the one middleware: request ids, what is counted, errors as answers
doorkeeper    who may ask (Host, Origin, key), and how many at once
keyring       the API keys in force, and what each of them is doing
visit         the request that is being answered: its id, key and model, for handlers and log lines
answer        a whole answer, whose head and body are mostly one piece
replies       answers and their exact headers, in each dialect
native        handlers of Ollama's generation endpoints
catalogue     handlers that tell about models: tags, show, ps
models        handlers that change which models there are: create, copy, delete, blobs, pull
transfers     pulls under way, shared by all who ask for the same model
shortcuts     routes that are found by one look-up
routes        the routes of the other APIs, as one table
description   ``/openapi.json``, made of ``operations``: every route as clients see it
passage       ``/v1/chat/completions``: passed through, checked, under the name that was asked for
scripted      the same translated, for a model with a Go template
performance   a chat's answer as events: by the engine's own template, or by a Go template
completions   ``/v1/completions``; ``embeddings``, ``rerank``, ``responses``, ``transcriptions``: the endpoints of those names
openai        ``/v1/models``, and images, which are refused
anthropic     ``/v1/messages`` and ``/v1/messages/count_tokens``
engine_routes llama.cpp's own endpoints, and ``/upstream/{model}/…``
media         images by address, fetched where that is allowed
system        ``/api/system/status``
metrics       what the front counts of itself
exposition    ``/metrics``: all that llamamgr counts, as text
delivery      an answer that comes piece by piece brought to its end, the same for every dialect
relay         one generation: lease → exchange → events, retried while the client has seen nothing
writer        a streamed answer, and its two ends
moments       times as Ollama writes them
upstream      one HTTP exchange with a child
============  =====================================================================================
"""
