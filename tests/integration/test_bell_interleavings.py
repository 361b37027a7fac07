"""The bell under random interleavings of writers and a keeper that may die: nothing is missed."""

import random
from contextlib import ExitStack

import psycopg
from pydantic import SecretStr

from freshvec.capture.bell import Bell, Listener, Waker
from tests.support import Connection, NullEncoder, backfill, count, settings_for, sync_of

PROGRAMS, STEPS = 150, 16
WRITERS = 3


class Keeper:
    """A sync's keeper as bell.pml has it: it polls, takes the bell, is rung, and may die."""

    def __init__(self, url: str, docs: Connection) -> None:
        self._url = url
        self._docs = docs
        self._waker = Waker()
        self.live()

    def live(self) -> None:
        self.listener = Listener(SecretStr(self._url), self._waker)
        self.bell = Bell("docs")
        self.read()

    def die(self) -> None:
        self.listener.close()
        self.live()

    def read(self) -> None:
        """Everything there is."""
        self._docs.execute("DELETE FROM freshvec.queue_docs")

    def step(self, choice: int) -> None:
        if choice == 0:
            self.die()
        elif not self.bell.is_taken:
            self.read()
            if choice > 2 and self.bell.take(self.listener.connection):
                self.read()
        elif self.hears():
            self.read()
            if choice == 1:
                self.bell.release(self.listener.connection)

    def hears(self) -> bool:
        return bool(self.listener.wait(0))

    def close(self) -> None:
        self.listener.close()
        self._waker.close()


class Application:
    """A session that changes rows in transactions with savepoints, one step at a time."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._session = stack.enter_context(psycopg.connect(url))
        self._row = random.randrange(10**9)

    def step(self, choice: int) -> None:
        if choice < 3:
            self._row += 1
            self._session.execute(
                "INSERT INTO docs VALUES (%s, 'a') ON CONFLICT (id) DO UPDATE SET body = docs.body || 'a'",
                (self._row,),
            )
        elif choice == 3:
            self._session.execute("SAVEPOINT s")
        elif choice == 4 and self._session.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
            with_savepoint = "SAVEPOINT s; INSERT INTO docs VALUES (%s, 'b'); ROLLBACK TO s"
            self._row += 1
            self._session.execute(with_savepoint.replace("%s", str(self._row)))
        elif choice == 5:
            self._session.rollback()
        else:
            self._session.commit()

    def end(self) -> None:
        self._session.commit()


def test_random_interleavings_miss_nothing(url: str, docs: Connection) -> None:
    """Writers, savepoints, rollbacks and deaths of the keeper, in any order: at rest it has read all."""
    backfill(settings_for(url, sync_of("docs")), NullEncoder())
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    rung = 0
    with ExitStack() as stack:
        writers = [Application(url, stack) for _ in range(WRITERS)]
        keeper = Keeper(url, docs)
        stack.callback(keeper.close)
        for program in range(PROGRAMS):
            for _ in range(STEPS):
                who = chance.randrange(WRITERS + 2)
                if who < WRITERS:
                    writers[who].step(chance.randrange(8))
                else:
                    keeper.step(chance.randrange(8))
            for writer in writers:
                writer.end()
            rung += keeper.bell.is_taken
            if keeper.bell.is_taken and count(docs, "freshvec.queue_docs"):
                assert keeper.listener.wait(10), f"seed {seed}: missed in program {program}"
            keeper.read()
    assert rung > PROGRAMS / 10
