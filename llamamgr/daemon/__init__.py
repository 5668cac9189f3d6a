"""The daemon: composition root (``run``), the current builds it starts children from, the control client and auto-spawn."""
