"""GGUF models: found, read, named, remembered.

=============  ========================================================================================
``writer``     a GGUF file of values and tensors, without numpy
``selftest``   the embedded model: a known answer, a known tool call, a thought, endless text
``facts``      what one GGUF file says about itself
``scan``       files under folders → models (split parts, projectors, names) and files passed over
``cache``      what files said, remembered across processes
``index``      the models there are, by name
``details``    what Ollama's API tells about a model
=============  ========================================================================================
"""
