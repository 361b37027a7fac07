"""Editions: what of a declared sync is to be run, one set of vectors, or two while it is swapped; and what
the file should say where it differs."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from freshvec.config import Sync
from freshvec.db import Connection, queries, translated
from freshvec.errors import SchemaError
from freshvec.source.edition import Edition

_SQL = queries("schema/editions")
_OF_VECTORS = {"type", "dimensions"}  # of a target; the rest says where it is
_OPERATION = {"name", "table", "queue_bytes", "index"}  # what of a sync says nothing of its vectors


@dataclass(frozen=True)
class Editions:
    """What is run of a sync: what its view shows, and the other edition, if there is one.

    `declared` is the file's. `note` says how the file and the database differ; `is_refused` where the file
    wants vectors that cannot be compared with those there are, which only a swap or a replacement makes.
    `leaving` are kept no more. `number` is that of what is shown, `highest` the highest that was given.
    """

    declared: Sync
    shown: Sync
    other: Sync | None = None
    note: str = ""
    is_refused: bool = False
    leaving: tuple[str, ...] = ()
    number: int = 1
    highest: int = 1

    @property
    def run(self) -> tuple[Sync, ...]:
        return (self.shown,) if self.other is None else (self.shown, self.other)

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def hidden(self) -> tuple[str, ...]:
        """The names of those that are there and not shown."""
        return (*self.leaving, *([self.other.name] if self.other else []))

    @property
    def beside(self) -> str:
        """What stands beside what is shown, in words; nothing where that is alone."""
        if self.other is None:
            return ""
        what = "is kept fresh" if self.is_newer_shown else "is not shown"
        return f"{self.shown.name} is shown, {self.other.name} {what}; see `freshvec swap {self.name}`"

    @property
    def is_newer_shown(self) -> bool:
        """Whether the newer of two is shown, which is so after a commit; with one alone, True."""
        return self.other is None or self.number == self.highest

    @property
    def replaced(self) -> "Editions":
        """The same with what is shown as the file has it, where it was refused."""
        if not self.is_refused:
            return self
        first, wants = self.shown.name == self.name, meaning(self.declared)
        target = None if first else self.shown.target.table
        return replace(self, shown=of(self.declared, self.shown.name, wants, target))


@dataclass(frozen=True)
class _Row:
    """A row of freshvec.edition."""

    sync: str
    name: str
    number: int
    declared: dict[str, Any]
    target: str | None
    file: dict[str, Any]
    is_shown: bool
    is_leaving: bool


def meaning(sync: Sync) -> dict[str, Any]:
    """What of a declaration decides about its vectors: model, text, and their type."""
    found = sync.model_dump(mode="json", exclude=_OPERATION)
    target = sync.target.model_dump(mode="json", include=_OF_VECTORS, exclude_none=True)
    return found | {"target": target}


def of(sync: Sync, name: str, declared: dict[str, Any], target: str | None) -> Sync:
    """A sync as one of its editions is run: all else is as the file says."""
    kept = sync.model_dump(mode="json", include=_OPERATION)
    place = {"table": target} if target else sync.target.model_dump(mode="json", exclude=_OF_VECTORS)
    made = Sync.model_validate(kept | declared | {"target": place | declared["target"]})
    return made.model_copy(update={"name": name})


def find(connection: Connection, declared: Sync) -> Editions:
    """The editions of one sync."""
    return find_all(connection, [declared])[0]


def find_all(connection: Connection, declared: Sequence[Sync]) -> list[Editions]:
    """The editions of each of these syncs. Raises DatabaseError."""
    names = [sync.name for sync in declared]
    with translated("look at", "the editions of the syncs"):
        (is_made,) = connection.execute(_SQL["is_made"]).fetchone() or (False,)
        if not is_made:
            return [Editions(sync, sync) for sync in declared]
        rows = [_Row(*row) for row in connection.execute(_SQL["known"], {"names": names}).fetchall()]
        applied: dict[str, str] = dict(connection.execute(_SQL["applied"], {"names": names}).fetchall())
    found = []
    for sync in declared:
        own = [_whole(sync, row) for row in rows if row.sync == sync.name]
        if own:
            found.append(_resolved(sync, own))
        else:
            found.append(_never_swapped(sync, json.loads(applied.get(sync.name) or "{}")))
    return found


def run(connection: Connection, declared: Sequence[Sync]) -> tuple[Sync, ...]:
    """All that is run of these syncs."""
    return tuple(each for found in find_all(connection, declared) for each in found.run)


def to_apply(
    connection: Connection,
    declared: Sequence[Sync],
    *,
    is_replaced: bool = False,
    look: Callable[[Sync], object] = lambda sync: None,
) -> tuple[Sync, ...]:
    """All that is to be applied of these syncs; `is_replaced`: with vectors made anew in their place where
    the file wants others. `look` raises where that cannot be, as where they would not fit the table: a worker
    would give up the old ones for it.

    Raises SchemaError where the file wants others and nobody said so.
    """
    found = find_all(connection, declared)
    for each in found:
        if each.is_refused and not is_replaced:
            raise SchemaError("apply", f"sync {each.name!r}", each.note)
        if each.is_refused:
            look(each.replaced.shown)
    for each in found:
        if each.is_refused:
            note = {"name": each.shown.name, "declared": json.dumps(meaning(each.declared))}
            with translated("replace", f"the vectors of sync {each.name!r}"):
                connection.execute(_SQL["replace"], note)
    return tuple(sync for each in found for sync in (each.replaced if is_replaced else each).run)


def edition_of(connection: Connection, name: str) -> Edition | None:
    """Of which sync that of this name is an edition; None where it was never swapped."""
    row = connection.execute(_SQL["edition"], {"name": name}).fetchone()
    return None if row is None else Edition(row[0], (row[1], row[2]), row[3])


def names_of(connection: Connection, name: str) -> list[str]:
    """What the editions of a sync are called, the one that is shown last."""
    with translated("look at", f"the editions of sync {name!r}"):
        (is_made,) = connection.execute(_SQL["is_made"]).fetchone() or (False,)
        rows = connection.execute(_SQL["known"], {"names": [name]}).fetchall() if is_made else []
    found = sorted((_Row(*row) for row in rows), key=lambda row: row.is_shown)
    return [row.name for row in found] or [name]


def _never_swapped(sync: Sync, definition: dict[str, Any]) -> Editions:
    """A sync with one edition. What is applied goes on where the file wants vectors that cannot be compared
    with those there are: walking over these would take them from every search until the walk has come by."""
    model = str(definition.get("model", "")).partition(" ")[0]
    if not model or "declared" not in definition:
        return Editions(sync, sync)
    declared = meaning(sync) | definition["declared"] | {"model": model}
    schema, table, kind, *_ = definition["target"]
    matched = re.search(r'"(\w+)"\(\d+\)$', kind)
    target = {"type": matched[1] if matched else kind, **definition["declared"].get("target", {})}
    declared["target"] = {name: value for name, value in target.items() if value is not None}
    has_same_target = sync.target_name in ((schema, table), (None, table))
    if _kind(declared) == _kind(meaning(sync)) or (model == sync.model and not has_same_target):
        return Editions(sync, sync)
    name = None if has_same_target else table_text(schema, table)
    note = _asks(sync, meaning(sync), declared)
    return Editions(sync, of(sync, sync.name, declared, name), note=note, is_refused=True)


def _whole(sync: Sync, row: _Row) -> _Row:
    """With settings that this version has and the one that wrote the row had not."""
    declared, file = (meaning(of(sync, row.name, each, row.target)) for each in (row.declared, row.file))
    return replace(row, declared=declared, file=file)


def _resolved(sync: Sync, rows: list[_Row]) -> Editions:
    """A sync that is, or was, swapped: what is shown, and what stands beside it."""
    (shown,) = [row for row in rows if row.is_shown]
    others = [row for row in rows if not row.is_shown and not row.is_leaving]
    other = others[0] if others else None
    wants, note, is_refused = meaning(sync), "", False
    declared = shown.declared
    if wants != shown.declared and (wants == shown.file or (other and wants == other.declared)):
        note = _reminds(wants, shown, other)
    elif _kind(wants) != _kind(declared):
        note, is_refused = _asks(sync, wants, declared), True
    else:
        declared = wants
    return Editions(
        sync,
        of(sync, shown.name, declared, shown.target),
        of(sync, other.name, other.declared, other.target) if other else None,
        note,
        is_refused,
        tuple(row.name for row in rows if row.is_leaving and not row.is_shown),
        shown.number,
        max(row.number for row in rows),
    )


def _kind(declared: dict[str, Any]) -> tuple[object, ...]:
    """What decides whether vectors lie alike and can be compared."""
    return declared["model"], declared["target"], declared.get("chunk") is None


def _asks(sync: Sync, wants: dict[str, Any], has: dict[str, Any]) -> str:
    """What to do where the file wants vectors that cannot be compared with those there are."""
    beside = "fills a second set beside them, which searches do not notice"
    if wants["model"] == has["model"]:
        wanted, there = _said(wants), _said(has)
        said = f"the file wants vectors of type {wanted}, and they are {there}"
        return f"{said}: `freshvec swap {sync.name} --from-file` {beside}"
    return (
        f"the file names model {wants['model']}, and its vectors are of {has['model']}: "
        f"`freshvec swap {sync.name} --model {wants['model']}` {beside}; "
        f"`freshvec apply {sync.name} --replace` makes all anew in their place, if they have as many numbers"
    )


def _said(declared: dict[str, Any]) -> str:
    """The kind of its vectors, in words."""
    target = declared["target"]
    cut = f" of {target['dimensions']} dimensions" if "dimensions" in target else ""
    return f"{target['type']}{cut}{' of passages' if declared.get('chunk') is not None else ''}"


def _reminds(wants: dict[str, Any], shown: _Row, other: _Row | None) -> str:
    """What to write into the file. While another edition is filled, nothing has to be written yet."""
    if other is not None and other.number > shown.number:
        return ""
    lines = [_line(key, value) for key, value in shown.declared.items() if wants.get(key) != value]
    return f"write {', '.join(lines)} into the file, since that is what is shown now"


def _line(key: str, value: Any) -> str:
    """A setting as the file has it."""
    if isinstance(value, dict):
        parts = ", ".join(f"{name} = {json.dumps(each)}" for name, each in value.items())
        return f"{key} = {{ {parts} }}"
    return f"no {key}" if value is None else f"{key} = {json.dumps(value, ensure_ascii=False)}"


def table_text(schema: str | None, table: str) -> str:
    """A table's name as the file has it."""
    parts = [part for part in (schema, table) if part is not None]
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
