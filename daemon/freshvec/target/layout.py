"""The layouts of a target: who writes each. `source/layout.py` says what queries about a row need to know of
it, and `table.py` makes it."""

from freshvec.db import Session
from freshvec.source.bound import BoundSync
from freshvec.target.passages import PassageWriter
from freshvec.target.source_column import ColumnWriter
from freshvec.target.upsert import TargetWriter


def writer(connection: Session, bound: BoundSync) -> TargetWriter:
    """What writes the sync's rows, as its vectors lie."""
    if bound.sync.chunk is not None:
        return PassageWriter(connection, bound)
    return (TargetWriter if bound.sync.target.column is None else ColumnWriter)(connection, bound)
