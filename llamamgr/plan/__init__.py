"""Pure decisions: what to start, stop, grant and refuse (``scheduler``), and how much memory a child needs (``memory``)."""
