"""What can go wrong, in words that a tired person can act on."""

import difflib
from collections.abc import Iterable, Sequence

# Of sysexits.h: the units do not start again what ends with it (RestartPreventExitStatus).
CONFIGURATION = 78


class FreshvecError(Exception):
    """An error that names the operation, the object and the remedy.

    `retryable` tells the worker whether the same attempt may succeed later without anybody's help.
    `exit_code` is the command's.
    """

    exit_code = 1

    def __init__(
        self, operation: str, subject: str, problem: str, remedy: str = "", *, retryable: bool = False
    ) -> None:
        self.operation = operation
        self.subject = subject
        self.problem = problem.strip().rstrip(".")
        self.remedy = remedy
        self.retryable = retryable
        super().__init__(str(self))

    def __str__(self) -> str:
        sentence = f"cannot {self.operation} {self.subject}: {self.problem}."
        return f"{sentence} {self.remedy}" if self.remedy else sentence


class ConfigError(FreshvecError):
    """The configuration has faults; the message lists all of them, one per line."""

    exit_code = CONFIGURATION

    def __init__(self, origin: str, faults: Sequence[str], remedy: str = "") -> None:
        self.faults = tuple(faults)
        super().__init__("use the configuration", origin, "; ".join(self.faults), remedy)

    def __str__(self) -> str:
        lines = "\n  - ".join((f"cannot {self.operation} {self.subject}:", *self.faults))
        return f"{lines}\n  {self.remedy}" if self.remedy else lines


class UsageError(ConfigError):
    """The command line is at fault, not the configuration."""

    exit_code = 2

    def __init__(self, *faults: str) -> None:
        super().__init__("of the command line", faults)


class DatabaseError(FreshvecError):
    """Postgres refused something, or could not be reached."""


class SchemaError(FreshvecError):
    """The database's tables, types or migrations are not as a sync needs them."""


class LockedError(FreshvecError):
    """Somebody holds a lock that is needed; it was given up, so that nobody waits for it.

    `vacuumed` are the tables that a vacuum holds.
    """

    def __init__(
        self, table: str, problem: str, remedy: str, vacuumed: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.vacuumed = vacuumed
        super().__init__("lock", table, problem, remedy, retryable=True)


class ModelError(FreshvecError):
    """A model is unknown, not exported, damaged, or cannot be run."""


class UnusableModelError(ModelError):
    """A model is unknown, not exported here, or damaged: the same attempt fails until somebody sees to it."""

    exit_code = CONFIGURATION


class DeviceError(ModelError):
    """The device for a model is missing, or this process lost it and only a new one can recover it."""


class EncodingError(FreshvecError):
    """The model's runtime failed on every text, so no text is at fault."""


class ServerError(FreshvecError):
    """Embeddings cannot be served over HTTP."""


class UnservableError(ServerError):
    """Others could reach the address and no key is set, or packages are missing: the same attempt fails until
    somebody sees to it."""

    exit_code = CONFIGURATION


class NotOwnedError(FreshvecError):
    """Another worker already owns this sync."""


class SupersededError(FreshvecError):
    """Another owner, or another definition, has taken a sync over: what this one has read must not be
    written."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "write",
            f"sync {name!r}",
            "another worker owns it by now, or another definition was applied",
            "This worker begins again from what is applied.",
            retryable=True,
        )


class NotFreshError(FreshvecError):
    """Some rows' embeddings are not those of their current text."""

    exit_code = 3


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that was probably meant; None where none is like it."""
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1, cutoff=cutoff)), None)


def meant(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The same as the end of a sentence; nothing where none is like it."""
    near = closest(word, known, cutoff)
    return "" if near is None else f"; did you mean {near}?"


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known word that was probably meant, else all of them."""
    known = sorted(known)
    return meant(word, known, cutoff) or f"; possible are {', '.join(known)}"
