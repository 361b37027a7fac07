"""Letters beyond ASCII in a database of any encoding, and texts that show nothing there."""

import psycopg
import pytest
from psycopg import sql

from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from freshvec.errors import SchemaError
from freshvec.source.blank import shows_something
from tests.staleness import stale
from tests.support import (
    Connection,
    NullEncoder,
    bound_sync,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

REAL = {"type": "real[]"}
ENCODINGS = ["LATIN1", "LATIN2", "LATIN9", "WIN1252", "ISO_8859_5", "KOI8R", "EUC_JP", "UTF8"]
SAMPLES = {"ISO_8859_5": "привет", "KOI8R": "привет", "EUC_JP": "日本語", "LATIN2": "žluťoučký"}


def wrong_but_blank(application: Connection, encoder: NullEncoder) -> list[str]:
    """What is wrong with the rows, but for the one whose text shows nothing."""
    return [fault for fault in stale(application, encoder) if fault != "x: missing"]


@pytest.mark.parametrize("version", ["18", "16"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding(version: str, encoding: str, request: pytest.FixtureRequest) -> None:
    """Keys and texts with letters beyond ASCII: backfilled, edited, deleted; blanks of that encoding show
    nothing."""
    server: EmbeddedPostgres = request.getfixturevalue(f"server{version}")
    word = SAMPLES.get(encoding, "café Grüße")
    blank = "\u3000" if encoding == "EUC_JP" else "\u00a0"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE encoded TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        url = server.url("encoded")
        try:
            with psycopg.connect(url, autocommit=True, client_encoding="UTF8") as application:
                application.execute("CREATE EXTENSION vector")
                application.execute("CREATE TABLE docs (id text PRIMARY KEY, body text)")
                application.execute(
                    "INSERT INTO docs VALUES (%s, %s), ('x', %s)", (word, f"text {word}", blank)
                )
                settings, encoder = settings_for(url, sync_of("docs"), sweep_seconds=600), NullEncoder()
                with running(settings, encoder) as worker:
                    wait_fresh(worker)
                    assert wrong_but_blank(application, encoder) == []
                    assert count(application, "docs_embedded") == 1
                    application.execute("UPDATE docs SET body = body || %s", (word,))
                    application.execute("INSERT INTO docs VALUES (%s, 'more')", (word + "!",))
                    until("the changes are written", lambda: not wrong_but_blank(application, encoder))
                    assert count(application, "docs_embedded") == 3
                    application.execute("DELETE FROM docs WHERE id = %s", (word,))
                    until("the deletion is written", lambda: count(application, "docs_embedding") == 2)
        finally:
            admin.execute("DROP DATABASE encoded WITH (FORCE)")


def test_a_database_without_an_encoding_is_refused_by_name(server18: EmbeddedPostgres) -> None:
    with psycopg.connect(server18.url(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
        try:
            with psycopg.connect(server18.url("bytes"), autocommit=True) as application:
                application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
            settings = settings_for(server18.url("bytes"), sync_of("docs", target=REAL))
            with connect(settings.database.url, "test") as connection, pytest.raises(SchemaError) as refused:
                bound_sync(connection, settings, NullEncoder())
        finally:
            admin.execute("DROP DATABASE bytes WITH (FORCE)")
    assert "the database has no encoding (SQL_ASCII)" in str(refused.value)
    assert "Move the table to a database with ENCODING 'UTF8'" in str(refused.value)


INVISIBLE = {
    "nothing": "",
    "blanks": " \t\r\n\f\v",
    "no-break space": "\u00a0",
    "zero width": "\u200b\u200c\u200d\u2060",
    "byte order mark": "\ufeff",
    "braille blank": "\u2800",
    "tags": "\U000e0020\U000e0041\U000e007f",
    "hangul fillers": "\u115f\u1160\u3164\uffa0",
    "soft hyphen": "\u00ad",
    "variation selectors": "\ufe0f\ufe00\U000e0100\U000e01ef",
    "directions": "\u200e\u202a\u202e\u2066\u2069\u061c",
    "ideographic space": "\u3000",
    "musical controls": "\U0001d173\U0001d17a",
    "shorthand controls": "\U0001bca0\U0001bca3",
    "controls": "\u0001\u001f\u007f\u0085\u009f",
    "mixture": "\u00a0\n\u200b\ufeff \u2800\U000e0020\t\u3000\u034f\u180e",
    "much of it": "\u200b \u00a0" * 300,
}


@pytest.mark.parametrize("version", ["18", "16"])
def test_texts_that_show_nothing_have_no_vector(version: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    with psycopg.connect(url, autocommit=True) as application:
        application.execute("CREATE TABLE docs (id int PRIMARY KEY, kind text, body text)")
        for place, (kind, text) in enumerate(INVISIBLE.items()):
            shown = text[: len(text) // 2] + "x" + text[len(text) // 2 :]
            more = [(3 * place, kind, text), (3 * place + 1, kind, shown), (3 * place + 2, kind, text + "é")]
            application.cursor().executemany("INSERT INTO docs VALUES (%s, %s, %s)", more)
        settings, encoder = settings_for(url, sync_of("docs"), sweep_seconds=600), NullEncoder()
        with running(settings, encoder) as worker:
            wait_fresh(worker)
            query = "SELECT kind FROM docs JOIN docs_embedding USING (id) WHERE id % 3 = 0"
            assert application.execute(query).fetchall() == [], "these show nothing"
            query = (
                "SELECT kind FROM docs LEFT JOIN docs_embedded e USING (id) WHERE e.id IS NULL AND id % 3 > 0"
            )
            assert application.execute(query).fetchall() == [], "these show something"
            application.execute(
                "UPDATE docs SET body = %s WHERE id % 3 = 1".replace("%", "%%").replace("%%s", "%s"),
                ("\u00a0\u200b",),
            )
            until("the vectors are gone", lambda: count(application, "docs_embedding WHERE id % 3 = 1") == 0)
            application.execute("UPDATE docs SET body = body || '.' WHERE id % 3 = 0")
            every = len(INVISIBLE)
            until("there are vectors", lambda: count(application, "docs_embedded WHERE id % 3 = 0") == every)


def test_marks_letters_and_pictures_show_something(application: Connection) -> None:
    for text in (".", "-", "é", "日", "🎉", "\u0301", "\u00b7", "\u1100", "\U000e0020x", "\ufffd", "0"):
        query = sql.SQL("SELECT {}").format(shows_something(sql.Literal(text), "UTF8"))
        assert application.execute(query).fetchone() == (True,), ascii(text)
