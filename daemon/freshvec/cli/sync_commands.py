"""Commands that make a sync's objects in the database, and remove them: plan, apply, remove."""

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from freshvec.cli import numbers
from freshvec.cli.app import ConfigOption, JsonOption, SyncArgument, agreed, app, load_settings, say
from freshvec.errors import UsageError

if TYPE_CHECKING:
    from freshvec.cli.adopting import Found
    from freshvec.config import Settings, Sync
    from freshvec.db import Connection
    from freshvec.encoding.loading import Models
    from freshvec.schema.cost import Cost
    from freshvec.schema.plan import Plan
    from freshvec.source.bound import BoundSync
    from freshvec.source.locks import Holder
    from freshvec.target.index import Seen

_PATIENCE_SECONDS = 10.0  # with whoever is altering a table that is only looked at
SqlOption = Annotated[
    bool, typer.Option("--sql", help="Print SQL alone, which psql runs in place of `freshvec apply`.")
]
MeasureOption = Annotated[
    bool, typer.Option(help="Load the model for a second, to tell how long encoding takes here.")
]
ReplaceOption = Annotated[
    bool,
    typer.Option(
        "--replace",
        help="Where the file names another model: make all vectors anew in their place. Searches do not "
        "find a row until it has its new one; `freshvec swap` spares them that.",
    ),
]
AdoptOption = Annotated[
    str | None,
    typer.Option(
        help="Where its vectors are already: schema.table.column, a table or view with its key, or auto."
    ),
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Adopt them also where up to 5% of a sample are of another text.")
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        parser=numbers.seconds,
        metavar="SECONDS",
        help="Seconds to try, while somebody holds a lock that is needed.",
    ),
]


