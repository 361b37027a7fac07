"""How the commands are shown by `freshvec --help`."""

import typer

from freshvec.cli.app import app
from freshvec.cli.main import main
from freshvec.cli.panels import PANELS


def test_every_command_has_its_panel_and_its_place() -> None:
    assert callable(main)  # whose module knows all commands
    group = typer.main.get_command(app)
    shown = list(group.commands)  # type: ignore[attr-defined]
    assert shown == [name for names in PANELS.values() for name in names]
    panels = {name: command.rich_help_panel for name, command in group.commands.items()}  # type: ignore[attr-defined]
    assert all(name in PANELS[panel] for name, panel in panels.items())
