"""The HTTP front over real child processes."""
