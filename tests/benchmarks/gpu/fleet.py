"""The real command with one and with several workers on one GPU: a backfill, and edits during a burst.

One process is held back by the interpreter's lock long before the GPU is; several share the rows.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from freshvec.embedded import EmbeddedPostgres
from tests.benchmarks.gpu.setting import Setting, median, sampled
from tests.benchmarks.gpu.whole import edited, server
from tests.benchmarks.harness import await_fresh
from tests.benchmarks.sharing import is_fair
from tests.support import DOCS_SYNC, WorkerProcess, config_toml, until

WORKERS = (1, 2, 3, 4, 6)
LIVE = (1, 2, 4)  # workers
_LOOK = 0.02  # seconds between looks at the target's size


def fleet(setting: Setting) -> dict[str, Any]:
    """Backfills of as many rows by more and more workers, then edits while a fifth of the rows change."""
    found: dict[str, Any] = {}
    with server(setting.many(setting.rows)) as made:
        for number in WORKERS[:2] if setting.quick else WORKERS:
            name = f"{number} workers"
            with noted(found, name), copied(made) as url, configured(setting, url) as config:
                found[name] = filled(url, config, number, setting.rows)
                if number in LIVE:
                    found[name]["live"] = burst(url, config, number, setting.rows)
    return found


@contextmanager
def noted(found: dict[str, Any], name: str) -> Iterator[None]:
    """A way that fails says so, and costs no other."""
    try:
        yield
    except Exception as error:
        found.setdefault(name, {})["error"] = repr(error)[-600:]
    print(name, found[name], flush=True)


@contextmanager
def copied(made: EmbeddedPostgres) -> Iterator[str]:
    """A copy of the database `texts`, dropped at the end."""
    with psycopg.connect(made.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE fleet TEMPLATE texts STRATEGY file_copy")
        try:
            yield made.url("fleet")
        finally:
            connection.execute("DROP DATABASE fleet WITH (FORCE)")


@contextmanager
def configured(setting: Setting, url: str) -> Iterator[Path]:
    """A configuration for the daemon, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "freshvec.toml")
        target = '[sync.target]\ntype = "halfvec"\n'
        config.write_text(
            config_toml(url, setting.models.resolve(), DOCS_SYNC + target, f'device = "{setting.device}"')
        )
        yield config


@contextmanager
def started(config: Path, command: str, number: int) -> Iterator[WorkerProcess]:
    """`freshvec COMMAND` with so many workers; its log is shown where it fails."""
    workers = ("--workers", str(number)) if number > 1 else ()
    process = WorkerProcess(config, command, *workers, log=config.with_name(f"{command}.log"))
    try:
        yield process
    except BaseException:
        print(process.output[-3000:], flush=True)
        raise
    finally:
        with suppress(Exception):
            process.stop(30)
        process.close()


def filled(url: str, config: Path, number: int, rows: int) -> dict[str, Any]:
    """A backfill from the start of the command; and from its first to its last written page."""
    size = "SELECT coalesce(pg_relation_size(to_regclass('docs_embedding')), 0)"
    first = last = began = time.perf_counter()
    known = 0
    with psycopg.connect(url, autocommit=True) as looking, started(config, "backfill", number) as process:
        with sampled() as sampler:
            while process.is_running:
                (now,) = looking.execute(size.encode()).fetchone() or (0,)
                if now != known:
                    last = time.perf_counter()
                    first, known = (first if known else last), now
                time.sleep(_LOOK)
        seconds = time.perf_counter() - began
        assert process.process.returncode == 0, process.output[-2000:]
        (there,) = looking.execute("SELECT count(embedding) FROM docs_embedding").fetchone() or (0,)
    return {
        "rows": there,
        "seconds from the command's start": seconds,
        "first page written after, s": first - began,
        "rows/s from the command's start": rows / seconds,
        "rows/s from the first page to the last": rows / (last - first) if last > first else None,
        "utilisation, %": median(sampler.utilisation) if sampler.utilisation else None,
        "most memory of the GPU, MB": max(sampler.used_mb, default=None),
    }


def burst(url: str, config: Path, number: int, rows: int) -> dict[str, Any]:
    """What so many workers make of edits."""
    with started(config, "run", number), psycopg.connect(url, autocommit=True) as connection:
        await_fresh(connection)
        if number > 1:
            until("each has its shards", lambda: is_fair(connection, number))
        return edited(url, rows)
