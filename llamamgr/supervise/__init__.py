"""Makes the plan real: children, the supervisor that owns them, health, logs, orphans.

``lease``       what is handed out, and the protocol the proxy sees
``supervisor``  the one writer: events into the plan, its commands into processes
``child``       one llama-server: launch, readiness, exit, stop sequence
``launch``      settings → argv and environment for one build
``probe``       one health question over a fresh connection
``logs``        a bounded ring and a rotated file per child
``orphans``     the state file that lets the next daemon reap what a killed one left
"""
