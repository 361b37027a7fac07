"""The line that `systemctl status` shows of a worker: how fresh each sync is, and what is wrong."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from psycopg.rows import dict_row

from freshvec import logs
from freshvec.db import Connection, queries
from freshvec.worker.keeper import Keeper
from freshvec.worker.sdnotify import is_supervised, show

_SQL = queries("worker/headline")
_LONGEST = 160  # characters of one sync's part
_MOST = 12  # syncs that are shown, those with trouble first
_REST = 120.0  # times as long as a reading took: the server works less than a hundredth of a core for it


class Headline:
    """Read from the database and told to the supervisor, where there is one."""

    def __init__(self) -> None:
        self._due = 0.0

    def tell(
        self, connection: Connection, keepers: Iterable[Keeper], faults: Mapping[str, str], file_fault: str
    ) -> None:
        """`faults` are those of syncs without a keeper; `file_fault` is why the file was not read again."""
        if not is_supervised() or time.monotonic() < self._due:
            return
        began = time.monotonic()
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(_SQL["allow_views"])
            rows = {row["sync"]: row for row in cursor.execute(_SQL["syncs"])}
        now = time.monotonic()
        self._due = now + _REST * (now - began)
        parts = {name: (0, f"{name}: {fault}") for name, fault in faults.items()}
        parts |= {keeper.sync.name: _part(keeper, rows.get(keeper.sync.name, {})) for keeper in keepers}
        show(line(parts, file_fault))


def line(parts: Mapping[str, tuple[int, str]], file_fault: str = "") -> str:
    """One line of all parts, each with its rank: 0 trouble, 1 not fresh yet, 2 fresh."""
    shown = [text for _, text in sorted(parts.values(), key=lambda part: part[0])]
    left = len(shown) - _MOST
    fault = [f"the file is not taken up: {file_fault}"] if file_fault else []
    more = [f"and {left} more"] if left > 0 else []
    said = (*fault, *shown[:_MOST], *more) or ("no sync is declared",)
    return "; ".join(_short(text) for text in said)


def _part(keeper: Keeper, row: Mapping[str, Any]) -> tuple[int, str]:
    """What is said of one sync, and how urgent it is. `row` is empty before it was ever applied."""
    name = keeper.sync.name
    trouble = keeper.trouble or row.get("trouble")
    if keeper.stands_by:
        return 2, f"{name}: another worker owns it"
    if trouble:
        return 0, f"{name}: {trouble}"
    if not row or keeper.pipeline is None:
        return 1, f"{name}: {keeper.phase}"
    is_fresh = row["coverage"] == 1 and not row["backlog"] and row["backfill_done"]
    said = [f"{name} {_percent(row['coverage'], is_whole=is_fresh and not row['rescan_waiting'])}"]
    if row["backlog"]:
        said.append(f"{row['backlog']:,} wait")
    if row["paused"]:
        said.append(f"paused: {row['paused']}")
    if row["lag_p99_ms"] is not None:
        said.append(f"lag {row['lag_p99_ms']:,.0f} ms (p99)")
    return 2 if is_fresh else 1, ", ".join(said)


def _percent(share: float, *, is_whole: bool) -> str:
    """Never 100% before all is fresh."""
    return "100%" if is_whole else f"{min(99.9, math.floor(share * 1000) / 10):.1f}%"


def _short(text: str) -> str:
    words = " ".join(logs.redact(text).split())  # before it is cut, or what is left of a secret is shown
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"
