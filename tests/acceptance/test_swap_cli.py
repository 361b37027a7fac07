"""The command `swap`: begun, looked at, committed, taken back, finished, abandoned; and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from freshvec.db import INDEX_LOCK_CLASS
from tests.second_model import SECOND, two_models
from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    WorkerProcess,
    config_toml,
    count,
    exists,
    freshvec,
    until,
    write_config,
)

TEXTS = ["gzip opens a compressed file", "sockets send bytes over a network", "a list is sorted in place"]

INDEX_OF_SECOND = "SELECT oid FROM pg_class WHERE starts_with(relname, 'freshvec_docs.2_')"  # on its vectors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two models, and where files are written."""
    return two_models(tmp_path / "models")


class Commands:
    """`freshvec` with one file."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self.config = folder.parent / "freshvec.toml"
        self.declare(MODEL)

    def declare(self, model: str) -> None:
        """Write the file."""
        syncs = DOCS_SYNC.replace(MODEL, model) + 'index = { type = "hnsw" }\n'
        write_config(self.config, config_toml(self._url, self._folder, syncs))

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What a command says, on both of its outputs."""
        done = freshvec(*arguments, "--config", str(self.config))
        assert done.returncode == code, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def commands(url: str, docs: Connection, folder: Path) -> Commands:
    """A sync of `docs` whose rows are all embedded."""
    for number in range(30):
        docs.execute("INSERT INTO docs VALUES (%s, %s)", (number, f"{TEXTS[number % 3]} {number}"))
    made = Commands(url, folder)
    made("backfill")
    return made


def shown(docs: Connection) -> set[bytes]:
    """The fingerprints of what the view shows."""
    query = "SELECT DISTINCT fingerprint FROM {} JOIN docs_embedded USING (id, embedding)"
    targets = ("docs_embedding", "docs_embedding_2")
    return {bytes(row[0]) for each in targets for row in docs.execute(query.format(each).encode())}


def test_a_swap_from_its_beginning_to_its_end(commands: Commands, docs: Connection) -> None:
    begun = commands("swap", "docs", "--model", SECOND, "--yes")
    assert "to encode 30 rows" in begun
    assert "each change of the table is noted twice" in begun
    assert "docs.2 is begun" in begun
    assert "docs.2 is not filled: 0% of its rows" not in begun
    refused = commands("swap", "docs", "--commit", code=1)
    assert "it is not filled" in refused
    assert "no worker runs: start `freshvec run`" in refused
    assert "docs.2: model mini-two, vector, not shown, 0.00% of 30 rows are fresh, no worker" in commands(
        "swap", "docs"
    )
    assert "edition docs.2 stands beside" in commands("swap", "docs", "--where", "id > 3", "--yes", code=1)
    assert "docs is shown, docs.2 is not shown" in commands("status", "--check")
    commands("backfill")
    report = commands("swap", "docs")
    assert "Of 30 searches, the ten nearest rows each" in report
    assert "of what docs finds is found by docs.2, too" in report
    assert "through the index of docs.2 a search finds 100.00% of what is nearest" in report
    assert "`freshvec swap docs --commit` shows the new one" in report
    before = shown(docs)
    committed = commands("swap", "docs", "--commit", "--keep", "2")
    assert "docs.2 is shown; docs is kept fresh for 2 days" in committed
    assert f'write model = "{SECOND}" into the file' in committed
    assert len(shown(docs) | before) == 2
    assert "docs.2 is shown already" in commands("swap", "docs", "--commit")
    hits = json.loads(commands("search", "decompress an archive", "-n", "1", "--json").partition("docs:")[0])
    assert hits[0]["text"].startswith("gzip")
    assert f'write model = "{SECOND}"' in commands("status")
    assert "docs is shown again; docs.2 is kept fresh, too" in commands("swap", "docs", "--rollback")
    assert shown(docs) == before
    assert "docs is what is shown" in commands("swap", "docs", "--finish", "--yes", code=1)
    commands("swap", "docs", "--commit")
    assert "docs: docs is taken away" in commands("swap", "docs", "--finish", "--yes")
    assert not exists(docs, "docs_embedding")
    commands.declare(SECOND)
    assert "write" not in commands("status")
    assert "docs.2: nothing to do" in commands("apply")
    assert "docs.2: 30 rows, every one fresh" in commands("verify")
    assert commands("wait", "--key", "3") == ""
    assert "docs: removed" in commands("remove", "docs", "--yes")
    assert not exists(docs, "docs_embedded")


def test_searches_of_ones_own_decide_the_report(commands: Commands, folder: Path) -> None:
    commands("swap", "docs", "--model", SECOND, "--yes")
    commands("backfill")
    queries = folder.parent / "queries.txt"
    queries.write_text("open an archive\n\nsend over the net\n", encoding="utf-8")
    assert "Of 2 searches" in commands("swap", "docs", "--queries", str(queries))
    assert "docs: docs.2 is taken away" in commands("swap", "docs", "--abandon", "--yes")
    assert "No swap is under way" in commands("swap", "docs")


