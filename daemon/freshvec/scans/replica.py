"""A replica that pages of a walk are read from, however far it lags.

What it shows is of the moment up to which it has replayed. A page from it goes under a fence that was drawn
before that moment: every change which the replica did not show yet is read, and written, under a later one.
"""

import time

import psycopg
from loguru import logger

from freshvec.db import Session, queries
from freshvec.errors import DatabaseError

_SQL = queries("scans/replica")
_REST_SECONDS = 30.0  # that it is not asked after an error


class Replica:
    """Asked by the thread that reads pages, and the reader's."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._due = 0.0

    def fence(self) -> int | None:
        """The fence of what is read from it after this; None while it is not to be had."""
        if time.monotonic() < self._due:
            return None
        try:
            row = self.session.execute(_SQL["fence"]).fetchone()
        except (psycopg.Error, DatabaseError) as error:
            self.rest(error)
            return None
        return row[0] if row else None

    def rest(self, error: Exception) -> None:
        """It is not to be had for a while; said each time."""
        self._due = time.monotonic() + _REST_SECONDS
        logger.warning("the replica cannot be read, so the primary is: {}", error)
