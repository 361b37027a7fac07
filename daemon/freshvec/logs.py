"""The one sink of the log: text for people, JSON on request, priorities for journald, never a secret."""

import json
import logging
import os
import re
import sys
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from loguru import logger

from freshvec.printable import in_lines

if TYPE_CHECKING:
    from loguru import Message, Record

_secrets: set[str] = set()
_numbers = count(1)
_IN_TEXT = (
    re.compile(r"(?P<keep>\b[a-z][a-z0-9+]*://[^\s:/@]*:)[^\s@]+(?=@)", re.IGNORECASE),
    re.compile(r"(?P<keep>\b(?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s'\"]+)", re.IGNORECASE),
)
_JOURNALD_PRIORITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "SUCCESS": 5, "INFO": 6}


@dataclass(frozen=True)
class Line:
    """One message that was logged, without secrets. `at` is in seconds since 1970."""

    number: int
    at: float
    level: str
    text: str


_tail: deque[Line] = deque(maxlen=200)


def speak_for(worker: str) -> None:
    """Let each line say which of several workers says it."""
    logger.configure(extra={"worker": worker})


def tail() -> list[Line]:
    """The last messages, oldest first."""
    return list(_tail)


def hide(secret: str) -> None:
    """Never let `secret` appear in a log line from now on."""
    if len(secret) >= 4:  # a shorter one would blank out ordinary words; the patterns still catch it
        _secrets.update({secret, repr(secret)[1:-1], quote(secret, safe="")})


def hide_url(url: str) -> None:
    """Hide a connection string, its password as written, and what a parser makes of an unescaped password."""
    hide(url)
    for password in re.findall(r"://[^:/@]*:(.*)@|[?&]password=([^&]*)", url):
        for piece in {*password, *re.split("[@/:?#]", "@".join(password))}:
            hide(piece)
    if "://" not in url:
        _hide_dsn(url)


def _hide_dsn(dsn: str) -> None:
    """The password of `key=value …`. Where that cannot be read, libpq names the word that it stumbles over:
    any that stands where a password was meant."""
    from psycopg import ProgrammingError, conninfo, pq  # only who connects needs it

    try:
        hide(str(conninfo.conninfo_to_dict(dsn).get("password") or ""))
    except ProgrammingError:
        keys = "|".join(option.keyword.decode() for option in pq.Conninfo.get_defaults())
        for meant in re.findall(rf"\bpassword\s*=(.*?)(?=\s(?:{keys})\s*=|$)", dsn, re.DOTALL):
            for word in re.split(r"[\s'\"=\\]+", meant):
                hide(word)


def redact(text: str) -> str:
    """`text` with every known secret, and whatever looks like a password in a URL or DSN, blanked out."""
    for secret in sorted(_secrets, key=len, reverse=True):  # a secret may be part of a longer one
        text = text.replace(secret, "***")
    for pattern in _IN_TEXT:
        text = pattern.sub(r"\g<keep>***", text)
    return text


class _Forward(logging.Handler):
    """Hands the standard library's log records to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(depth=6, exception=record.exc_info).log(record.levelname, "{}", record.getMessage())


def configure(level: str = "INFO", form: Literal["text", "json"] = "text") -> None:
    """Install the one sink on standard error. Called once, by the command line."""
    colour = sys.stderr.isatty() and form == "text" and not os.environ.get("NO_COLOR")
    journald = is_journal(sys.stderr.fileno())

    def sink(message: "Message") -> None:
        line = _as_json(message) if form == "json" else redact(str(message)).rstrip("\n")
        if journald:
            prefix = f"<{_JOURNALD_PRIORITY.get(message.record['level'].name, 7)}>"
            line = "\n".join(prefix + part for part in line.split("\n"))
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    logger.remove()
    logger.configure(patcher=_tame)
    # "diagnose" would print the variables of a traceback, passwords included.
    # journald has the time of each line itself.
    time = "" if journald else "<dim>{time:YYYY-MM-DD HH:mm:ss.SSS}</dim> "

    def pattern(record: "Record") -> str:
        worker = "{extra[worker]} " if "worker" in record["extra"] else ""
        return time + "<level>{level: <7}</level> " + worker + "{message}\n{exception}"

    logger.add(sink, level=level, format=pattern, colorize=colour, diagnose=False, backtrace=False)
    logger.add(_remember, level=level, format="{message}", diagnose=False, backtrace=False)
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)


def _tame(record: "Record") -> None:
    """A message may hold what a row or a server says."""
    record["message"] = in_lines(record["message"])


def _remember(message: "Message") -> None:
    record = message.record
    text = redact(record["message"])
    _tail.append(Line(next(_numbers), record["time"].timestamp(), record["level"].name, text))


def is_journal(descriptor: int) -> bool:
    """Whether a descriptor leads to journald. The variable alone is inherited by whatever a service
    starts."""
    try:
        stat = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def _as_json(message: "Message") -> str:
    record = message.record
    entry = {
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "message": redact(record["message"]),
        **{key: redact(str(value)) for key, value in record["extra"].items()},
    }
    if record["exception"]:
        entry["exception"] = redact(str(message).split("\n", 1)[-1].strip())
    # Redacted before: JSON escapes characters of a secret, and blanking out in JSON can take a quote with it.
    return json.dumps(entry, ensure_ascii=False)
