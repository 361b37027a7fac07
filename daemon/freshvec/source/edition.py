"""Editions: sets of vectors of one sync, of which its view shows one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Edition:
    """Of which sync a set of vectors is an edition, the view of that sync, and whether it shows this one."""

    sync: str
    view: tuple[str, str]
    is_shown: bool


def view_of(target: tuple[str, str]) -> tuple[str, str]:
    """The name of a target's view."""
    schema, table = target
    return schema, table.removesuffix("_embedding") + "_embedded"
