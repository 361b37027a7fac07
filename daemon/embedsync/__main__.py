"""`python -m embedsync`."""

from embedsync.cli import main

main()
