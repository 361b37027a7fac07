"""What is shown of a swap: each set of vectors, what comes next, and what searches find in old and new."""

from collections.abc import Iterator, Sequence

from freshvec.cli.amounts import percent
from freshvec.config import Sync
from freshvec.health.swapping import Standing
from freshvec.schema.editions import Editions
from freshvec.target.recall import Recall


def lines(found: Editions, seen: Sequence[Standing]) -> Iterator[str]:
    """How each edition stands, and the commands that come next."""
    for each in seen:
        yield f"{each.sync.name}: {', '.join(_parts(each))}"
    for name in found.leaving:
        yield f"{name}: is to be taken away; a worker does it, or `freshvec swap {found.name} --abandon`"
    if found.note:
        yield f"{found.name}: {found.note}"
    if found.other is None:
        yield f"No swap is under way; `freshvec swap {found.name} --model …` begins one."
    elif found.is_newer_shown:
        yield f"`freshvec swap {found.name} --rollback` shows the old one again, --finish takes it away."
    else:
        yield f"`freshvec swap {found.name} --commit` shows the new one, --abandon takes it away."


def report(old: Sync, new: Sync, found: Recall) -> Iterator[str]:
    """What searches find in the old vectors and in the new ones."""
    yield f"Of {found.queries} searches, the ten nearest rows each, by looking at all vectors:"
    yield f"  {percent(found.overlap)} of what {old.name} finds is found by {new.name}, too"
    for name, share in ((old.name, found.old), (new.name, found.new)):
        if share is not None:
            yield f"  through the index of {name} a search finds {percent(share)} of what is nearest"


def _parts(each: Standing) -> Iterator[str]:
    yield f"model {each.sync.model}, {each.sync.target.type}"
    yield "shown" if each.is_shown else "not shown"
    if each.kept_until is not None:
        yield f"kept fresh until {each.kept_until:%Y-%m-%d %H:%M} UTC"
    if each.row is None:
        yield "nothing was made of it yet"
        return
    yield f"{percent(each.row['coverage'])} of {each.row['rows_total'] or 0:,} rows are fresh"
    if each.row["owner_pid"] is None:
        yield "no worker runs"
    if each.row["eta_seconds"]:
        yield f"about {each.row['eta_seconds']:.0f} s to go"
    if each.row["index_phase"]:
        yield "its index is being built"
    if each.row["trouble"]:
        yield str(each.row["trouble"])
