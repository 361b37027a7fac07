"""Any text, with the real model: what is stored is what a fresh encoding gives, in every type of target."""

import itertools
import json
import threading
from pathlib import Path

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from freshvec.capture.queue import QueueReader
from freshvec.encoding.batching import plan_batches
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.records import Change, Entry, Tokens
from freshvec.scans.backfill import Backfill, Page
from tests.staleness import as_vector
from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    NullEncoder,
    config_toml,
    count,
    freshvec,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
    write_config,
)

TEXTS: dict[int, str | None] = {
    1: "An ordinary text about baking bread.",
    2: None,
    3: "",
    4: " \n\t ",
    5: "long words and spaces " * 50_000,  # a megabyte
    6: "\x01\x02\x1f control \x7f characters \u200b\u202e",
    7: "🎉🚀👩‍👩‍👧‍👦🏳️‍🌈",
    8: "word " * 300,
    9: "x" * 30_000,
    10: "An ordinary text about baking bread.",
    11: "日本語のテキスト и кириллица",
    12: "\u00a0 no-break space only \u3000",
    13: "word " * 254,  # with [CLS] and [SEP] exactly the 256 tokens the model reads
    14: "word " * 255,
    15: "🎉",
    16: "\x01\x02\x1f\x7f",
}
BLANK = {2, 3, 4, 16}  # they show nothing


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


@pytest.mark.parametrize(("kind", "least"), [("vector", 0.99999), ("halfvec", 0.9999), ("real[]", 0.99999)])
def test_what_is_stored_is_a_fresh_encoding(
    url: str, docs: Connection, encoder: OnnxEncoder, kind: str, least: float
) -> None:
    for row, text in TEXTS.items():
        docs.execute("INSERT INTO docs VALUES (%s, %s)", (row, text))
    with running(settings_for(url, sync_of("docs", target={"type": kind})), encoder) as worker:
        wait_fresh(worker)
        docs.execute("UPDATE docs SET body = NULL WHERE id = 1")
        until("the emptied row lost its vector", lambda: count(docs, "docs_embedded WHERE id = 1") == 0)
        query = "SELECT id, embedding::text FROM docs_embedded ORDER BY id"
        stored = {row: as_vector(text) for row, text in docs.execute(query)}
        truncated = worker.keepers[0].progress.snapshot().truncated
    assert set(stored) == set(TEXTS) - BLANK - {1}
    fresh = encoder.encode(encoder.tokenize([TEXTS[row] or "" for row in stored]))
    assert cosines(np.stack(list(stored.values())), fresh).min() > least
    assert truncated == 3
    assert count(docs, "docs_embedding") == len(stored), "a row without text has no row in the target"


