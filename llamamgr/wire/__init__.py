"""Protocols without I/O: bytes in, events out, bytes out.

===========  ======================================================================
errors       what can be wrong with bytes from a peer or a client
http1        client side of HTTP/1.1, as llama-server answers it; ``http1_request``: what it is asked
sse          server-sent events, both ways
neutral      the vocabulary in the middle: requests, and events of an answer
engine       llama-server's own dialect: calls to it; ``engine_stream``: its streams → neutral events;
             ``engine_errors``: its errors → one plain sentence
golang       JSON as Go's encoder writes it, and Go's words for a wrong type; ``go_fields``: names in any case, nulls;
             ``go_syntax``: Go's words for what is no JSON; ``go_quote``: texts as it quotes them
ollama       Ollama's dialect: ``ollama_request`` and ``_options`` → ``_translate`` → ``ollama_answer``
             ``ollama_models``: requests that make, copy and pull models
gotemplate   Go's templates: ``_lexer`` → ``_syntax`` → ``_nodes`` → ``_render`` over ``_values``
persona      what a Modelfile adds to every request; ``script``: a chat of any dialect by a Go template, whose
             answer ``template_answer`` reads; ``guidance``: words and sampling where it is not Ollama's
openai       OpenAI's errors and models; ``_chat`` → (engine) → ``_relay`` pass chats on, ``_chat_turns`` →
             (engine) → ``_chat_answer`` translate those of a Go template, ``_completions`` translates,
             ``_tools`` reads every form of ``tool_choice``
responses    OpenAI's Responses: ``_items``, ``_tools`` → ``_request`` → (engine) → ``_answer``; ``_memory`` of them,
             whose items are ``_stored`` in full
anthropic    Anthropic's dialect: ``_turns`` → ``_request`` → (engine) → ``_answer``
embeddings   vectors in three forms; ``rerank``: scores in three forms; ``transcription``: what is said in a
             recording; ``multipart``: forms with files
precedence   tools and a format in one chat, of which the engine takes one
shortening   a conversation without its oldest turns, when it is longer than the context; ``plainer_turns``: in an order
             that more templates take, when one has refused it
images       media in requests: enclosed, or given by an address; ``placing``: in prompts that are made here;
             ``senses``: in results of tools, for models that cannot take them
openapi      an OpenAPI document out of operations; ``_bodies`` and ``_answers``: what goes in and out
===========  ======================================================================
"""
