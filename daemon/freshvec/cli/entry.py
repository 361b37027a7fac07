"""What the installed command runs: the command line, imported where Ctrl-C already ends it without a word."""

import sys


def main() -> None:
    """Import the command line, which takes half a second, and run it."""
    try:
        from freshvec.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