def test_equal_texts_are_encoded_once_and_each_has_its_vector(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'the same text' FROM generate_series(1, 60) g")
    encoder = NullEncoder()
    with running(settings_for(url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
    query = "SELECT count(*), count(DISTINCT embedding::text) FROM docs_embedded"
    assert docs.execute(query).fetchone() == (60, 1)
    assert encoder.encoded == 1


def test_a_row_emptied_and_filled_again(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'first')")
    vector = "SELECT embedding::text FROM docs_embedded WHERE id = 1"
    with running(settings_for(url, sync_of("docs")), NullEncoder()) as worker:
        wait_fresh(worker)
        first = docs.execute(vector).fetchone()
        assert first
        for empty in (None, "", " \n"):
            docs.execute("UPDATE docs SET body = %s", (empty,))
            until("the vector is gone", lambda: docs.execute(vector).fetchone() is None)
            docs.execute("UPDATE docs SET body = 'first'")
            until("the vector is back", lambda: docs.execute(vector).fetchone() == first)


class Held(NullEncoder):
    """Encodes texts that begin with `held` only once `released` is set."""

    def __init__(self) -> None:
        super().__init__(refuse="")  # so that it knows its texts
        self.holds, self.released = threading.Event(), threading.Event()

    def _is_refused(self, tokens: Tokens) -> bool:
        if self._texts[tokens.ids.tobytes()].startswith("held"):
            self.holds.set()
            assert self.released.wait(90)
        return False


def test_a_tombstone_stands_while_an_older_reading_is_under_way(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'first')")
    encoder = Held()
    with running(settings_for(url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        docs.execute("UPDATE docs SET body = 'held'")
        until("it is being encoded", encoder.holds.is_set)
        docs.execute("UPDATE docs SET body = NULL")
        tombstone = "docs_embedding WHERE embedding IS NULL AND content_hash IS NULL"
        until("the emptied row has a tombstone", lambda: count(docs, tombstone) == 1)
        assert count(docs, "docs_embedded") == 0
        encoder.released.set()
        until("the tombstone is gone", lambda: count(docs, "docs_embedding") == 0)
        wait_fresh(worker)
    assert count(docs, "docs_embedding") == 0, "and no older reading came after it"


def test_a_page_that_is_read_ahead_brings_no_text_back(
    url: str, docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of that page are emptied, and read as live changes, before the page is handed on."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 12) g")
    read_page, read_queue = Backfill.read_page, QueueReader.read
    pages, ahead = itertools.count(1), threading.Event()
    looks = itertools.count(1)  # at the queue, since the last text of the first page was tokenised
    last_text = threading.Event()

    class Noting(NullEncoder):
        def tokenize(self, texts: list[str]) -> list[Tokens]:
            if "text 4" in texts:
                last_text.set()
            return super().tokenize(texts)

    def page(backfill: Backfill, limit: int) -> Page:
        found = read_page(backfill, limit)
        if next(pages) == 2:
            ahead.set()
        return found

    def look(queue: QueueReader, limit: int, known: list[Entry], *, bulk: bool) -> tuple[int, list[Change]]:
        if last_text.is_set() and not bulk and next(looks) == 2:  # the first look is at the end of the page
            assert ahead.wait(90)
            until("the first page is written", lambda: count(docs, "docs_embedding") == 4)
            docs.execute("UPDATE docs SET body = NULL WHERE id IN (5, 6)")
        return read_queue(queue, limit, known, bulk=bulk)

    monkeypatch.setattr(Backfill, "read_page", page)
    monkeypatch.setattr(QueueReader, "read", look)
    with running(settings_for(url, sync_of("docs"), page_rows=4), Noting()) as worker:
        wait_fresh(worker)
        until("no tombstone is left", lambda: count(docs, "docs_embedding WHERE embedding IS NULL") == 0)
    assert next(looks) > 2
    assert count(docs, "docs_embedding") == 10
    assert count(docs, "docs_embedding WHERE id IN (5, 6)") == 0


def test_one_text_the_model_refuses_costs_no_other_row(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 100) g")
    docs.execute("UPDATE docs SET body = 'a cursed text' WHERE id = 42")
    encoder = NullEncoder(refuse="cursed")
    failed = "SELECT rows_failed, rows_fresh, backlog FROM freshvec.status"
    with running(settings_for(url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        assert count(docs, "docs_embedded") == 99
        assert docs.execute(failed).fetchone() == (1, 99, 0)
        error = docs.execute("SELECT encode_error FROM docs_embedding WHERE id = 42").fetchone()
        assert error == ("the null encoder refuses this text",)
        docs.execute("UPDATE docs SET body = 'a blessed text' WHERE id = 42")
        until("the edit released it", lambda: docs.execute(failed).fetchone() == (0, 100, 0))


def test_retry_gives_a_refused_text_another_chance(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path
) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'a cursed text'), (2, 'a plain text')")
    encoder = NullEncoder(refuse="cursed")
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    with running(settings_for(url, sync_of("docs"), sweep_seconds=600.0), encoder) as worker:
        wait_fresh(worker)
        assert docs.execute("SELECT rows_failed FROM freshvec.status").fetchone() == (1,)
        shown = freshvec("status", "--config", str(config)).stdout
        assert "docs: could not encode these" in shown
        assert "  1: the null encoder refuses this text" in shown
        (row,) = json.loads(freshvec("status", "--json", "--config", str(config)).stdout)
        assert row["failures"] == [{"key": {"id": 1}, "error": "the null encoder refuses this text"}]
        encoder.refuse = None
        assert "docs: 1 rows queued" in freshvec("retry", "--config", str(config)).stdout
        until("it is embedded", lambda: count(docs, "docs_embedded") == 2)
        assert docs.execute("SELECT rows_failed FROM freshvec.status").fetchone() == (0,)
        assert "could not encode" not in freshvec("status", "--config", str(config)).stdout


ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=400)


@settings(deadline=None, max_examples=15)
@given(st.lists(ANY_TEXT, min_size=1, max_size=30), st.sampled_from([64, 500]))
def test_a_batch_gives_what_single_texts_give(encoder: OnnxEncoder, texts: list[str], size: int) -> None:
    tokens = encoder.tokenize(texts)
    assert len(tokens) == len(texts)
    together = np.empty((len(texts), encoder.dimension), dtype=np.float32)
    for batch in plan_batches([len(text) for text in tokens], lambda: size):
        together[batch.indices] = encoder.encode([tokens[i] for i in batch.indices])
    alone = np.concatenate([encoder.encode([text]) for text in tokens])
    assert np.abs(together - alone).max() < 1e-5


@settings(deadline=None, max_examples=40)
@given(
    st.text(max_size=60), st.integers(0, 3000), st.sampled_from(["word ", "x", "\n", "é ", "🎉", "a-b/c "])
)
def test_a_long_text_has_the_tokens_of_the_whole(
    models_dir: Path, encoder: OnnxEncoder, start: str, times: int, unit: str
) -> None:
    plain = Tokenizer.from_file(str(models_dir / MODEL / "tokenizer.json"))
    plain.no_padding()
    plain.enable_truncation(encoder.max_tokens)
    text = start + unit * times
    wanted = plain.encode(text)
    (found,) = encoder.tokenize([text])
    assert found.ids.tolist() == wanted.ids
    assert found.truncated == bool(wanted.overflowing)


def test_the_server_refuses_a_null_character_before_we_see_it(docs: Connection) -> None:
    with pytest.raises((psycopg.DataError, ValueError)):
        docs.execute("INSERT INTO docs VALUES (1, %s)", ("a\0b",))


LONG_STARTS = {
    "blanks": " " * 26_000,
    "hex": "0f" * 13_000,
    "emoji": "🎉" * 26_000,
    "control": "\x01" * 26_000,
}


@pytest.mark.parametrize("live", [False, True], ids=["backfill", "live"])
def test_what_follows_a_start_that_says_nothing_is_embedded_too(
    url: str, docs: Connection, encoder: OnnxEncoder, live: bool
) -> None:
    texts = {row: start + " How to bake bread at home." for row, start in enumerate(LONG_STARTS.values(), 1)}
    for row, text in texts.items():
        docs.execute("INSERT INTO docs VALUES (%s, %s)", (row, "short" if live else text))
    with running(settings_for(url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        if live:
            docs.execute("UPDATE docs SET body = 'short again'")
            for row, text in texts.items():
                docs.execute("UPDATE docs SET body = %s WHERE id = %s", (text, row))
        fresh = encoder.encode(encoder.tokenize(list(texts.values())))
        query = "SELECT embedding::text FROM docs_embedded ORDER BY id"

        def worst() -> float:
            stored = [as_vector(text) for (text,) in docs.execute(query)]
            return float(cosines(np.stack(stored), fresh).min())

        until("every vector is that of its whole text", lambda: worst() > 0.9999)
