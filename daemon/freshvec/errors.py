"""What can go wrong, said so that a tired person can act on it."""

from collections.abc import Sequence


class FreshvecError(Exception):
    """An error that names the operation, the object and the remedy.

    `retryable` tells the service whether the same attempt may succeed later without anybody's help.
    `exit_code` is what the command line ends with.
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
        said = f"cannot {self.operation} {self.subject}: {self.problem}."
        return f"{said} {self.remedy}" if self.remedy else said


class ConfigError(FreshvecError):
    """The configuration has faults; all of them are listed, one a line."""

    exit_code = 2

    def __init__(self, origin: str, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("use the configuration", origin, "; ".join(self.faults))

    def __str__(self) -> str:
        return "\n  - ".join((f"cannot {self.operation} {self.subject}:", *self.faults))


class DatabaseError(FreshvecError):
    """Postgres refused or could not be reached."""


class SchemaError(FreshvecError):
    """The database's tables, types or migrations are not as a sync needs them."""


class ModelError(FreshvecError):
    """A model is unknown, not exported, damaged, or cannot be run."""


class DeviceError(ModelError):
    """The device a model should run on is missing, or this process has lost it and only another one may get it back."""


class EncodingError(FreshvecError):
    """The model's runtime failed on every text, so it is not the text's fault."""


class ServerError(FreshvecError):
    """Embeddings cannot be served over HTTP."""


class NotOwnedError(FreshvecError):
    """Another worker already keeps this sync."""


class SupersededError(FreshvecError):
    """Another owner, or another definition, has taken a sync over: what this one has read must not be written."""

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
