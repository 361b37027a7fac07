"""Sessions of an application that write hot rows all the while, and whether anything of that was lost."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg

from tests.support import Connection

WORDS = ["amber", "basalt", "cedar", "dune", "ember", "fjord", "grove", "heath", "islet", "kelp", "mesa"]


class Hammer:
    """One application session that edits, reverts, empties, deletes, inserts and renumbers hot rows."""

    def __init__(self, connection: Connection, seed: int, rows: int) -> None:
        self._execute = connection.execute
        self._connection = connection
        self._choose = random.Random(seed)
        self._rows = rows

    def strike(self) -> None:
        choose = self._choose
        row, text = choose.randrange(self._rows), " ".join(choose.choices(WORDS, k=choose.randrange(1, 12)))
        strikes = (self.edit, self.set_again, self.delete, self.insert, self.edit_twice, self.renumber)
        (strike,) = choose.choices(strikes, weights=(65, 10, 7, 12, 3, 3))
        strike(row, text)

    def edit(self, row: int, text: str | None) -> None:
        self._execute("UPDATE docs SET body = %s WHERE id = %s", (text, row))

    def set_again(self, row: int, text: str) -> None:
        self.edit(row, self._choose.choice([None, "", "the usual"]))

    def delete(self, row: int, text: str) -> None:
        self._execute("DELETE FROM docs WHERE id = %s", (row,))

    def insert(self, row: int, text: str) -> None:
        upsert = "INSERT INTO docs VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
        self._execute(upsert, (row, text))

    def edit_twice(self, row: int, text: str) -> None:
        with self._connection.transaction():
            self.edit(row, text)
            self.edit(row, "the usual")

    def renumber(self, row: int, text: str) -> None:
        with suppress(psycopg.errors.UniqueViolation):  # another row has that number just now
            self._execute("UPDATE docs SET id = %s WHERE id = %s", (self._choose.randrange(self._rows), row))


_COUNTED = 20  # rows beyond the others that are never deleted, and whose `hits` are counted up


class Counter(Hammer):
    """The same, with a column beside text and vector that is counted up: also in transactions that hold rows
    for a while, and take them in an order that is not ours."""

    def __init__(self, connection: Connection, seed: int, rows: int) -> None:
        super().__init__(connection, seed, rows)
        self.hits = 0

    def strike(self) -> None:
        if self._choose.random() < 0.7:
            super().strike()
            return
        rows = [self._rows + self._choose.randrange(_COUNTED) for _ in range(2)]
        if self._choose.random() < 0.3:
            self.edit(rows[0], self._choose.choice(WORDS) + str(self._choose.random()))
        with self._connection.transaction():
            for row in sorted(set(rows), reverse=True):
                self._execute("UPDATE docs SET hits = hits + 1 WHERE id = %s", (row,))
                self._execute("SELECT pg_sleep(%s)", (self._choose.choice([0, 0, 0.01, 0.1]),))
        self.hits += len(set(rows))

    @staticmethod
    def prepare(connection: Connection, rows: int) -> None:
        connection.execute("ALTER TABLE docs ADD COLUMN hits int NOT NULL DEFAULT 0")
        counted = "INSERT INTO docs SELECT g, 'counted ' || g FROM generate_series(%s::int, %s::int) g"
        connection.execute(counted, (rows, rows + _COUNTED - 1))


@contextmanager
def hammers(
    url: str,
    rows: int,
    writers: int = 4,
    rest: float = 0.0,
    kind: type[Hammer] = Hammer,
    used: list[Hammer] | None = None,
    outlives_restarts: bool = False,
) -> Iterator[list[int]]:
    """Sessions that write all the while, with a rest after each strike; how often each has struck is known at
    the end. What they were is put into `used`. Raises what a statement of theirs raised, but for the end of a
    session where they outlive the server's restarts."""
    over, struck = threading.Event(), [0] * writers
    raised: list[BaseException] = []

    def write(seed: int) -> None:
        while not over.is_set():
            try:
                strike(seed)
            except BaseException as error:
                if not (outlives_restarts and isinstance(error, psycopg.OperationalError)):
                    raised.append(error)
                    return
                over.wait(0.1)

    def strike(seed: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            hammer = kind(connection, seed, rows)
            if used is not None:
                used.append(hammer)
            while not over.is_set():
                hammer.strike()
                struck[seed] += 1
                over.wait(rest)

    with _side_by_side(write, writers, over):
        yield struck
    if raised:
        raise raised[0]


@contextmanager
def _side_by_side(work: Callable[[int], None], number: int, over: threading.Event) -> Iterator[None]:
    """So many threads, each of which works until it is over."""
    threads = [threading.Thread(target=work, args=(each,)) for each in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def lost(connection: Connection, used: list[Hammer]) -> list[str]:
    """Whether less was counted up than was asked for."""
    wanted = sum(hammer.hits for hammer in used if isinstance(hammer, Counter))
    (has,) = connection.execute("SELECT sum(hits) FROM docs").fetchone() or (0,)
    return [] if has == wanted else [f"{wanted} hits, {has} of them there"]
