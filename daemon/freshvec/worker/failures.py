"""What went wrong with one sync: logged, though not the same over and over, with a pause before the next
attempt that grows."""

import time

from loguru import logger

from freshvec.backoff import Backoff
from freshvec.db import Connection
from freshvec.errors import FreshvecError, LockedError
from freshvec.schema import migrations
from freshvec.source.locks import FIRST_PAUSE
from freshvec.worker import ownership

RECOVERED_SECONDS = 5.0  # a pipeline that has run this long has recovered
_REPEAT_SECONDS = 60.0  # the same error is logged again after this long


class Failures:
    """`last` is what `status` shows until it is over."""

    def __init__(self, name: str) -> None:
        self.last: str | None = None
        self._name = name
        self._backoff = Backoff()
        self._lock_pauses = Backoff(first=FIRST_PAUSE, cap=2.0)
        self._logged, self._logged_at = "", 0.0

    @property
    def attempts(self) -> int:
        """That have failed since it was well, but for those at a lock that somebody else has."""
        return self._backoff.attempts

    def note(self, error: Exception, connection: Connection | None) -> float:
        """Log it, and let `status` say it where there is a connection; gives the seconds until the next
        attempt."""
        message = str(error) if isinstance(error, FreshvecError) else f"{type(error).__name__}: {error}"
        is_locked = isinstance(error, LockedError)
        delay = (self._lock_pauses if is_locked else self._backoff).next_delay()
        kind = LockedError.__name__ if is_locked else message  # who is in the way may change each time
        is_said = kind == self._logged and time.monotonic() - self._logged_at < _REPEAT_SECONDS
        if not is_said:
            logger.opt(exception=None if isinstance(error, FreshvecError) else error).error(
                "sync {}: {} (next attempt in {:.1f} s)", self._name, message, delay
            )
            self._logged, self._logged_at = kind, time.monotonic()
        self.last = message
        if connection is not None:  # each time, since the next attempt takes it away as it begins
            self.show(message, connection)
        return delay

    def show(self, message: str, connection: Connection) -> None:
        """Let `status` say it, where there is a place to say it."""
        try:
            if migrations.is_bootstrapped(connection):
                ownership.keep_trouble(connection, self._name, message)
        except Exception as error:  # what is wrong may be this very table
            logger.debug("sync {}: {}", self._name, error)

    def settle(self, running_since: float) -> None:
        """After a while without a failure the trouble counts as over; said once."""
        if self.last and time.monotonic() - running_since > RECOVERED_SECONDS:
            attempts = self._backoff.attempts + self._lock_pauses.attempts
            logger.info("sync {}: recovered after {} attempts", self._name, attempts)
            self.last, self._logged = None, ""
            self._backoff.reset()
            self._lock_pauses.reset()
