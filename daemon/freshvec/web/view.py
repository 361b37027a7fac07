"""What the page shows, as the JSON that it asks for every few seconds."""

import time
from typing import Any

from freshvec import __version__, logs
from freshvec.health import status
from freshvec.health.history import SECONDS, History
from freshvec.health.process import ModelNow, ProcessNow, SyncNow
from freshvec.health.watch import Seen

_LINES = 60  # of the log
_MOST_TEXT = 2000  # characters of an error
_SOON = 2.0  # seconds that a change may wait without anybody being told
_SHOWN = (
    "target",
    "rows_total",
    "rows_fresh",
    "rows_failed",
    "coverage",
    "backlog",
    "oldest_unfresh_seconds",
    "eta_seconds",
    "lag_p50_ms",
    "lag_p99_ms",
    "proven_found",
    "proven_vectors",
    "index_name",
    "index_bytes",
    "index_valid",
    "index_phase",
    "index_share",
)


def state(process: ProcessNow, seen: Seen, history: History, since: int, *, rows: bool) -> dict[str, Any]:
    """Everything but what was asked for before step `since`. `rows`: with what may be in rows."""
    steps = history.since(since)
    shown = [_sync(sync, process, seen, rows=rows) for sync in process.syncs]
    shown += [_left_out(name, why) for name, why in process.left_out.items()]
    for sync in shown:
        sync["steps"] = [
            [number, _short(step.rows_per_second), _short(step.lag_p50), _short(step.lag_p99)]
            for number, step in steps.get(sync["name"], ())
        ]
    return {
        "version": __version__,
        "now": time.time(),
        "alive": process.is_alive,
        "paused": process.paused,
        "database_error": _text(seen.error),
        "status_age": seen.age,
        "step": history.number,
        "step_seconds": SECONDS,
        "syncs": shown,
        "models": [_model(model) for model in process.models],
        "shows_rows": rows,
        "log": [[line.number, line.at, line.level, line.text] for line in logs.tail()[-_LINES:]]
        if rows
        else [],
    }


def _sync(sync: SyncNow, process: ProcessNow, seen: Seen, *, rows: bool) -> dict[str, Any]:
    row = seen.syncs.get(sync.name)
    word, why = _word(sync, row, process, seen)
    known = {name: row[name] for name in _SHOWN} if row else dict.fromkeys(_SHOWN)
    failures = seen.failures.get(sync.name, []) if rows else []
    return {
        **known,
        "name": sync.name,
        "table": sync.table,
        "model": sync.model,
        "state": word,
        "why": _text(why),
        "index_trouble": _text(row.get("index_trouble")) if row else None,
        "phase": sync.phase if sync.is_running else None,
        "in_flight": sync.in_flight,
        "truncated": sync.totals.truncated,
        "proven_at": row["proven_at"].timestamp() if row and row["proven_at"] else None,
        "failures": [
            {"key": list(map(str, failed["key"].values())), "error": _text(failed["error"])}
            for failed in failures
        ],
    }


def _word(
    sync: SyncNow, row: dict[str, Any] | None, process: ProcessNow, seen: Seen
) -> tuple[str, str | None]:
    """The word for how a sync is, and the reason where one helps."""
    if sync.trouble:
        return "trouble", sync.trouble
    if seen.error or row is None:
        return ("unknown", "the database does not answer") if seen.error else ("starting", None)
    if sync.stands_by:
        return "standing by", "another worker keeps it"
    word = status.state(row)
    if word == "no worker":
        return "starting", None
    if word == "trouble":
        return word, str(row["trouble"] or row["last_error"])
    if word == "paused":
        return word, f"bulk work waits: {process.paused or row['paused']}"
    if word == "catching up" and row["rows_failed"]:
        texts = "one text" if row["rows_failed"] == 1 else f"{row['rows_failed']:,} texts"
        return "trouble", f"{texts} could not be encoded."
    if word == "catching up" and row["backfill_done"] and (row["oldest_unfresh_seconds"] or 0) < _SOON:
        return "keeping up", None
    return word, None


def _left_out(name: str, why: str) -> dict[str, Any]:
    """A sync that is declared and has no model."""
    others = ("table", "model", "phase", "proven_at", "in_flight", "truncated", "index_trouble")
    nothing = dict.fromkeys((*_SHOWN, *others))
    return nothing | {"name": name, "state": "trouble", "why": _text(why), "failures": []}


def _model(model: ModelNow) -> dict[str, Any]:
    memory = model.memory
    return {
        "name": model.name,
        "device": model.device,
        "tokens": model.tokens,
        "padded": model.padded,
        "busy_seconds": round(model.busy_seconds, 3),
        "batch_tokens": model.batch_tokens,
        "memory_used": memory and memory.used * 1e9,
        "memory_total": memory and memory.total * 1e9,
    }


def _text(text: object) -> str | None:
    return None if text is None else logs.redact(str(text))[:_MOST_TEXT]


def _short(value: float | None) -> float | None:
    """Three figures are enough for a chart."""
    return None if value is None else float(f"{value:.3g}")
