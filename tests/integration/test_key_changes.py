"""Another key: target and queue follow it, whatever it becomes, and nobody waits for that."""

import pytest

from freshvec.health import status
from tests.integration.at_rest import Kept
from tests.integration.locking import ON_18, apply_to
from tests.passages import OVERLAP, TOKENS, WordEncoder, prose, stale_passages
from tests.support import count, exists, running, sync_of, until, wait_fresh

REPLACED = "ALTER TABLE docs DROP CONSTRAINT docs_pkey, ADD PRIMARY KEY "
# What was the key before, what is done, and how many of 50 rows keep their vectors.
CHANGES = {
    "widened": ("int", "ALTER TABLE docs ALTER id TYPE bigint", 50),
    "narrowed": ("bigint", "ALTER TABLE docs ALTER id TYPE smallint", 50),
    "longer": ("varchar(10)", "ALTER TABLE docs ALTER id TYPE varchar(40)", 50),
    "shorter": ("varchar(10)", "ALTER TABLE docs ALTER id TYPE varchar(2)", 50),
    "without a length": ("varchar(10)", "ALTER TABLE docs ALTER id TYPE text", 50),
    "number of a text": ("text", "ALTER TABLE docs ALTER id TYPE int USING id::int", 50),
    "text of a number": ("int", "ALTER TABLE docs ALTER id TYPE text", 50),
    "more digits": ("numeric(5)", "ALTER TABLE docs ALTER id TYPE numeric(9)", 50),
    "another collation": ("text", 'ALTER TABLE docs ALTER id TYPE text COLLATE "C"', 50),
    "of a domain": (
        "int",
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0); ALTER TABLE docs ALTER id TYPE positive",
        50,
    ),
    "uuid of a number": (
        "int",
        "ALTER TABLE docs ALTER id TYPE uuid USING lpad(id::text, 32, '0')::uuid",
        0,
    ),
    "other values": ("int", "ALTER TABLE docs ALTER id TYPE bigint USING id + 1", 0),
    "a column of another type": (
        "int",
        "ALTER TABLE docs ADD uid uuid NOT NULL DEFAULT gen_random_uuid(); " + REPLACED + "(uid)",
        0,
    ),
}
# The same of keys of two columns.
COMPOSITE = {
    "one renamed": ("ALTER TABLE docs RENAME part TO piece", "piece", 50),
    "one widened": ("ALTER TABLE docs ALTER part TYPE bigint", "part", 50),
    "in another order": (REPLACED + "(part, id)", "part", 50),
    "names exchanged": (
        """ALTER TABLE docs RENAME id TO x; ALTER TABLE docs RENAME part TO id;
           ALTER TABLE docs RENAME x TO part""",
        "part",
        0,
    ),
    "one gone": (REPLACED + "(id)", "1", 0),
}


def follows(kept: Kept, statement: str, keeps: int) -> None:
    """A worker at rest, then the statement: it comes to rest, and encodes no row again that it need not."""
    with kept.running() as worker:
        encoded, generation = kept.encoder.encoded, _generation(kept)
        kept.app.execute(statement.encode())
        if "(uid)" in statement:
            kept.key = "uid"
        worker.sweep()
        until("the new key is bound", lambda: _generation(kept) > generation)
        until("everything is right", kept.is_right, 30.0)
        assert kept.encoder.encoded - encoded <= 50 - keeps
        for edit in ("UPDATE docs SET body = body || '!'", "DELETE FROM docs WHERE body LIKE 'text 4%'"):
            kept.app.execute(edit.encode())
            until("edits are followed", kept.is_right, 30.0)
        until("no error is shown any more", lambda: kept.status()["last_error"] is None)
        assert not exists(kept.app, "freshvec.rekeyed_docs")


def _generation(kept: Kept) -> int:
    (number,) = kept.app.execute("SELECT generation FROM freshvec.sync").fetchone() or (0,)
    return int(number)


@pytest.mark.parametrize(("before", "statement", "keeps"), CHANGES.values(), ids=CHANGES.keys())
def test_a_key_of_another_type_is_followed(kept: Kept, before: str, statement: str, keeps: int) -> None:
    kept.app.execute(f"ALTER TABLE docs ALTER id TYPE {before}".encode())
    follows(kept, statement, keeps)


