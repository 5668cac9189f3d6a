"""Pure decisions: what to start, stop, grant and refuse (``scheduler``), how much memory a child needs (``memory``), which of its
slots is stuck (``progress``)."""
