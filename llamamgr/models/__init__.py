"""GGUF models: found, read, named, remembered.

=============  ========================================================================================
``writer``     a GGUF file of values and tensors, without numpy
``selftest``   the embedded model: a known answer, a known tool call, a thought, endless text
``facts``      what one GGUF file says about itself
``scan``       files under folders → models (split parts, projectors, names) and files passed over
``cache``      what files said, remembered across processes
``sources``    where models are looked for: own store, folders, other programs' caches
``manifest``   what a stored model is made of; ``store``: manifests and blobs on disk; ``stored``: as cards
``create``     models made of models and files, copied, deleted
``pull``       models fetched; ``download``: one blob of them; ``progress``: what both tell
``single``     one model by the path of its file
``index``      the models there are, by name
``details``    what Ollama's API tells about a model
=============  ========================================================================================
"""
