"""The command that makes a service of the program: install-units."""

import os
from pathlib import Path
from typing import Annotated

import typer

from freshvec import config, units
from freshvec.cli.app import app, say
from freshvec.errors import FreshvecError
from freshvec.models import catalogue, places

_SYSTEM = Path("/etc/systemd/system")


@app.command(
    "install-units",
    epilog="Examples: freshvec install-units; freshvec install-units --gpu --endpoint; "
    "freshvec install-units --print. It writes freshvec.service, freshvec@.service for workers that share "
    "its tables, freshvec-folder@.service for several configurations, and freshvec-backfill.service, and "
    "starts nothing.",
)
def install_units(
    to: Annotated[Path, typer.Option(help="The folder to write to.")] = _SYSTEM,
    gpu: Annotated[bool, typer.Option("--gpu", help="Let the units use NVIDIA GPUs.")] = False,
    endpoint: Annotated[
        bool, typer.Option("--endpoint", help="Answer embeddings requests at 127.0.0.1:8377.")
    ] = False,
    printed: Annotated[bool, typer.Option("--print", help="Print the files; write nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that say something else.")] = False,
) -> None:
    """Write the units of systemd for this program, wherever it is installed; say which commands come next."""
    texts = units.files(units.installation(), gpu=gpu, endpoint=endpoint)
    if printed:
        say("\n".join(f"# {to / name}\n{text}" for name, text in texts.items()).removesuffix("\n"))
        return
    if dry_run:
        for name in texts:
            say(f"{'would replace' if os.access(to / name, os.F_OK) else 'would write'} {to / name}")
        return
    written = units.write(to, texts, force=force)
    for path in written:
        say(f"wrote {path}")
    if not written:
        say(f"the units in {to} are up to date")
    say("Next, as root:")
    for command in _next():
        say(f"  {command}")


def _next() -> list[str]:
    """The commands that are lacking until the service runs."""
    commands = []
    file = Path(config.SEARCHED[-1])
    if not os.access(file, os.F_OK):
        commands.append(f"freshvec init --output {file}")
    commands += _missing(file)
    return [*commands, "systemctl daemon-reload", "systemctl enable --now freshvec"]


def _missing(file: Path) -> list[str]:
    """How to get the models that the service's file names, and the service would not find."""
    try:
        settings = config.load(file)
    except FreshvecError:
        return []  # the service will say it
    folder = settings.daemon.models_dir or places.MACHINE
    known = catalogue.load(places.card_folders(folder, settings.daemon.catalogue_dirs))
    lacking = {sync.model for sync in settings.sync if not os.access(folder / sync.model, os.F_OK)}
    return [known[name].command for name in sorted(lacking & known.keys())]
