"""The daemon: composition root, control client, auto-spawn; and the same engine inside somebody's own program.

==================  ========================================================================================
``run``             the daemon's life: start, parts, serve, orderly stop
``start``           what it starts with, read and checked before there is a loop
``parts``           its objects, and how they are put together
``listening``       the front for clients, and the control socket
``builds``          which build a child starts from
``residents``       models that are loaded without being asked for
``quantizing``      quantizing through the build in force
``reload``          a new configuration while it runs; ``config_watch``: when the file was changed
``keys``            the API keys in force; ``tls``: the front's certificate
``lag``             how late the loop is; ``tidying``: its own memory after a burst of work
``client``          talking to it over the control socket; ``spawn``: starting it for a command
``fit``             why a model is placed where it is
``oracle``          the question that tells a good build from a bad one
``private``         ``LlamaServer``, without the daemon: ``private_order`` → ``private_engine`` on ``own_thread``
``conversation``    what a program says to it and gets; ``one_shot``: by llama-cli, where there is no server
==================  ========================================================================================
"""
