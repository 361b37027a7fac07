"""The indexes on the vectors: there where there are many vectors, and fit for searches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from freshvec.config import Sync
from freshvec.db import queries
from freshvec.doctor.finding import Finding, fault, ok, warning
from freshvec.doctor.place import Place
from freshvec.schema import migrations

_SQL = queries("doctor/indexes")
MANY = 100_000  # vectors: a search that reads all of them takes a tenth of a second and more


@dataclass(frozen=True)
class _Index:
    """An index of a sync, or that it has none: then it has no name."""

    sync: str
    vectors: int
    trouble: str | None
    name: str | None
    bytes: int | None
    is_valid: bool | None
    is_ours: bool | None
    phase: str | None
    share: float | None


def indexes(place: Place) -> Iterator[Finding]:
    """Of each sync that is applied."""
    if migrations.pending(place.connection):
        return
    declared = {sync.name: sync for sync in place.settings.sync}
    rows = [_Index(*row) for row in place.connection.execute(_SQL["all"])]
    for name, found in groupby(rows, key=lambda row: row.sync):
        yield from _of_sync(declared.get(name), list(found))


def _of_sync(sync: Sync | None, found: Sequence[_Index]) -> Iterator[Finding]:
    first = found[0]
    if first.trouble:
        remedy = f"Mend what it says; freshvec apply {first.sync} builds it."
        yield fault("index", f"{first.sync}: {first.trouble}", "searches read every row", remedy)
    for each in found:
        if each.phase is not None:
            share = "" if each.share is None else f", {each.share:.0%}"
            yield ok("index", f"{each.sync}: {each.name} is being built: {each.phase}{share}")
        elif each.is_valid:
            yield ok("index", f"{each.sync}: {each.name} serves, {(each.bytes or 0) / 1e6:,.0f} MB")
        elif each.name is not None and not each.is_ours:
            yield warning(
                "index",
                f"{each.sync}: {each.name} was not finished",
                "it serves no search, and each write pays for it",
                f"DROP INDEX CONCURRENTLY {each.name}; then make it again, or declare index in the file",
            )
    is_missed = first.vectors >= MANY and not any(each.is_valid or each.phase for each in found)
    if is_missed and not first.trouble and (sync is None or sync.index is None):
        is_plain = sync is not None and sync.target.type == "real[]"
        first_of_all = 'target = { type = "halfvec" } and ' if is_plain else ""
        yield warning(
            "index",
            f"{first.sync}: {first.vectors:,} vectors and no index on them",
            "each search reads all of them",
            f'write {first_of_all}index = {{ type = "hnsw" }} into its [[sync]]; all goes on meanwhile',
        )
