"""How `freshvec --help` arranges the commands: what a user wants to do, and in which order."""

import typer

PANELS = {
    "Begin": ("demo", "init", "doctor", "install-units"),
    "Keep tables fresh": ("run", "backfill", "plan", "apply", "swap", "remove"),
    "Look and search": ("status", "wait", "search", "verify", "retry"),
    "Models": ("models", "fetch", "export", "describe", "bench", "serve"),
}
_ORDER = [name for names in PANELS.values() for name in names]


def arrange(app: typer.Typer) -> None:
    """Put every command of the app into its panel. Raises ValueError for one that has none."""

    def place(command: typer.models.CommandInfo) -> int:
        return _ORDER.index(command.name or str(getattr(command.callback, "__name__", "")))

    app.registered_commands.sort(key=place)
    panels = [panel for panel, names in PANELS.items() for _ in names]
    for command in app.registered_commands:
        command.rich_help_panel = panels[place(command)]
