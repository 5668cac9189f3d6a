"""Stands for gguf-py."""
