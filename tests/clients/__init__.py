"""Clients that people use, over the real llama-server: the official ones for JavaScript, frameworks for Python.

Every client has an environment of its own, pinned, made once and kept beside the other things that tests keep.
"""
