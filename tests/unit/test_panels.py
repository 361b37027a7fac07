"""How the commands are shown by `freshvec --help`."""

from typing import Any

import typer

from freshvec.cli.app import app
from freshvec.cli.main import main
from freshvec.cli.panels import PANELS


def test_every_command_has_its_panel_and_its_place() -> None:
    assert callable(main)  # whose module knows all commands
    commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    assert list(commands) == [name for names in PANELS.values() for name in names]
    panels = {name: command.rich_help_panel for name, command in commands.items()}
    assert all(name in PANELS[panel] for name, panel in panels.items())
