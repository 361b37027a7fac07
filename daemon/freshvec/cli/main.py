"""The command line's entry: every command, and how an error ends the program."""

import os
import sys
import threading

import typer
from loguru import logger

from freshvec import logs

# Imported for their commands.
from freshvec.cli import (  # noqa: F401
    describe_command,
    fetch_command,
    look_commands,
    model_commands,
    run_commands,
    setup_commands,
    streams,
    swap_command,
    sync_commands,
    units_command,
)
from freshvec.cli.app import app, is_plain
from freshvec.cli.panels import arrange
from freshvec.errors import FreshvecError, UsageError

arrange(app)


def _check_arguments(arguments: list[str]) -> None:
    """Bytes that are no text come as surrogates, which nothing further on can write or send."""
    for place, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            problem = f"argument {place} is not text in UTF-8: {argument!a}"
            raise UsageError(problem) from None


def main() -> None:
    """Run the command line; an error of ours ends in one clear message and its exit code."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    streams.ready()
    logs.configure()
    if is_plain():
        from typer import rich_utils  # which takes a while

        rich_utils.COLOR_SYSTEM = None  # of --help and of wrong usage
    try:
        _check_arguments(sys.argv[1:])
        code = app(prog_name="freshvec", standalone_mode=False)
        _end(code if isinstance(code, int) else 0)  # 130 after Ctrl-C
    except typer.Abort:  # Ctrl-D, or Ctrl-C, at a question
        _end(130)
    except FreshvecError as error:
        logger.error("{}", error)
        _end(error.exit_code)
    except BrokenPipeError:
        _end(0)
    except OSError as error:
        logger.error("{}", _unusable(error))
        _end(1)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # wrong usage, as typer raises it
            error.show()
            _end(2)
        logger.exception("this should not have happened: {}", type(error).__name__)
        _end(1)


def _unusable(error: OSError) -> FreshvecError:
    """What to say of a file, or an output, that the machine does not let us use."""
    problem = error.strerror or str(error)
    remedy = "Make room or name another place, and run it again."
    return FreshvecError("use", str(error.filename or "standard output, or a file"), problem, remedy)


def _end(code: int) -> None:
    """End with `code`, or 1 where what was shown cannot be written.

    While a thread is inside the model's runtime, a tidy end would abort; so the process leaves at once.
    """
    error = streams.flushed()
    if error is not None and not isinstance(error, BrokenPipeError):
        logger.error("{}", _unusable(error))
        code = code or 1
    if any(thread.name.startswith("encoder") for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
