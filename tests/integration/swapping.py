"""What the tests of swaps share: two models, a worker that loads either, and the steps as the command takes
them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from psycopg.errors import Error

from freshvec.config import Settings, Sync
from freshvec.db import connect
from freshvec.health.wait import wait_until_fresh
from freshvec.records import Model, Tokens, Vector
from freshvec.schema import editions, migrations, swap
from freshvec.schema.apply import apply
from freshvec.worker.worker import Worker
from tests.staleness import as_vector
from tests.support import MODEL, Connection, NullEncoder, settings_for, sync_of, until, wait_fresh

OTHER = "bge-m3"


class Wide(NullEncoder):
    """Another model: vectors of twelve numbers."""

    dimension = 12
    fingerprint = b"wide encoder 000"

    def encode(self, batch: list[Tokens]) -> Vector:
        narrow = super().encode(batch)
        wide = np.concatenate([narrow[:, ::-1], narrow[:, :4] + 1], axis=1)
        return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), dtype=np.float32)


ENCODERS: dict[str, type[NullEncoder]] = {MODEL: NullEncoder, OTHER: Wide}


def model(name: str) -> Model:
    encoder = ENCODERS[name]
    return Model(name, encoder.dimension, 256, encoder.fingerprint)


class Swapped:
    """`docs` and the swap of its sync, step by step. `app` is the application's connection."""

    def __init__(self, url: str, app: Connection, **sync: Any) -> None:
        self.url = url
        self.app = app
        self.sync = sync_of("docs", **sync)
        self.reloads = 0  # times that a worker has read the file again

    @property
    def settings(self) -> Settings:
        return settings_for(self.url, self.sync, sweep_seconds=3600.0, commit_every_seconds=0.05)

    @property
    def declared(self) -> Sync:
        return self.settings.sync[0]

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        with connect(self.settings.database.url, "swap") as connection:
            yield connection

    @contextmanager
    def running(self, *, is_awaited: bool = True) -> Iterator[Worker]:
        """A worker; with `is_awaited` it has brought everything to rest."""
        load = {name: encoder() for name, encoder in ENCODERS.items()}
        settings = self.settings
        worker = Worker(settings, settings.sync, load=load.__getitem__, tick_seconds=0.2, reload=self._reload)
        raised: list[BaseException] = []

        def run() -> None:
            try:
                worker.run()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run, name="worker")
        thread.start()
        try:
            if is_awaited:
                wait_fresh(worker)
            yield worker
        finally:
            worker.stop()
            thread.join(60)
        assert not raised, raised

    def _reload(self) -> tuple[Settings, tuple[Sync, ...]]:
        self.reloads += 1
        return self.settings, self.settings.sync

    def apply(self) -> None:
        """What `freshvec apply docs` does."""
        with self.connection() as connection:
            migrations.migrate(connection)
            apply(connection, self.declared, model(MODEL))

    def find(self) -> editions.Editions:
        with self.connection() as connection:
            return editions.find(connection, self.declared)

    def begin(self, **changes: Any) -> Sync:
        """What `freshvec swap docs --model …` does."""
        with self.connection() as connection:
            found = editions.find(connection, self.declared)
            new = swap.proposed(found, changes or {"model": OTHER})
            view = swap.view_name(connection, found, model(found.shown.model))
            if new != found.other:
                swap.begin(connection, found, new, view)
            apply(connection, new, model(new.model))
            swap.tell(connection)
        return new

    def show(self, *, keep_seconds: float | None = 3600.0, patience: float = 30.0) -> None:
        """Let the view show the other edition once it is fresh: --commit and --rollback."""
        with self.connection() as connection:
            found = editions.find(connection, self.declared)
            assert found.other is not None
            assert wait_until_fresh(connection, found.other.name, (), 30)
            pairs = [(each, model(each.model)) for each in (found.other, found.shown)]
            swap.show(connection, *pairs, keep_seconds=keep_seconds, patience=patience)

    def end(self) -> None:
        """Take the edition away that is not shown: --finish and --abandon."""
        found = self.find()
        name = found.other.name if found.other else found.leaving[0]
        with self.connection() as connection:
            swap.leave(connection, name)
            until("it is taken away", lambda: not self.is_there(name))

    def end_now(self) -> None:
        """The same where no worker runs."""
        found = self.find()
        name = found.other.name if found.other else found.leaving[0]
        with self.connection() as connection:
            swap.leave(connection, name)
            swap.take_away(connection, name)

    def is_there(self, name: str) -> bool:
        rows = self.app.execute("SELECT FROM freshvec.edition WHERE name = %s", (name,)).fetchall()
        return bool(rows)

    def filled(self, worker: Worker, name: str = "docs.2") -> None:
        """Until the worker keeps that edition, and all is fresh."""
        until("it keeps it", lambda: name in {keeper.sync.name for keeper in worker.keepers})
        wait_fresh(worker)

    def wrong(self, encoder: type[NullEncoder]) -> list[str]:
        """What the view shows that is no fresh encoding by this model of its row's text, or lacks."""
        shown = "SELECT id, embedding::text FROM docs_embedded"
        found: dict[int, str] = dict(self.app.execute(shown.encode(), prepare=False).fetchall())
        rows = self.app.execute("SELECT id, body FROM docs WHERE btrim(body) <> ''").fetchall()
        judge = encoder()
        wanted = judge.encode(judge.tokenize([text for _, text in rows]))
        missing = [f"{key}: missing" for key, _ in rows if key not in found]
        extra = [f"{key}: without a text" for key in found.keys() - {key for key, _ in rows}]
        other = [
            f"{key}: of another text or model"
            for (key, _), vector in zip(rows, wanted, strict=True)
            if key in found and not _are_near(as_vector(found[key]), vector)
        ]
        return [*missing, *extra, *other]

    def is_right(self, encoder: type[NullEncoder]) -> bool:
        try:
            return not self.wrong(encoder)
        except Error:
            return False


def edit(app: Connection, word: str) -> None:
    """Of `docs`: some rows changed, one deleted and inserted again, one without a text."""
    app.execute("UPDATE docs SET body = %s || id WHERE id <= 20", (word,))
    app.execute("DELETE FROM docs WHERE id = 21")
    app.execute("INSERT INTO docs VALUES (21, %s)", (word,))
    app.execute("UPDATE docs SET body = NULL WHERE id = 22")


def _are_near(one: Vector, other: Vector) -> bool:
    return one.shape == other.shape and bool(np.allclose(one, other, atol=2e-3))
