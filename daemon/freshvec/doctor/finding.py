"""A finding: what is so, why it matters, and what mends it."""

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad it is. A fault keeps something from working; a warning will, or makes it slow."""

    OK = 0
    WARNING = 1
    FAULT = 2


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy` is a command or what to write; both are "" where all is well."""

    subject: str
    severity: Severity
    what: str
    why: str = ""
    remedy: str = ""


def ok(subject: str, what: str) -> Finding:
    return Finding(subject, Severity.OK, what)


def warning(subject: str, what: str, why: str, remedy: str) -> Finding:
    return Finding(subject, Severity.WARNING, what, why, remedy)


def fault(subject: str, what: str, why: str, remedy: str) -> Finding:
    return Finding(subject, Severity.FAULT, what, why, remedy)
