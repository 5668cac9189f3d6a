"""Makes the plan real: children, the supervisor that owns them, health, logs, orphans.

``lease``       what is handed out, and the protocols at both ends
``supervisor``  the one writer: events into the plan, its commands into processes
``wishes``      a request and its model's settings together
``estimates``   what a request asks of the plan: shape, places, memory, cost
``measured``    what children really took, remembered
``child``       one llama-server: launch, readiness, exit, stop sequence
``running``     a child as it is held and shown
``launch``      settings → argv and environment for one build
``probe``       one question over a fresh connection
``watch``       is a busy child still alive in more than name
``pace``        how fast its answers come
``slots``       prompt caches that outlive their child
``logs``        a bounded ring and a rotated file per child
``refusals``    what a refusal of the plan means to people
``orphans``     the state file that lets the next daemon reap what a killed one left
"""
