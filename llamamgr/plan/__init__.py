"""Pure decisions: what to start, stop, grant and refuse (``scheduler``, which asks ``situation`` what is the case and ``clearance``
who makes way), how much memory a child needs (``memory``), where it may live (``placement``), whether a new build is to blame for a
failure (``trial``), which slot of a child is stuck (``progress``)."""