@pytest.mark.parametrize(("statement", "part", "keeps"), COMPOSITE.values(), ids=COMPOSITE.keys())
def test_a_key_of_several_columns_is_followed(kept: Kept, statement: str, part: str, keeps: int) -> None:
    kept.app.execute("ALTER TABLE docs ADD part int NOT NULL DEFAULT 1")
    kept.app.execute((REPLACED + "(id, part)").encode())
    if "RENAME id" in statement:
        kept.app.execute("UPDATE docs SET part = id + 1000")
    follows(kept, statement, keeps)
    if part != "1":
        columns = f"docs_embedding t JOIN docs d ON (d.id, d.{part}) = (t.id, t.{part})"
        assert count(kept.app, columns) == count(kept.app, "docs")


@ON_18
@pytest.mark.parametrize("what", ["widened", "longer", "uuid of a number"])
def test_vectors_in_a_column_follow_another_key(column: Kept, what: str) -> None:
    before, statement, _ = CHANGES[what]
    column.app.execute(f"ALTER TABLE docs ALTER id TYPE {before}".encode())
    follows(column, statement, 0)


@pytest.mark.parametrize(
    ("statement", "key"),
    [
        ("ALTER TABLE docs ALTER id TYPE bigint", "id"),
        ("ALTER TABLE docs RENAME id TO number", "number"),
        ("ALTER TABLE docs ALTER id TYPE uuid USING lpad(id::text, 32, '0')::uuid", "id"),
    ],
    ids=["widened", "renamed", "uuid of a number"],
)
def test_passages_follow_another_key(kept: Kept, statement: str, key: str) -> None:
    kept.app.execute("DELETE FROM docs WHERE id > 5")
    for number in range(1, 6):
        kept.app.execute("UPDATE docs SET body = %s WHERE id = %s", (prose(3, number), number))
    kept.sync = sync_of("docs", chunk={"tokens": TOKENS, "overlap": OVERLAP})
    encoder = WordEncoder()
    with running(kept.settings, encoder) as worker:
        wait_fresh(worker)
        oid = "SELECT oid FROM pg_class WHERE relname = 'docs_chunk'"
        before, encoded = kept.app.execute(oid).fetchone(), encoder.encoded
        kept.app.execute(statement.encode())
        worker.sweep()
        until(
            "another key is bound", lambda: exists(kept.app, "docs_chunk") and _has(kept, "docs_chunk", key)
        )
        wait_fresh(worker)
        assert encoder.encoded == encoded, "this worker remembers the vectors of passages"
        assert (kept.app.execute(oid).fetchone() == before) == (key == "number")
        kept.app.execute("UPDATE docs SET body = body || ' More of it.'")
        wait_fresh(worker)
        kept.app.execute(f"ALTER TABLE docs RENAME {key} TO id".encode() if key != "id" else b"SELECT")
        worker.sweep()
        until("it is bound", lambda: _has(kept, "docs_chunk", "id"))
        wait_fresh(worker)
        assert stale_passages(kept.app, encoder, TOKENS, OVERLAP) == []


def _has(kept: Kept, table: str, column: str) -> bool:
    declared = "(SELECT atttypid FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = a.attname)"
    where = f"attrelid = to_regclass('{table}') AND attname = '{column}' AND atttypid = {declared}"
    return count(kept.app, f"pg_attribute a WHERE {where}") == 1


@ON_18
def test_what_is_left_of_a_row_that_is_gone_hinders_no_narrower_key(kept: Kept) -> None:
    kept.app.execute("ALTER TABLE docs ALTER id TYPE varchar(10)")
    kept.app.execute("INSERT INTO docs VALUES ('1 and more', 'long key')")
    with kept.running():
        encoded = kept.encoder.encoded
    kept.app.execute("DELETE FROM docs WHERE id = '1 and more'")
    kept.app.execute("ALTER TABLE docs ALTER id TYPE varchar(2)")
    with kept.running():
        until("everything is right", kept.is_right)
        assert kept.encoder.encoded == encoded


@ON_18
def test_a_column_that_hands_add_to_the_target_is_no_key(kept: Kept) -> None:
    with kept.running():
        pass
    encoded = kept.encoder.encoded
    kept.app.execute("ALTER TABLE docs_embedding ADD tenant int DEFAULT 1")
    assert not apply_to(kept)
    with kept.running():
        assert status.is_fresh(kept.status())
        assert kept.encoder.encoded == encoded
        assert count(kept.app, "docs_embedding WHERE tenant = 1") == 50
