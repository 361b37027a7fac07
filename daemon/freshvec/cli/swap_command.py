"""The command that makes another set of a sync's vectors, and lets its view show it: swap."""

from typing import TYPE_CHECKING, Any

import typer

from freshvec.cli import swap_options as options
from freshvec.cli.app import ConfigOption, agreed, app, load_settings
from freshvec.errors import UsageError

if TYPE_CHECKING:
    from freshvec.cli.swapping import Swap

_DAY = 86_400.0


@app.command(
    epilog="Examples: freshvec swap articles --model bge-base-en-v1.5; freshvec swap articles; "
    "freshvec swap articles --commit; freshvec swap articles --rollback"
)
def swap(
    sync: options.Sync,
    model: options.Model = None,
    columns: options.Columns = None,
    expression: options.Expression = None,
    where: options.Where = None,
    kind: options.Type = None,
    from_file: options.FromFile = False,
    table: options.Table = None,
    commit: options.Commit = False,
    rollback: options.Rollback = False,
    finish: options.Finish = False,
    abandon: options.Abandon = False,
    keep: options.Keep = 7.0,
    queries: options.Queries = None,
    sample: options.Sample = 100,
    force: options.Force = False,
    yes: options.Yes = False,
    wait: options.Wait = 60.0,
    config_path: ConfigOption = None,
) -> None:
    """Fill vectors of another model beside the old ones, then let the view show them.

    Without an option: how the swap stands, and what searches find in old and new.
    """
    from freshvec.cli.swapping import Swap

    changes = _changes(columns, model=model, expression=expression, where=where, type=kind)
    steps = [commit, rollback, finish, abandon, bool(changes or table or from_file)]
    if sum(steps) > 1:
        raise UsageError("only one of --commit, --rollback, --finish, --abandon and what begins a swap")
    if from_file and changes:
        raise UsageError("--from-file goes without what is to be otherwise than in the file")
    with Swap.opened(load_settings(config_path), sync, wait) as swapping:
        if changes or table or from_file:
            swapping.begin(changes, table, lambda: yes or agreed("Begin?"))
        elif commit:
            swapping.commit(keep * _DAY, is_forced=force)
        elif rollback:
            swapping.roll_back(is_forced=force)
        elif finish or abandon:
            _end(swapping, yes=yes, is_new=abandon)
        else:
            swapping.show(queries, sample)


def _changes(columns: str | None, **others: str | None) -> dict[str, Any]:
    """What is to be otherwise than it is, of what was given."""
    named = None if columns is None else [each.strip() for each in columns.split(",")]
    given: dict[str, Any] = {"columns": named, **others}
    return {name: value for name, value in given.items() if value is not None}


def _end(swapping: "Swap", *, yes: bool, is_new: bool) -> None:
    which = "new" if is_new else "old"
    name = swapping.leaving(is_new=is_new)
    if not yes and not agreed(f"Drop the {which} vectors of {swapping.name}, {name}?"):
        raise typer.Exit(1)
    swapping.take_away(name)
