"""What the status shows: a table, and the rows that could not be encoded."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from freshvec.cli.amounts import duration, memory, percent, size
from freshvec.health import status
from freshvec.printable import in_a_line


def show(console: Console, seen: status.Seen) -> None:
    """The table where a person looks at a terminal that is wide enough; elsewhere nothing may be cut."""
    wide = table(seen)
    if seen.rows and fits(console, wide):
        console.print(wide)
    else:
        for line in blocks(seen):
            console.print(line, soft_wrap=True)


def fits(console: Console, shown: Table) -> bool:
    """Whether somebody looks at a terminal on which nothing of the table is cut."""
    unbound = console.options.update(max_width=1000)
    return console.is_terminal and Measurement.get(console, unbound, shown).maximum <= console.width


def blocks(seen: status.Seen) -> Iterator[str]:
    """A few short lines per sync: at 80 columns, and for programs that read lines."""
    for row in seen.rows:
        rate, failures = row["rows_per_second"], row["rows_failed"]
        yield f"{row['sync']}: {seen.state(row)}"
        yield f"  coverage  {percent(row['coverage'])} of {_number(row['rows_total'])} rows"
        waiting = row["oldest_unfresh_seconds"]
        yield f"  backlog   {_number(row['backlog'])}" + (
            f", the oldest {duration(waiting)}" if waiting is not None else ""
        )
        if rate:
            yield f"  rate      {rate:.0f} rows/s, ETA {duration(row['eta_seconds'])}"
        yield f"  lag       {_lag(row)} (p50 / p99)"
        if failures:
            yield f"  failed    {_number(failures)}"
        if row["device"]:
            yield f"  device    {device(row)}"
        if index := index_of(row):
            yield f"  index     {index}"


def table(seen: status.Seen) -> Table:
    """One line per sync."""
    shown = Table(
        "sync",
        "state",
        "coverage",
        "rows",
        "backlog",
        "oldest",
        "rate",
        "ETA",
        "lag p50 / p99",
        "failed",
        title="freshvec",
        caption="\n".join(_captions(seen.rows)),
    )
    for row in seen.rows:
        rate = row["rows_per_second"]
        shown.add_row(
            row["sync"],
            seen.state(row),
            percent(row["coverage"]),
            _number(row["rows_total"]),
            _number(row["backlog"]),
            duration(row["oldest_unfresh_seconds"]),
            f"{rate:.0f} rows/s" if rate else "–",
            duration(row["eta_seconds"]),
            _lag(row),
            _number(row["rows_failed"]),
        )
    return shown


def _captions(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What has no place in the table."""
    for row in rows:
        if row["device"]:
            yield f"{row['sync']}: {device(row)}"
        if index := index_of(row):
            yield f"{row['sync']}: index {index}"


def remarks(seen: status.Seen) -> Iterator[str]:
    """What is to be said besides: pauses, cut texts, proofs, troubles, and rows that could not be encoded."""
    yield from pauses(seen.rows)
    yield from cuts(seen.rows)
    yield from proofs(seen.rows)
    yield from failed(seen.failures)


def pauses(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Why bulk work waits, where it does."""
    for row in rows:
        if row["paused"]:
            yield f"{row['sync']}: bulk work is paused: {row['paused']}"


def cuts(rows: list[dict[str, Any]]) -> Iterator[str]:
    """How many texts are embedded by their beginning alone."""
    for row in rows:
        if row["texts_truncated"]:
            yield (
                f"{row['sync']}: {row['texts_truncated']:,} texts were longer than the model reads, and cut, "
                "since its worker began; `freshvec plan` tells their share"
            )


def proofs(rows: list[dict[str, Any]]) -> Iterator[str]:
    """When each sync was last proven fresh, and what was found; what keeps it from being kept as declared."""
    for row in rows:
        if row["trouble"]:
            yield f"{row['sync']}: {row['trouble']}"
        if row.get("index_trouble"):
            yield f"{row['sync']}: {row['index_trouble']}"
        if row["proven_at"] is None:
            yield f"{row['sync']}: its table has not been walked to the end yet"
            continue
        vectors = f", {row['proven_vectors']:,} vectors encoded again and found the same"
        yield (
            f"{row['sync']}: every row proven fresh {row['proven_at']:%Y-%m-%d %H:%M} UTC, "
            f"{row['proven_found']:,} found and mended{vectors if row['proven_vectors'] else ''}"
        )


def failed(failures: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Lines about the rows, by sync, whose text could not be encoded."""
    for name, rows in failures.items():
        yield (
            f"{name}: could not encode these; an edit releases a row, `freshvec retry {name}` tries all again"
        )
        for row in rows:
            yield f"  {'/'.join(in_a_line(str(part)) for part in row['key'].values())}: {row['error']}"


def device(row: dict[str, Any]) -> str:
    """The device that encodes, the size of its batches, and its memory where it has its own."""
    parts = [str(row["device"])]
    if row.get("batch_tokens") is not None:
        parts.append(f"batches of {row['batch_tokens']:,} tokens")
    if row.get("device_memory_total_bytes"):
        parts.append(memory(row["device_memory_used_bytes"] / 1e9, row["device_memory_total_bytes"] / 1e9))
    return ", ".join(parts)


def index_of(row: dict[str, Any]) -> str | None:
    """The index of a row of `freshvec.status`; None where there is none and none is missed."""
    if row.get("index_name") is None:
        return None
    about = f"{row['index_name']}, {size(row['index_bytes'])}"
    if row["index_phase"]:
        share = "" if row["index_share"] is None else f", {row['index_share']:.0%}"
        return f"{about}: {row['index_phase']}{share}"
    return about if row["index_valid"] else f"{about}: not finished, of no use"


def _lag(row: dict[str, Any]) -> str:
    return f"{_ms(row['lag_p50_ms'])} / {_ms(row['lag_p99_ms'])}"


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"
