"""What of the declared syncs is to be run: the database knows it, since a swap may have begun or ended."""

from collections.abc import Sequence

from loguru import logger
from pydantic import SecretStr

from freshvec.config import Sync
from freshvec.db import Connection, connect
from freshvec.errors import DatabaseError, FreshvecError
from freshvec.schema import editions, swap
from freshvec.schema.editions import Editions


class Following:
    """`declared` are the file's syncs, `models` those of what is shown of each."""

    def __init__(self, url: SecretStr, declared: Sequence[Sync]) -> None:
        self.declared = tuple(declared)
        self.models = {sync.name: sync.model for sync in declared}
        self._url = url
        self._found: list[Editions] = []  # at the last look
        self._told: dict[str, str] = {}  # what the file should say, by sync: once each
        self._refused: dict[str, str] = {}  # why it could not be taken away, by edition: likewise

    def at_start(self) -> tuple[Sync, ...]:
        """Before anything is loaded; while the database is away, as the file has it."""
        try:
            with connect(self._url, "model") as connection:
                return self.look(connection)
        except DatabaseError:
            return self.declared

    def look(self, connection: Connection) -> tuple[Sync, ...]:
        """What is to be run now. What the file should say is logged.

        Raises DatabaseError where the connection is lost. Where the database cannot say it, as while its
        schema is dropped and made again, it is what was to be run before.
        """
        try:
            found = editions.find_all(connection, self.declared)
        except DatabaseError as error:
            if connection.broken or not self._found:
                raise
            logger.info("{}", error)
            return tuple(sync for each in self._found for sync in each.run)
        self._found = found
        self.models = {each.name: each.shown.model for each in found}
        for each in found:
            if each.note != self._told.get(each.name, ""):
                logger.log("WARNING" if each.is_refused else "INFO", "sync {}: {}", each.name, each.note)
            self._told[each.name] = each.note
        return tuple(sync for each in found for sync in each.run)

    def take_away(self, connection: Connection) -> None:
        """What is kept no more, as far as this worker may; another attempt comes with the next sweep."""
        for name in [name for each in self._found for name in each.leaving]:
            try:
                swap.take_away(connection, name, patience=0.0)
                logger.info("{} is taken away", name)
            except FreshvecError as error:
                if connection.broken:
                    raise
                if str(error) != self._refused.get(name):
                    logger.info("{} is not taken away yet: {}", name, error)
                self._refused[name] = str(error)
