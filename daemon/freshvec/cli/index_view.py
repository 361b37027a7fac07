"""What is shown of a sync's index: in a plan, and after `apply`."""

from collections.abc import Iterator

from freshvec.source.bound import BoundSync
from freshvec.target import index


def lines(bound: BoundSync, seen: index.Seen | None) -> Iterator[str]:
    """How the index stands that is declared, and what is done about those that are not; `seen` is None of a
    sync that was never applied."""
    declared, name = bound.sync.index, index.name_of(bound)
    step = None if seen is None else index.next_step(bound, seen)
    is_there = seen is not None and any(each.name == name for each in seen.found)
    theirs = None if seen is None else index.theirs(bound, seen)
    if seen is not None and seen.builder is not None:
        yield f"index {seen.building or 'work'} is under way in backend {seen.builder}"
    elif step is not None:
        yield f"index {step.name}: to {step.verb}, since {step.reason}"
    elif declared is not None and is_there:
        yield f"index {name} ({declared.type}): as declared"
    elif declared is not None and theirs is not None:
        yield f"index {theirs}, which freshvec did not make, serves as the declared one and is left alone"
    elif declared is not None:
        yield f"index {name} ({declared.type}): built once every row has its vector"
