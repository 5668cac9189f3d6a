"""Exchanges recorded from a real Ollama over ``models/``, and how they are compared (``replay``)."""
