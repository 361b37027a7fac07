"""The command that sets a published model up without torch: fetch."""

from pathlib import Path
from typing import Annotated

import typer

from freshvec.cli.app import ConfigOption, app, new_console, settings_of_models


@app.command(
    epilog="Examples: freshvec fetch all-MiniLM-L6-v2; freshvec fetch all-MiniLM-L6-v2 --from ./MiniLM. "
    "It needs freshvec[fetch], and the Hugging Face hub or a mirror of it (HF_ENDPOINT)."
)
def fetch(
    model: Annotated[str, typer.Argument(help="A name from `freshvec models`.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder with the repository's files; default: the hub.")
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(help="Where to install it; default: daemon.models_dir.")
    ] = None,
    config_path: ConfigOption = None,
) -> None:
    """Set a model up without torch: the ONNX file that is published, checked by sha256 and by its vectors."""
    from freshvec.cli.export_view import ExportView
    from freshvec.encoding.loading import Models
    from freshvec.export.fetch import fetch as fetch_model

    models = Models(settings_of_models(models_dir, config_path))
    with ExportView(new_console(), model) as view:
        made = fetch_model(models.card(model), models.folder, source, models.catalogue_dirs, view.step)
    view.report(made)
