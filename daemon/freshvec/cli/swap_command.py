"""The command that makes another set of a sync's vectors, and lets its view show it: swap."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freshvec.cli.app import ConfigOption, app, load_settings, sync_names
from freshvec.errors import UsageError

if TYPE_CHECKING:
    from freshvec.cli.swapping import Swap

_DAY = 86_400.0


@app.command(
    epilog="Examples: freshvec swap articles --model bge-base-en-v1.5; freshvec swap articles; "
    "freshvec swap articles --commit; freshvec swap articles --rollback"
)
def swap(
    sync: Annotated[str, typer.Argument(help="The sync's name.", autocompletion=sync_names)],
    model: Annotated[str | None, typer.Option(help="Begin: with this model.")] = None,
    columns: Annotated[str | None, typer.Option(help="Begin: with these columns, as in title,body.")] = None,
    expression: Annotated[str | None, typer.Option(help="Begin: with this text, in SQL.")] = None,
    where: Annotated[str | None, typer.Option(help="Begin: with these rows alone.")] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help="Begin: with vectors of this type, as in halfvec.")
    ] = None,
    from_file: Annotated[
        bool, typer.Option("--from-file", help="Begin: with what the file says by now, as of passages.")
    ] = False,
    table: Annotated[
        str | None, typer.Option(help="Begin: the new table. Default: the old one's name and a number.")
    ] = None,
    commit: Annotated[bool, typer.Option("--commit", help="Let the view show the new vectors.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Let it show the old ones again.")] = False,
    finish: Annotated[bool, typer.Option("--finish", help="Take the old ones away.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Take the new ones away.")] = False,
    keep: Annotated[
        float,
        typer.Option(min=0, metavar="DAYS", help="How long a commit keeps the old ones fresh."),
    ] = 7.0,
    queries: Annotated[
        Path | None, typer.Option(help="Searches to compare old and new by, one a line. Default: rows.")
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="How many rows to compare by; 0 for no report.")] = 100,
    force: Annotated[
        bool, typer.Option("--force", help="Commit though rows failed, or the index is not built.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for what is under way: changes, locks, a worker.")
    ] = 60.0,
    config_path: ConfigOption = None,
) -> None:
    """Fill vectors of another model beside the old ones, then let the view show them.

    Without an option: how the swap stands, and what searches find in old and new.
    """
    from freshvec.cli.swapping import Swap

    changes: dict[str, Any] = {"model": model, "expression": expression, "where": where, "type": kind}
    changes["columns"] = [each.strip() for each in columns.split(",")] if columns is not None else None
    changes = {name: value for name, value in changes.items() if value is not None}
    steps = [commit, rollback, finish, abandon, bool(changes or table or from_file)]
    if sum(steps) > 1:
        raise UsageError("only one of --commit, --rollback, --finish, --abandon and what begins a swap")
    if from_file and changes:
        raise UsageError("--from-file goes without what is to be otherwise than in the file")
    with Swap.opened(load_settings(config_path), sync, wait) as swapping:
        if changes or table or from_file:
            swapping.begin(changes, table, lambda: yes or typer.confirm("Begin?"))
        elif commit:
            swapping.commit(keep * _DAY, is_forced=force)
        elif rollback:
            swapping.roll_back(is_forced=force)
        elif finish or abandon:
            _end(swapping, yes=yes, is_new=abandon)
        else:
            swapping.show(queries, sample)


def _end(swapping: "Swap", *, yes: bool, is_new: bool) -> None:
    which = "new" if is_new else "old"
    name = swapping.leaving(is_new=is_new)
    if not yes and not typer.confirm(f"Drop the {which} vectors of {swapping.name}, {name}?"):
        raise typer.Exit(1)
    swapping.take_away(name)
