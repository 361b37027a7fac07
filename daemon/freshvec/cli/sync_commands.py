"""Commands that make a sync's objects in the database, and remove them: plan, apply, remove."""

from functools import partial
from typing import Annotated

import typer

from freshvec.cli.app import ConfigOption, SyncArgument, app, load_settings

_PATIENCE_SECONDS = 10.0  # with whoever is altering a table that is only looked at
WaitOption = Annotated[
    float, typer.Option("--wait", help="Seconds to try, while somebody holds a lock that is needed.")
]


@app.command()
def plan(sync: SyncArgument = None, config_path: ConfigOption = None) -> None:
    """Print the exact DDL that `apply` would run. Changes nothing."""
    from freshvec.db import connect
    from freshvec.encoding.loading import Models
    from freshvec.schema import migrations
    from freshvec.schema.plan import plan as plan_sync
    from freshvec.source.locks import patiently

    settings = load_settings(config_path)
    models = Models(settings)
    with connect(settings.database.url, "plan") as connection:
        for path in migrations.pending(connection):
            typer.echo(f"-- migration {path.name}\n{path.read_text().rstrip()}\n")
        for declared in settings.find(sync):
            model = models.describe(declared.model)
            planning = partial(plan_sync, connection, declared, model, settings.database.worker_role)
            planned = patiently(connection, planning, _PATIENCE_SECONDS)
            ddl = (*planned.lacking, *planned.access)
            state = (
                "already applied, nothing would change"
                if planned.is_applied and not ddl
                else "not applied yet"
            )
            typer.echo(f"-- sync {declared.name}: {state}")
            typer.echo("\n".join(f"{statement};" for statement in ddl or planned.shape) + "\n")


@app.command()
def apply(sync: SyncArgument = None, wait: WaitOption = 60.0, config_path: ConfigOption = None) -> None:
    """Make the declared syncs' queue, triggers, target and view. Running it again changes nothing."""
    from freshvec.db import connect
    from freshvec.encoding.loading import Models
    from freshvec.schema import migrations
    from freshvec.schema.apply import apply as apply_sync

    settings = load_settings(config_path)
    models = Models(settings)
    with connect(settings.database.url, "apply") as connection:
        for name in migrations.migrate(connection):
            typer.echo(f"migrated: {name}")
        for declared in settings.find(sync):
            model = models.describe(declared.model)
            role = settings.database.worker_role
            bound, changed = apply_sync(connection, declared, model, role, wait)
            state = "applied" if changed else "nothing to do"
            typer.echo(f"{declared.name}: {state} (target {'.'.join(bound.target_name)})")


@app.command()
def remove(
    sync: Annotated[str, typer.Argument(help="The sync's name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: WaitOption = 60.0,
    config_path: ConfigOption = None,
) -> None:
    """Remove everything of a sync, its embeddings included; the source table stays as it was."""
    from freshvec.db import connect
    from freshvec.schema.apply import remove as remove_sync

    settings = load_settings(config_path)
    if not yes and not typer.confirm(f"Drop the triggers, the queue and all embeddings of sync {sync!r}?"):
        raise typer.Exit(1)
    with connect(settings.database.url, "remove") as connection:
        removed = remove_sync(connection, sync, wait)
    typer.echo(f"{sync}: removed" if removed else f"{sync}: the database knows no such sync")
