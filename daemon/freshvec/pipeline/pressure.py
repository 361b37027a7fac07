"""Pressure: whether the database has enough to do with others' work, so that bulk work of ours waits."""

from loguru import logger

from freshvec.db import Connection, queries, translated
from freshvec.errors import DatabaseError

_SQL = queries("pipeline/pressure")
SECONDS_BETWEEN_LOOKS = 1.0


class Pressure:
    """One for all syncs of a worker. `look` is called now and then; readers ask what it found.

    `most_seconds` is how far behind a replica may replay; None: nobody asked for pauses.
    """

    def __init__(self, most_seconds: float | None) -> None:
        self.reason: str | None = None  # why bulk work waits
        self._most_seconds = most_seconds
        self._complaint = ""  # what keeps this from being known, as it was said

    @property
    def is_asked_for(self) -> bool:
        return self._most_seconds is not None

    @property
    def is_felt(self) -> bool:
        """Whether bulk work waits now."""
        return self.reason is not None

    def look(self, connection: Connection) -> None:
        """Ask the server once. What cannot be known holds nothing up, and is said once."""
        found, complaint = None, ""
        try:
            with translated("look at", "the database's load"):
                found, complaint = self._ask(connection)
        except DatabaseError as error:
            complaint = str(error)
        self._note(found, complaint)

    def cannot_look(self) -> None:
        """The server could not be asked."""
        self._note(None, "how busy the database is cannot be seen: there is no session to look on")

    def _note(self, found: str | None, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            logger.warning("{}", complaint)
        if (found is None) != (self.reason is None):
            logger.info("bulk work {}", "goes on" if found is None else f"pauses: {found}")
        self.reason, self._complaint = found, complaint or self._complaint

    def _ask(self, connection: Connection) -> tuple[str | None, str]:
        """Why bulk work should wait, if it should; and what could not be seen."""
        row = connection.execute(_SQL["load"], {"most_seconds": self._most_seconds}).fetchone()
        assert row is not None
        replica, seconds, is_late, wal_bytes, sees, role = row
        if not sees:
            return None, (
                f"pause_at_lag_seconds is of no use: role {role} may not see replicas and the checkpointer. "
                f'As a superuser: GRANT pg_read_all_stats TO "{role}"'
            )
        if replica is not None:
            return f"replica {replica} lags {seconds:.0f} s", ""
        if is_late:
            return f"a checkpoint is late, with {wal_bytes / 2**20:,.0f} MB of WAL since the last", ""
        return None, ""
