"""llama.cpp installations: where the source comes from, how it is built, checked, published and listed.

=================  ====================================================================
``store``          instances and builds on disk; publication by rename; the two locks
``recipes``        the arch recipes in force, and the best one for this machine
``prerequisites``  what is here of an arch, and what a build of it needs
``build_plan``     what a recipe comes to here: GPU targets, environment
``sources``        git, directory or package → a tree with its number and commit
``tools``          cmake and ninja: from PATH, from wheels, or fetched
``build``          configure, compile, collect
``verify``         ask a build what it is and let it answer a known question
``wishes``         what somebody wants, laid over what the instance is
``install``        all of it in order, behind one lock
``prebuilt``       official release archives in place of a build
``link``           a llama.cpp that something else installed, used where it lies
``ladder``         an engine when nothing is installed: PATH, package manager, build
``ledger``         what was current when and why; builds known to be bad
``switching``      which build is current: rollback, fall back, pin
``updating``       to the newest that the source has
``pruning``        removing builds and instances that nothing runs on
``choice``         which instance a command means
``planned``        what an install would do
``diagnosis``      what a machine has and lacks for all this, for ``llamamgr doctor``
=================  ====================================================================
"""
