"""The command that writes the card of a model which is not in the catalogue: describe."""

from pathlib import Path
from typing import Annotated

import typer

from freshvec.cli.app import ConfigOption, app, new_console, say, settings_of_models


@app.command(
    epilog="Examples: freshvec describe ./our-model; freshvec describe intfloat/e5-small --no-export; "
    "freshvec describe ./our-model --name ours --pooling mean --query-prefix 'query: '"
)
def describe(
    source: Annotated[str, typer.Argument(help="A folder with the model's files, or OWNER/NAME on the hub.")],
    name: Annotated[str | None, typer.Option(help="What to call it; default: as its source is.")] = None,
    pooling: Annotated[str | None, typer.Option(help="mean or cls, where its files do not say it.")] = None,
    query_prefix: Annotated[str | None, typer.Option(help="Before each search; default: its own.")] = None,
    document_prefix: Annotated[str | None, typer.Option(help="Before each text; default: its own.")] = None,
    export: Annotated[bool, typer.Option(help="Export it as well, and hold it against torch.")] = True,
    models_dir: Annotated[
        Path | None, typer.Option(help="Where card and export go; default: daemon.models_dir.")
    ] = None,
    config_path: ConfigOption = None,
) -> None:
    """Write the card of a model of your own, from its files, and export it: then a sync may name it."""
    from freshvec.cli.export_view import ExportView
    from freshvec.encoding.loading import Models
    from freshvec.export import describe as describing
    from freshvec.export.export import export as export_model

    models = Models(settings_of_models(models_dir, config_path))
    options = {"pooling": pooling, "query_prefix": query_prefix, "document_prefix": document_prefix}
    given = {key: value for key, value in options.items() if value is not None}
    described = describing.described(source, name, given)
    path = models.folder / f"{described.card.name}.toml"
    describing.keep(described.card, path)
    say(f"{path}:\n\n{describing.written(described.card)}")
    if export:
        with ExportView(new_console(), described.card.name) as view:
            made = export_model(described.card, models.folder, described.folder, report=view.step)
        view.report(made)
