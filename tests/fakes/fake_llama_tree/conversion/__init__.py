"""Stands for the conversion package."""
