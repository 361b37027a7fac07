"""What a plan shows: how each sync differs from what is applied, what is made, what that costs and locks."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from freshvec.cli import cost_view, index_view
from freshvec.schema import difference
from freshvec.schema.cost import Cost
from freshvec.schema.plan import Plan
from freshvec.source.locks import Holder
from freshvec.target.index import Seen

_WIDTH = 78
_MADE = re.compile(r"^CREATE (?:OR REPLACE )?(TABLE|VIEW|FUNCTION|TRIGGER|POLICY)\b", re.MULTILINE)


def lines(
    planned: Plan, cost: Cost | str | None, holders: Sequence[Holder] = (), seen: Seen | None = None
) -> Iterator[str]:
    """A sync's part; `cost` is a text where it could not be told, None where nothing is encoded. `holders`
    are in the way of its locks now; `seen` are the indexes that there are."""
    yield f"{planned.bound.name}: {difference.summary(planned)}"
    for change in difference.changes(planned):
        yield from wrapped(f"{change.part:<9}  {change.was}  →  {change.now}")
    for reason in difference.reasons(planned):
        yield from wrapped(reason)
    if planned.lacking or planned.access:
        yield from wrapped(f"makes      {_made(planned)}")
        yield from wrapped(f"locks      {locks(planned)}")
    column = planned.bound.sync.target.column
    if column is not None and planned.applied is None and not planned.column:
        yield from wrapped(f"overwrites the vectors that are in column {column}")
    for holder in holders:
        yield from wrapped(f"in the way {_held(holder)}")
    for line in index_view.lines(planned.bound, seen):
        yield from wrapped(line.replace("index ", "index      ", 1))
    if isinstance(cost, str):
        yield from wrapped(f"cost       unknown: {cost}")
    elif cost is not None:
        if planned.applied is not None:
            yield from wrapped(f"again      {cost.again:,} of {cost.texts:,} rows will be encoded again")
        yield from (f"  {line}" for line in cost_view.lines(cost))


def locks(planned: Plan) -> str:
    """Which locks on the application's tables are taken, and for how long."""
    bound = planned.bound
    source = ".".join(bound.source_name)
    if not (planned.column or planned.triggers or planned.strays):
        return f"none on {source}"
    others = len(bound.relations) - 1
    below = f" and {others} tables below it" if others else ""
    if planned.column:
        return (
            f"ACCESS EXCLUSIVE on {source}{below}, for some milliseconds, to add the column: readers and "
            "writers wait that long; where somebody is in the way, short attempts with pauses"
        )
    return (
        f"SHARE ROW EXCLUSIVE on {source}{below}, for some milliseconds: writers wait that long, readers do "
        "not; where somebody is in the way, short attempts with pauses"
    )


def as_json(
    planned: Plan, cost: Cost | str | None, holders: Sequence[Holder] = (), seen: Seen | None = None
) -> dict[str, Any]:
    """A sync's part of the JSON document."""
    changes = [change.__dict__ for change in difference.changes(planned)]
    return {
        "sync": planned.bound.name,
        "state": difference.summary(planned),
        "is_applied": planned.is_applied and not planned.access,
        "changes": changes,
        "reasons": difference.reasons(planned),
        "statements": [*planned.lacking, *planned.access],
        "locks": locks(planned),
        "index": list(index_view.lines(planned.bound, seen)),
        "in_the_way": [_held(holder) for holder in holders],
        "cost": cost.json() if isinstance(cost, Cost) else None,
        "cost_unknown": cost if isinstance(cost, str) else None,
    }


def _held(holder: Holder) -> str:
    return f"{holder}, on {'.'.join(holder.table)}"


def _made(planned: Plan) -> str:
    """What kinds of objects are made anew, and how many."""
    counts = Counter(kind.lower() for text in planned.lacking for kind in _MADE.findall(text))
    parts = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items()]
    parts += [f"column {planned.bound.sync.target.column}"] if planned.column else []
    parts += ["grants"] if planned.access else []
    others = f"{len(planned.lacking)} statements"
    return f"{', '.join(parts) or others}; `freshvec plan --sql` prints them"


def wrapped(text: str) -> list[str]:
    """A line of a part of the plan, its label first, folded."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent=" " * 13,
        break_long_words=False,
        break_on_hyphens=False,
    )
