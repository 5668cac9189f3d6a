"""Processes that stand in for the real ones, and how tests start either."""
