"""SIGHUP: the file is read again by the worker that runs."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import (
    DOCS_SYNC,
    Connection,
    WorkerProcess,
    config_toml,
    count,
    exists,
    free_port,
    freshvec,
    until,
    write_config,
)

NOTES = DOCS_SYNC.replace("docs", "notes")


def test_a_reload_that_comes_before_the_models_are_loaded_is_not_lost(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    """The file is a pipe here, which tells when it is read."""
    path = tmp_path / "freshvec.toml"
    os.mkfifo(path, 0o600)
    text = config_toml(url, models_dir, DOCS_SYNC)
    worker = workers(path)
    reading: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):  # nobody reads it yet
            reading.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        return bool(reading)

    for turn in range(2):
        until("it is read", is_read)
        if turn == 0:
            worker.process.send_signal(signal.SIGHUP)
        with os.fdopen(reading.pop(), "w") as file:
            file.write(text)
        until("it was read to its end", lambda: ": loading " in worker.output)
    until("it was read again", lambda: "the file was read again" in worker.output)
    assert worker.is_running


def fill(docs: Connection) -> None:
    """One row in `docs`, and one in a table `notes` beside it."""
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    docs.execute("CREATE TABLE notes (id bigint PRIMARY KEY, body text, title text)")
    docs.execute("INSERT INTO notes VALUES (1, 'body', 'title')")


def owned(docs: Connection) -> dict[str, int]:
    """How often each sync that is owned has been taken up."""
    found = docs.execute(
        "SELECT s.name, s.epoch FROM freshvec.sync s JOIN freshvec.status ON sync = name"
        " WHERE owner_pid IS NOT NULL"
    )
    return dict(found.fetchall())


def embedded(docs: Connection, table: str) -> bool:
    return exists(docs, table) and count(docs, f"{table} WHERE embedding IS NOT NULL") == 1


def test_a_reloaded_file_is_taken_up_and_the_other_syncs_go_on(
    url: str,
    docs: Connection,
    models_dir: Path,
    tmp_path: Path,
    workers: Callable[..., WorkerProcess],
) -> None:
    fill(docs)
    path = tmp_path / "freshvec.toml"

    def declare(syncs: str) -> None:
        write_config(path, config_toml(url, models_dir, syncs))

    def reload(syncs: str) -> None:
        declare(syncs)
        worker.process.send_signal(signal.SIGHUP)

    declare(DOCS_SYNC)
    worker = workers(path)
    until("docs is embedded", lambda: embedded(docs, "docs_embedding"))
    kept = owned(docs)

    reload(DOCS_SYNC + NOTES)
    until("an added sync is taken up", lambda: embedded(docs, "notes_embedding"))
    first = docs.execute("SELECT content_hash FROM notes_embedding").fetchone()

    reload(DOCS_SYNC + NOTES.replace('["body"]', '["title"]'))
    until(
        "a changed one is made anew",
        lambda: docs.execute("SELECT content_hash FROM notes_embedding").fetchone() not in (None, first),
    )

    reload(DOCS_SYNC + 'this is "no TOML')
    until("a faulty file is said", lambda: "the old one stays" in worker.output)
    assert owned(docs).keys() == {"docs", "notes"}

    reload(DOCS_SYNC)
    until("a removed one ends", lambda: owned(docs) == kept)  # and docs was never interrupted
    docs.execute("UPDATE docs SET body = 'two'")
    until("docs is kept", lambda: count(docs, "freshvec.queue_docs") == 0)
    owner = "SELECT owner_pid FROM freshvec.status WHERE sync = 'notes'"
    assert docs.execute(owner).fetchone() == (None,)
    assert worker.is_running
    assert worker.stop() == 0


def test_what_takes_a_restart_is_said_by_name_alone(
    url: str,
    docs: Connection,
    models_dir: Path,
    tmp_path: Path,
    workers: Callable[..., WorkerProcess],
) -> None:
    path = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    worker = workers(path, "run", "--serve", f"127.0.0.1:{free_port()}")
    until("it works", lambda: exists(docs, "docs_embedding"))
    worker.process.send_signal(signal.SIGHUP)
    until("it was read again", lambda: "the file was read again" in worker.output)
    assert "a restart" not in worker.output, "what the command line says is no change"
    changed = config_toml(
        url.replace("postgres:@", "postgres:geheimnis@"),
        models_dir,
        DOCS_SYNC,
        'threads = 1\nlog_level = "ERROR"',
    )
    write_config(path, changed + "[web]\nrows = true\n")
    worker.process.send_signal(signal.SIGHUP)
    said = "database.url, daemon.threads, daemon.log_level, web.rows have changed: a restart"
    until("it is said", lambda: said in worker.output)
    assert "geheimnis" not in worker.output
    assert worker.stop() == 0


@pytest.mark.parametrize("command", [("run",), ("run", "docs")])
def test_the_only_sync_can_be_taken_out_and_then_removed(
    url: str,
    docs: Connection,
    models_dir: Path,
    tmp_path: Path,
    workers: Callable[..., WorkerProcess],
    command: tuple[str, ...],
) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    path = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    worker = workers(path, *command)
    until("docs is embedded", lambda: embedded(docs, "docs_embedding"))
    write_config(path, config_toml(url, models_dir, ""))
    worker.process.send_signal(signal.SIGHUP)
    until("it is let go", lambda: "syncs: none" in worker.output)
    until("nobody owns it", lambda: not owned(docs))
    removed = freshvec("remove", "docs", "--yes", "--config", str(path))
    assert removed.returncode == 0, removed.stderr
    assert not exists(docs, "docs_embedding")
    assert worker.is_running, "what is declared next is taken up"
    write_config(path, config_toml(url, models_dir, DOCS_SYNC))
    worker.process.send_signal(signal.SIGHUP)
    until("docs is embedded anew", lambda: embedded(docs, "docs_embedding"))
    assert worker.stop() == 0
