"""Makes the plan real: children, the supervisor that owns them, health, logs, orphans.

``lease``       what is handed out, and the protocols at both ends
``supervisor``  the one writer: events into the plan, its commands into processes
``orders``      what requests for one model ask of the plan, remembered
``wishes``      a request and its model's settings together
``estimates``   what a request asks of the plan: shape, places, memory, cost
``fitting``     what the build's own tool says a child would take
``measured``    what children really took, remembered
``memory``      measured before a start, after a load, while it runs and once it is gone
``gauge``       what the GPUs have free, and what each child holds of them
``devices``     which GPUs a child sees, and how it is told
``nursery``     children from the plan's word to start one to what is remembered of it
``life``        what is done at each step of one child's life
``child``       one llama-server: launch, readiness, exit, stop sequence
``judge``       after a death that nobody asked for: is the build to blame
``running``     a child as it is held and shown
``launch``      settings → argv and environment for one build
``probe``       one question over a fresh connection
``watch``       is a busy child still alive in more than name
``pace``        how fast its answers come
``slots``       prompt caches that outlive their child
``logs``        a bounded ring and a rotated file per child
``tally``       what has happened, counted
``refusals``    what a refusal of the plan means to people
``orphans``     the state file that lets the next daemon reap what a killed one left
"""
