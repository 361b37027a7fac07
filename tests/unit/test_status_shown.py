"""What `freshvec status` shows at any width, and what `--check` lets pass."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from freshvec.cli import status_view
from freshvec.health import status
from freshvec.health.declared import Amiss

ROW: dict[str, Any] = {
    "sync": "articles_of_a_name_that_is_long",
    "coverage": 0.998,
    "rows_total": 12_345_678,
    "rows_failed": 3,
    "backlog": 24_690,
    "oldest_unfresh_seconds": 45.0,
    "rows_per_second": 1234.5,
    "eta_seconds": 20.0,
    "lag_p50_ms": 12.3,
    "lag_p99_ms": 456.7,
    "device": "cuda:0",
    "batch_tokens": 131_072,
    "device_memory_used_bytes": 2e9,
    "device_memory_total_bytes": 8e10,
    "owner_pid": 42,
    "last_error": None,
    "trouble": None,
    "paused": None,
    "backfill_done": True,
    "rescan_waiting": False,
    "texts_truncated": 327,
    "proven_at": datetime(2026, 11, 27, tzinfo=UTC),
    "proven_found": 0,
    "proven_vectors": 0,
}


def shown(width: int, *, is_terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=is_terminal, color_system=None)
    rows = [ROW, {**ROW, "sync": "other", "coverage": 0.99999}]
    amiss = {"other": Amiss("not as declared", "declared otherwise than applied")}
    status_view.show(console, status.Seen(rows, {}, amiss))
    return out.getvalue()


@pytest.mark.parametrize(
    ("width", "is_terminal"), [(60, True), (80, True), (80, False), (200, True), (30, False)]
)
def test_nothing_is_cut_at_any_width(width: int, is_terminal: bool) -> None:
    seen = shown(width, is_terminal=is_terminal)
    values = (
        "catching up",
        "not as declared",
        "99.80%",
        "99.99%",
        "12,345,678",
        "24,690",
        "45 s",
        "456.7 ms",
    )
    for value in (ROW["sync"], *values):
        assert value in seen, seen
    assert "…" not in seen
    lines = seen.splitlines()
    assert ("  coverage  99.80% of 12,345,678 rows" in lines) == (width < 200)
    if width >= 80:
        assert max(map(len, lines)) <= width


def test_texts_that_were_cut_are_said() -> None:
    seen = status.Seen([ROW, {**ROW, "sync": "other", "texts_truncated": 0}], {}, {})
    said = [line for line in status_view.remarks(seen) if "longer than the model reads" in line]
    assert len(said) == 1
    assert said[0].startswith(f"{ROW['sync']}: 327 texts were longer")


@pytest.mark.parametrize(
    ("changes", "max_lag", "min_coverage", "passes"),
    [
        ({}, None, None, False),
        ({}, 60, None, True),
        ({}, 30, None, False),
        ({}, None, 0.99, True),
        ({}, None, 0.999, False),
        ({}, 60, 0.999, False),
        ({"oldest_unfresh_seconds": None}, 1, None, True),
        ({"trouble": "triggers are lacking"}, 60, 0.5, False),
        ({"coverage": 1, "backlog": 0}, None, None, True),
    ],
)
def test_what_check_lets_pass(
    changes: dict[str, Any], max_lag: float | None, min_coverage: float | None, passes: bool
) -> None:
    assert status.is_within(ROW | changes, max_lag, min_coverage) is passes