@app.command(
    epilog="Examples: freshvec plan; freshvec plan articles --sql | psql -1 -v ON_ERROR_STOP=1 shop; "
    "freshvec plan --json"
)
def plan(
    sync: SyncArgument = None,
    as_sql: SqlOption = False,
    as_json: JsonOption = False,
    measure: MeasureOption = True,
    adopt: AdoptOption = None,
    trust: TrustOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Show what `apply` and the backfill would do: what differs, how many rows are encoded, what it costs.

    Changes nothing.
    """
    from freshvec.db import connect
    from freshvec.encoding.loading import Models
    from freshvec.schema import migrations, script
    from freshvec.schema.changes import in_the_way
    from freshvec.schema.editions import find_all
    from freshvec.schema.plan import plan as plan_sync
    from freshvec.source.locks import patiently
    from freshvec.target import index

    settings = load_settings(config_path)
    models, role = Models(settings), settings.database.worker_role
    syncs = _adopting(settings, sync, adopt, trust=trust)
    with connect(settings.database.url, "plan") as connection:
        pending = migrations.pending(connection)
        plans = []
        kept = find_all(connection, syncs)
        for each in (each for one in kept for each in one.run):
            planning = partial(plan_sync, connection, each, models.describe(each), role)
            plans.append(patiently(connection, planning, _PATIENCE_SECONDS))
        if as_sql:
            typer.echo(script.of_plans(connection, pending, plans))  # exactly: names are in it
            return
        costs = _costs(connection, models, plans, measure=measure)
        indexes = [index.look(connection, one.bound) if one.applied else None for one in plans]
        ways = [in_the_way(connection, one) for one in plans]
        found = None if adopt is None else _looked_at(connection, models, plans[0].bound, adopt)
        costs = costs if found is None else [found.cost(costs[0], trust=trust)]
        planned = list(zip(plans, costs, ways, indexes, strict=True))
    notes = {each.name: each.note for each in kept if each.note}
    _show([path.name for path in pending], planned, found, notes, as_json=as_json, trust=trust)


def _adopting(
    settings: "Settings", name: str | None, adopt: str | None, *, trust: bool
) -> "tuple[Sync, ...]":
    """The syncs that are meant. Raises UsageError where vectors are to be adopted for several."""
    syncs = settings.find(name)
    if adopt is not None and len(syncs) > 1:
        raise UsageError("--adopt goes with one sync: name it")
    if adopt is not None and syncs[0].chunk is not None:
        raise UsageError("--adopt takes over vectors of whole texts; adopt them without chunk, then swap")
    if trust and adopt is None:
        raise UsageError("--trust goes with --adopt: say where the vectors are")
    return syncs


def _looked_at(connection: "Connection", models: "Models", bound: "BoundSync", where: str) -> "Found":
    from freshvec.cli import adopting

    return adopting.look(connection, models, bound, where)


def _show(
    pending: list[str],
    planned: "list[tuple[Plan, Cost | str | None, list[Holder], Seen | None]]",
    found: "Found | None",
    notes: dict[str, str],
    *,
    as_json: bool,
    trust: bool,
) -> None:
    from freshvec.cli import plan_view

    if found is not None:
        from freshvec.cli import adopting

    if as_json:
        shown = [plan_view.as_json(*each) for each in planned]
        if found is not None:
            shown[0]["adoption"] = adopting.as_json(found, trust=trust)
        say(json.dumps({"migrations": pending, "syncs": shown, "notes": notes}, indent=2))
        return
    if pending:
        say(f"schema freshvec: {len(pending)} migrations to apply\n")
    for each in planned:
        say("\n".join(plan_view.lines(*each)) + "\n")
    if found is not None:
        say("\n".join(adopting.lines(found, trust=trust)) + "\n")
    for name, note in notes.items():
        say(f"{name}: {note}\n")
    if any(not one.is_applied or one.access for one, *_ in planned):
        say("Nothing was changed. `freshvec apply` makes it, `freshvec run` also fills it.")


def _costs(
    connection: "Connection", models: "Models", plans: "list[Plan]", *, measure: bool
) -> "list[Cost | str | None]":
    """What each plan costs, why that is unknown, or None where nothing is to be encoded."""
    from freshvec.encoding.rate import Rates
    from freshvec.schema import cost

    rates = Rates(models, is_tried=measure)
    found: list[Cost | str | None] = []
    for planned in plans:
        is_walked = planned.applied is None or planned.is_redefined or planned.difference.is_binding
        found.append(cost.of_plan(connection, planned, rates) if is_walked else None)
    return found


@app.command(
    epilog="Examples: freshvec apply; freshvec apply articles --adopt public.articles.embedding; "
    "freshvec apply articles --adopt auto"
)
def apply(
    sync: SyncArgument = None,
    replace: ReplaceOption = False,
    wait: WaitOption = 60.0,
    adopt: AdoptOption = None,
    trust: TrustOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Make the declared syncs' queue, triggers, target and view. Running it again changes nothing.

    With --adopt, vectors that are there already are taken over, where a sample shows that they are of this
    model and text.
    """
    from freshvec.db import connect
    from freshvec.encoding.loading import Models
    from freshvec.schema import editions, migrations
    from freshvec.schema.apply import apply as apply_sync
    from freshvec.schema.plan import plan as plan_sync

    settings = load_settings(config_path)
    models, syncs = Models(settings), _adopting(settings, sync, adopt, trust=trust)
    with connect(settings.database.url, "apply") as connection:
        if adopt is not None:
            from freshvec.cli.adopting import apply_adopting

            given = (settings, models, connection, syncs[0], adopt)
            bound = apply_adopting(*given, trust=trust, patience=wait)
            _bring_index_about(settings, connection, bound)
            return
        for name in migrations.migrate(connection):
            say(f"migrated: {name}")
        role = settings.database.worker_role
        for each in editions.to_apply(
            connection,
            syncs,
            is_replaced=replace,
            look=lambda made_anew: plan_sync(connection, made_anew, models.describe(made_anew), role),
        ):
            bound, changed = apply_sync(connection, each, models.describe(each), role, wait)
            state = "applied" if changed else "nothing to do"
            column = each.target.column
            where = f"column {column} of {each.table}" if column else ".".join(bound.target_name)
            say(f"{each.name}: {state} (target {where})")
            _bring_index_about(settings, connection, bound)


def _bring_index_about(settings: "Settings", connection: "Connection", bound: "BoundSync") -> None:
    """Build or drop the index, where that is to be done and nobody is at it; else say why not."""
    from freshvec.cli import index_view
    from freshvec.db import connect
    from freshvec.target import building, index

    seen = index.look(connection, bound)
    if seen is None:
        return
    if seen.builder is None and (step := index.next_step(bound, seen)) is not None:
        say(f"{bound.name}: index {step.name}: to {step.verb}, since {step.reason}")
        with connect(settings.database.url, "index") as session:
            building.bring_about(session, bound)
        building.keep_trouble(connection, bound.name, None)
        seen = index.look(connection, bound)
    for line in index_view.lines(bound, seen):
        say(f"{bound.name}: {line}")


@app.command()
def remove(
    sync: Annotated[str, typer.Argument(help="The sync's name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: WaitOption = 60.0,
    config_path: ConfigOption = None,
) -> None:
    """Remove everything of a sync, its embeddings included; the source table stays as it was.

    Vectors in a column of the source stay there.
    """
    from freshvec.db import connect
    from freshvec.errors import meant
    from freshvec.health.declared import applied_names
    from freshvec.schema.apply import kept_column
    from freshvec.schema.apply import remove as remove_sync
    from freshvec.schema.editions import names_of

    settings = load_settings(config_path)
    if not yes and not agreed(f"Drop the triggers, the queue and all embeddings of sync {sync!r}?"):
        raise typer.Exit(1)
    with connect(settings.database.url, "remove") as connection:
        column = kept_column(connection, sync)
        removed = [remove_sync(connection, each, wait) for each in names_of(connection, sync)]
        other = "" if any(removed) else meant(sync, applied_names(connection))
    if not any(removed):
        raise UsageError(f"{sync}: the database knows no such sync{other}")
    say(f"{sync}: removed")
    if column:
        say(f"{sync}: the table has kept its column of vectors; {column}; takes it away")
