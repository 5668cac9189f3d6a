"""The HTTP front: Ollama's and OpenAI's APIs over the supervisor's children.

============  =====================================================================================
app           ``build_app``: the routes of the public address
control       ``build_control_app``: the same and ``/control/*``, for the socket of the command line
services      what the handlers work with, given by the composition root
gate          middleware: who may ask (Host, Origin), request ids, and errors as answers
replies       answers and their exact headers, in each dialect
native        handlers of Ollama's generation endpoints
catalogue     handlers that tell about models: tags, show, ps, /v1/models
passage       handler of ``/v1/chat/completions``: bytes pass through but for ``model``
relay         one generation: lease → exchange → events, retried while the client has seen nothing
writer        a streamed answer, and its two ends
moments       times as Ollama writes them
upstream      one HTTP exchange with a child
============  =====================================================================================
"""
