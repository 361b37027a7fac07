"""The whole way in one process: a backfill against tokenising and encoding alone, and edits during a
burst."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from freshvec.embedded import EmbeddedPostgres
from freshvec.encoding import dispatch
from freshvec.encoding import session as sessions
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.tokenizer_pool import TokenizerPool
from freshvec.pipeline.writer import Writer
from freshvec.scans.backfill import Backfill
from freshvec.target.upsert import TargetWriter
from freshvec.worker.worker import Worker
from tests.benchmarks.freshness import edits, edits_while, holds
from tests.benchmarks.gpu.setting import Setting, median, sampled
from tests.benchmarks.gpu.variants import PAGE, Planned, encode, planned
from tests.benchmarks.harness import percentile
from tests.support import running, settings_for, wait_fresh


@dataclass(frozen=True)
class Way:
    """How a backfill runs."""

    is_quick: bool = True  # nanotoken makes the tokens
    page_rows: int | None = None
    lanes: int = 2


WAYS = {
    "tokenised by processes": Way(is_quick=False),
    "as it comes": Way(),
    "in pages of 8,192 rows": Way(page_rows=8192),
    "in pages of 4,096 rows": Way(page_rows=4096),
    "in pages of 1,024 rows": Way(page_rows=1024),
    "three batches under way": Way(lanes=3),
}


@contextmanager
def server(texts: list[str]) -> Iterator[EmbeddedPostgres]:
    """A server with a database `texts` to copy: a table of so many rows."""
    with EmbeddedPostgres(18) as made:
        with psycopg.connect(made.url(), autocommit=True) as connection:
            for name, value in (
                ("shared_buffers", "4GB"),
                ("max_wal_size", "16GB"),
                ("wal_compression", "off"),
            ):
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        made.run("pg_ctl", "-D", str(made.data), "-m", "fast", "-w", "stop")
        made.start()
        with psycopg.connect(made.url(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE texts")
        with psycopg.connect(made.url("texts"), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
            with connection.cursor().copy("COPY docs FROM STDIN") as copy:
                for number, text in enumerate(texts, 1):
                    copy.write_row((number, text))
            connection.execute("VACUUM ANALYZE docs")
        yield made


@contextmanager
def chosen(setting: Setting, way: Way) -> Iterator[OnnxEncoder]:
    """An encoder that runs that way, while the daemon's own constant is set for it."""
    before = sessions.LANES, dispatch.LANES
    sessions.LANES = dispatch.LANES = way.lanes
    encoder = OnnxEncoder(setting.artefact, setting.device, is_quick=way.is_quick)
    documents = encoder.documents
    documents.encode(setting.texts[:PAGE])  # its processes have begun
    try:
        yield encoder
    finally:
        sessions.LANES, dispatch.LANES = before
        if isinstance(documents, TokenizerPool):
            documents.close()


@contextmanager
def timed(*places: tuple[Any, str]) -> Iterator[dict[str, float]]:
    """Seconds spent in methods, by name."""
    seconds: dict[str, float] = {}
    kept = [(owner, name, getattr(owner, name)) for owner, name in places]

    def wrap(name: str, method: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began

        return call

    for owner, name, method in kept:
        setattr(owner, name, wrap(name, method))
    try:
        yield seconds
    finally:
        for owner, name, method in kept:
            setattr(owner, name, method)


def alone(encoder: OnnxEncoder, texts: list[str], size: int) -> float:
    """Texts a second of tokenising and encoding page by page, warm, the next page tokenised after this is
    encoded."""
    began = time.perf_counter()
    for start in range(0, len(texts), PAGE):
        tokens = encoder.tokenize(texts[start : start + PAGE])
        batches: list[Planned] = planned(tokens, size)
        encode(encoder.session, batches, dispatch.LANES)
    return len(texts) / (time.perf_counter() - began)


def walk(
    setting: Setting, encoder: OnnxEncoder, url: str, texts: list[str], rows: int | None
) -> dict[str, Any]:
    """One backfill, where its time goes, and the same texts tokenised and encoded alone after it."""
    folder = tempfile.mkdtemp()  # of its own: each way looks for its batch size anew
    settings = settings_for(url, sync(setting), models_dir=folder, page_rows=rows)
    worker = Worker(settings, settings.sync, once=True, load=lambda _: encoder, tick_seconds=0.1)
    places = (
        (OnnxEncoder, "tokenize"),
        (OnnxEncoder, "encode"),
        (TargetWriter, "write"),
        (Writer, "flush"),
        (Backfill, "read_page"),
    )
    with timed(*places) as parts, sampled() as sampler:
        began = time.perf_counter()
        worker.run()
        seconds = time.perf_counter() - began
    (dispatcher,) = worker.dispatchers.values()
    part = texts[: len(texts) // 4]
    by_itself = max(alone(encoder, part, dispatcher.budget.settled) for _ in range(2))
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT count(embedding) FROM docs_embedding").fetchone()
    return {
        "rows": rows and rows[0],
        "seconds": seconds,
        "rows/s": len(texts) / seconds,
        "tokenising and encoding alone, texts/s": by_itself,
        "against that": len(texts) / seconds / by_itself,
        "seconds in parts": parts,
        "batch size settled on": dispatcher.budget.settled,
        "utilisation, %": median(sampler.utilisation) if sampler.utilisation else None,
    }


def burst(setting: Setting, encoder: OnnxEncoder, url: str, rows: int | None) -> dict[str, Any]:
    """What a worker in this process makes of edits."""
    with running(settings_for(url, sync(setting), page_rows=rows), encoder) as worker:
        wait_fresh(worker, 120)
        return edited(url, setting.rows)


def edited(url: str, rows: int) -> dict[str, Any]:
    """Commit to visible of so many rows that are kept: idle, and while one statement changes a fifth."""
    first, many = rows // 3, rows // 5
    with psycopg.connect(url, autocommit=True) as connection:
        edits(url, 1, 20, "warm")
        idle = edits(url, 1, min(100, first), "idle")
        connection.execute("UPDATE docs SET body = body || ' again' WHERE id > %s", (rows - many,))
        began = time.perf_counter()
        going = holds("SELECT EXISTS (SELECT FROM freshvec.queue_docs WHERE bulk)")
        during = edits_while(url, first, min(2000, first), "burst", going)
        seconds = time.perf_counter() - began
    return {
        "idle p50, ms": median(idle),
        "idle p99, ms": percentile(idle, 0.99),
        "rows changed": many,
        "burst, s": seconds,
        "burst, rows/s": many / seconds,
        "edits during it": len(during),
        "edits p50, ms": median(during),
        "edits p99, ms": percentile(during, 0.99),
    }


def sync(setting: Setting) -> dict[str, Any]:
    target = {"type": "halfvec"}
    return {
        "name": "docs",
        "table": "docs",
        "columns": ["body"],
        "model": setting.card.name,
        "target": target,
    }


def whole(setting: Setting) -> dict[str, Any]:
    """Every way on a copy of the same rows."""
    texts = setting.many(setting.rows)
    found: dict[str, Any] = {}
    with server(texts) as made:
        for number, (name, way) in enumerate(WAYS.items()):
            with psycopg.connect(made.url(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE way_{number} TEMPLATE texts".encode())
            url = made.url(f"way_{number}")
            try:
                with chosen(setting, way) as encoder:
                    found[name] = walk(setting, encoder, url, texts, way.page_rows)
                    found[name]["live"] = burst(setting, encoder, url, way.page_rows)
            except Exception as error:  # the other ways are still worth their time
                found.setdefault(name, {})["error"] = repr(error)[-300:]
            print(name, found[name], flush=True)
    return found
