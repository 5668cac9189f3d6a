"""``python -m llamamgr``."""

from llamamgr.cli import main

main()
