"""llama.cpp installations: where the source comes from, how it is built, checked, published and listed.

=================  ====================================================================
``store``          instances and builds on disk; publication by rename
``recipes``        the arch recipes in force, and the best one for this machine
``prerequisites``  what a build needs, and the commands that provide it
``sources``        git, directory or package → a tree with its number and commit
``tools``          cmake and ninja: from PATH, from wheels, or fetched
``build``          configure, compile, collect
``verify``         ask a build what it is and let it answer a known question
``install``        all of it in order, behind one lock
``diagnosis``      what a machine has and lacks for all this, for ``llamamgr doctor``
=================  ====================================================================
"""
