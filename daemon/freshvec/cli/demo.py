"""The demo: the main job on real parts, from an empty folder to a search; then it removes everything."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from freshvec.cli import hits_view
from freshvec.cli.interruption import Interruption
from freshvec.cli.progress_view import ProgressView
from freshvec.config import Daemon, Database, Settings, Sync
from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from freshvec.encoding.loading import Models
from freshvec.errors import FreshvecError, ModelError
from freshvec.source.bind import bind
from freshvec.stdlib_texts import docstrings
from freshvec.target import search
from freshvec.worker.keeper import Keeper
from freshvec.worker.worker import Worker

MODEL = "all-MiniLM-L6-v2"
_TABLE = (
    "CREATE TABLE docs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, body text)"
)
_INSERTED = (
    "Bake bread from flour, water and salt.",
    "Tune a guitar by ear.",
    "Prune an apple tree in winter.",
)
_EDITED = ("Roast coffee beans.", "Play the piano.", "Plant a cherry tree.")
_QUESTIONS = ("read a compressed archive", "run something in another thread", "parse a date from a string")
_FRESH = "SELECT fence FROM docs_embedding WHERE id = %s"
_DEADLINE_SECONDS = 30.0


def run(console: Console, rows: int | None, models_dir: Path | None) -> None:
    """Run the whole demo with at most so many rows; `models_dir`: None for the default.

    It removes what it started on Ctrl-C and SIGTERM too. Raises FreshvecError.
    """
    started = time.monotonic()
    daemon = Daemon(models_dir=models_dir)
    models = Models(Settings(daemon=daemon))
    with Interruption("finish", "the demo") as interruption:
        _export(console, models)
        interruption.only_note()
        _step(console, 1, "starting an embedded Postgres with pgvector …")
        with EmbeddedPostgres() as server:
            interruption.check()
            settings = Settings(
                database=Database.model_validate({"url": server.url()}),
                daemon=daemon,
                sync=(Sync(name="docs", table="public.docs", columns=("name", "body"), model=MODEL),),
            )
            with psycopg.connect(
                server.url(), autocommit=True, application_name="freshvec demo"
            ) as connection:
                _fill(console, connection, rows)
                interruption.check()
                _backfill(console, settings, interruption)
                _live(console, settings, connection, interruption)
                interruption.check()
                _search(console, settings)
    console.print(
        f"\nDone in {time.monotonic() - started:.0f} s; the database and its files are gone again. "
        "Now your own table:\n"
        "  1. freshvec init     [dim]# looks at your database, writes freshvec.toml[/]\n"
        f"  2. {models.card(MODEL).command}\n"
        "  3. freshvec plan     [dim]# what would be created; changes nothing[/]\n"
        "  4. freshvec run      [dim]# backfill, then fresh for good[/]",
        markup=True,
    )


def _step(console: Console, number: int, doing: str) -> None:
    console.print(Text.assemble((f"{number}.", "bold"), f" {doing}"))


def _export(console: Console, models: Models) -> None:
    """Export the model unless it is exported already."""
    try:
        models.artefact(MODEL).path("fp32")
    except ModelError:
        from freshvec.export.export import export

        _step(console, 0, f"exporting {MODEL} to ONNX and comparing it with torch, once …")
        export(
            models.card(MODEL),
            models.folder,
            precisions=("fp32",),
            report=lambda line: console.print(Text(f"   {line}", "dim")),
        )


def _fill(console: Console, connection: psycopg.Connection[tuple[object, ...]], rows: int | None) -> None:
    connection.execute("CREATE EXTENSION vector")
    connection.execute(_TABLE)
    with connection.cursor().copy("COPY docs (name, body) FROM STDIN") as copy:
        for count, (name, body) in enumerate(docstrings()):
            if rows is not None and count >= rows:
                break
            copy.write_row((name, body.replace("\0", "")))
    counted = connection.execute("SELECT count(*) FROM docs").fetchone()
    _step(console, 2, f"a table of {counted and counted[0]:,} docstrings of Python's standard library")


def _backfill(console: Console, settings: Settings, interruption: Interruption) -> None:
    _step(console, 3, "backfill: an embedding for every row")
    with ProgressView(settings.database.url, anew=True) as view:

        def tick(keepers: Sequence[Keeper]) -> None:
            view.tick(keepers)
            if interruption.is_noted:
                worker.stop()

        worker = Worker(settings, settings.sync, once=True, on_tick=tick, tick_seconds=view.tick_seconds)
        worker.run()
        interruption.check()
        view.summary(worker)


def _live(
    console: Console,
    settings: Settings,
    connection: psycopg.Connection[tuple[object, ...]],
    interruption: Interruption,
) -> None:
    _step(console, 4, "live: a worker listens while the application changes rows")
    worker = Worker(settings, settings.sync)
    thread = threading.Thread(target=worker.run, name="worker")
    thread.start()
    try:
        until = partial(_until, interruption)
        until("the worker listens", lambda: any(keeper.is_fresh for keeper in worker.keepers))
        table = Table("the application", "commit to fresh")
        for change, milliseconds in _edits(connection, until):
            table.add_row(change, f"{milliseconds:.1f} ms")
        console.print(table)
    finally:
        worker.stop()
        thread.join()


def _edits(
    connection: psycopg.Connection[tuple[object, ...]], until: Callable[[str, Callable[[], bool]], float]
) -> Iterator[tuple[str, float]]:
    """Each change of the application, in words, and the milliseconds until the embeddings followed it."""

    def fence(key: object) -> object:
        row = connection.execute(_FRESH, (key,)).fetchone()
        return row and row[0]

    keys = []
    for text in _INSERTED:
        row = connection.execute(
            "INSERT INTO docs (name, body) VALUES ('note', %s) RETURNING id", (text,)
        ).fetchone()
        assert row is not None
        keys.append(key := row[0])
        yield f"inserts “{text}”", until("the new row is embedded", partial(_differ, fence, key, None))
    for key, text in zip(keys, _EDITED, strict=True):
        before = fence(key)
        connection.execute("UPDATE docs SET body = %s WHERE id = %s", (text, key))
        yield f"edits it to “{text}”", until("the edit is embedded", partial(_differ, fence, key, before))
    connection.execute("DELETE FROM docs WHERE id = %s", (keys[0],))
    yield "deletes a row", until("its embedding is gone", lambda: fence(keys[0]) is None)


def _differ(fence: Callable[[object], object], key: object, before: object) -> bool:
    """Whether a row's embedding is another one than before."""
    return fence(key) != before


def _until(interruption: Interruption, what: str, condition: Callable[[], bool]) -> float:
    """Milliseconds until the condition holds. Raises FreshvecError after a deadline."""
    started = time.perf_counter()
    while not condition():
        interruption.check()
        if time.perf_counter() - started > _DEADLINE_SECONDS:
            raise FreshvecError("see that", what, f"it did not happen in {_DEADLINE_SECONDS:.0f} s")
        time.sleep(0.0005)
    return (time.perf_counter() - started) * 1000


def _search(console: Console, settings: Settings) -> None:
    _step(console, 5, "search")
    models = Models(settings)
    encoder = models.encoder(MODEL)
    with connect(settings.database.url, "search") as connection:
        bound = bind(connection, settings.sync[0], models.describe(settings.sync[0]))
        table = Table("question", "nearest row", "similarity")
        for question in _QUESTIONS:
            for place, hit in enumerate(search.search(connection, bound, encoder.encode_query(question), 2)):
                table.add_row(
                    "" if place else question, hits_view.beginning(hit.text, 70), f"{hit.similarity:.3f}"
                )
        console.print(table)
