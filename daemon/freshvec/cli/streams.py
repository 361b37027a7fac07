"""Standard input, output and error, as a shell, cron or a locale gave them: ready for what commands show."""

import io
import os
import sys


def ready() -> None:
    """Put nothing in the place of a stream that was closed, and "?" for characters that output cannot show.

    Else the next file or socket that is opened would be standard output or error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def flushed() -> OSError | None:
    """Write what is left of standard output. Returns why that cannot be; what is left is then dropped, or the
    interpreter would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None
