"""What the installed command runs: the command line, imported where Ctrl-C already ends it without a word."""

import os
import sys


def main() -> None:
    """Import the command line, which takes a while, and run it."""
    if sys.argv[1:2] != ["bench"]:
        # Only there numpy multiplies more than a row; threads for that would take as long as any import.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from freshvec.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