def test_another_model_in_the_file_is_asked_about(
    commands: Commands, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    commands.declare(SECOND)
    for arguments in (("apply",), ("backfill",)):
        refused = commands(*arguments, code=1)
        assert f"`freshvec swap docs --model {SECOND}`" in refused
        assert "`freshvec apply docs --replace`" in refused
    assert "--replace" in commands("plan", "--no-measure")
    assert "--replace" in commands("status", "--check", code=3)
    worker = workers(commands.config)
    docs.execute("INSERT INTO docs VALUES (99, 'a new row')")
    until("the worker goes on", lambda: count(docs, "docs_embedded WHERE id = 99") == 1)
    assert "the file names model mini-two, and its vectors are of" in worker.output
    assert worker.stop() == 0
    assert "docs: applied" in commands("apply", "--replace")
    commands("backfill")
    assert "docs: nothing to do" in commands("apply")
    assert count(docs, "freshvec.sync WHERE model = 'mini-two'") == 1


def test_what_cannot_be_made_anew_changes_nothing(commands: Commands, docs: Connection) -> None:
    """Of a sync that was swapped, so that the database notes what is declared: else a worker would give up
    the vectors it has for ones that it cannot make."""
    commands("swap", "docs", "--model", SECOND, "--yes")
    commands("backfill")
    commands("swap", "docs", "--commit")
    noted = docs.execute("SELECT * FROM freshvec.edition ORDER BY number").fetchall()
    commands.declare("bge-m3")
    assert "cannot load model 'bge-m3': it is not exported" in commands("apply", "--replace", code=78)
    assert docs.execute("SELECT * FROM freshvec.edition ORDER BY number").fetchall() == noted


def test_what_cannot_be_is_told(commands: Commands) -> None:
    for wrong in (("--commit", "--rollback"), ("--commit", "--model", SECOND)):
        assert "only one of --commit" in commands("swap", "docs", *wrong, code=2)
    assert "what is to be otherwise cannot be" in commands("swap", "docs", "--type", "float", "--yes", code=2)
    assert "no swap is under way" in commands("swap", "docs", "--commit", code=1)
    assert "no others are there" in commands("swap", "docs", "--rollback", code=1)
    assert "there is one set of vectors alone" in commands("swap", "docs", "--abandon", "--yes", code=1)
    assert "is not exported" in commands("swap", "docs", "--model", "bge-m3", "--yes", code=78)


def test_an_index_is_asked_for_and_not_who_builds_it(commands: Commands, docs: Connection) -> None:
    commands("swap", "docs", "--model", SECOND, "--yes")
    commands("backfill")
    mark = f"UPDATE pg_index SET indisvalid = %s WHERE indexrelid IN ({INDEX_OF_SECOND})"
    assert docs.execute(mark, (False,)).rowcount == 1  # as a builder that was killed leaves it
    assert "its index is not built" in commands("swap", "docs", "--commit", code=1)
    docs.execute(mark, (True,))
    docs.execute("SELECT pg_advisory_lock(%s, hashtext('docs.2'))", (INDEX_LOCK_CLASS,))  # who built it
    assert "docs.2 is shown" in commands("swap", "docs", "--commit")


def test_a_worker_is_told_and_killed_and_goes_on(
    commands: Commands, docs: Connection, url: str, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute(
        "INSERT INTO docs SELECT g, 'row ' || g || repeat(' word', 60) FROM generate_series(100, 500) g"
    )
    worker = workers(commands.config)
    until("it keeps the first", lambda: count(docs, "docs_embedding") == 431)
    commands("swap", "docs", "--model", SECOND, "--yes")
    filled = "docs_embedding_2"
    until("it fills the second at once", lambda: exists(docs, filled) and count(docs, filled) > 20, 20)
    worker.kill()
    worker = workers(commands.config)
    until("it goes on", lambda: count(docs, filled) == 431)
    with psycopg.connect(url, autocommit=True) as application:
        application.execute("UPDATE docs SET body = 'edited' WHERE id = 100")
    index = f"pg_index WHERE indisvalid AND indexrelid IN ({INDEX_OF_SECOND})"
    until("its index is built", lambda: count(docs, index) == 1)
    assert "docs.2 is shown" in commands("swap", "docs", "--commit")
    assert "docs is taken away" in commands("swap", "docs", "--finish", "--yes")
    until("one keeper is left", lambda: count(docs, "freshvec.sync") == 1)
    docs.execute("UPDATE docs SET body = 'again' WHERE id = 101")
    commands("wait", "--key", "101")
    assert worker.stop() == 0, worker.output
