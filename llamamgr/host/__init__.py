"""The only door to the machine: paths, environment, files, processes, git, package index, HTTP."""
