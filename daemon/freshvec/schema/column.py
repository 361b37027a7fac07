"""The column of the source that vectors are to be written to, as part of a plan."""

from freshvec.capture.triggers import Change
from freshvec.source.bound import BoundSync
from freshvec.target import source_column


def changes(bound: BoundSync, *, is_applied: bool = False) -> tuple[Change, ...]:
    """What makes it, where it is not there.

    Raises SchemaError where it was there when the sync was applied.
    """
    if not bound.lacks_column:
        return ()
    if is_applied:
        raise source_column.is_gone(bound)
    made = source_column.making(bound)
    return (Change(bound.source_oid, bound.source_name, "ACCESS EXCLUSIVE", True, (made,)),)
