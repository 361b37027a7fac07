"""Backoff, errors, progress, named queries, catalogue."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedsync
from embedsync import data
from embedsync.backoff import Backoff
from embedsync.db import queries
from embedsync.encoding import catalogue
from embedsync.errors import ConfigError, EmbedsyncError, ModelError
from embedsync.progress import Progress
from embedsync.records import Fate, Outcome

SQL = Path(embedsync.__file__).parent / "sql"


@given(st.floats(0.01, 10), st.floats(0.01, 100), st.integers(0, 200))
def test_backoff_is_capped_and_never_none(first: float, cap: float, attempts: int) -> None:
    backoff = Backoff(first, cap)
    backoff.attempts = attempts
    assert 0 < backoff.next_delay() <= cap
    assert backoff.attempts == attempts + 1
    backoff.reset()
    assert backoff.next_delay() <= first


def test_an_error_names_operation_object_and_remedy() -> None:
    error = EmbedsyncError("write", "sync 'a'", "the disk is full.", "Free some space.", retryable=True)
    assert str(error) == "cannot write sync 'a': the disk is full. Free some space."
    assert ConfigError("x.toml", ["one", "two"]).exit_code == 2


def test_progress_counts_and_gives_percentiles() -> None:
    progress = Progress()
    rows = [Outcome((str(n),), 1, Fate.STORE, error="bad" if n == 0 else None) for n in range(100)]
    progress.wrote(rows, [n / 1000 for n in range(100)])
    progress.truncated(3)
    shown = progress.snapshot()
    assert (shown.done, shown.failed, shown.truncated) == (100, 1, 3)
    assert shown.lag_p50_ms == pytest.approx(50)
    assert shown.lag_p99_ms == pytest.approx(99)


@pytest.mark.parametrize("name", sorted(path.stem for path in SQL.glob("*.sql")))
def test_every_named_query_is_used(name: str) -> None:
    code = "\n".join(path.read_text() for path in Path(embedsync.__file__).parent.rglob("*.py"))
    for query in queries(name):
        assert re.search(rf'"{query}"', code), f"{name}.sql: {query} is used nowhere"


def test_every_card_of_the_catalogue_is_whole() -> None:
    cards = catalogue.load()
    assert set(cards) == {path.stem for path in data.folder("models").glob("*.toml")}
    for card in cards.values():
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in card.sha256.values())
        assert card.revision == "" or re.fullmatch(r"[0-9a-f]{40}", card.revision)
        assert all(size < card.dimension for size in card.matryoshka)


def test_a_user_adds_and_replaces_models(tmp_path: Path) -> None:
    own = 'name = "all-MiniLM-L6-v2"\nsource = "mine"\ndimension = 3\nmax_tokens = 9\npooling = "cls"\n'
    (tmp_path / "mine.toml").write_text(own)
    assert catalogue.find("all-MiniLM-L6-v2", [tmp_path]).source == "mine"
    (tmp_path / "bad.toml").write_text('name = "bad"\n')
    with pytest.raises(ModelError, match=r"bad\.toml"):
        catalogue.load([tmp_path])
    with pytest.raises(ModelError, match=r"Known are: .*all-MiniLM-L6-v2"):
        catalogue.find("nothing")
