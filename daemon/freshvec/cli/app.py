"""The command line's frame: the app, and the options, settings and printing that its commands share."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freshvec import __version__, config, logs
from freshvec.config import Settings
from freshvec.errors import FreshvecError, UsageError
from freshvec.printable import in_lines

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="freshvec",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Keeps an embedding for every row of a Postgres table fresh, with a model on your own machine.",
    epilog="Start with [bold]freshvec demo[/bold], on your own tables with [bold]freshvec init[/bold]. "
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not fresh, 78 wrong configuration.",
)


def is_plain() -> bool:
    """Whether NO_COLOR asks for text without colours; bold is one of them here, since terminals colour it."""
    return bool(os.environ.get("NO_COLOR"))


def new_console(*, stderr: bool = False, width: int | None = None) -> "Console":
    """A console that styles nothing where NO_COLOR is set; rich alone would leave bold and dim."""
    from freshvec.cli.console import PlainConsole  # most commands show plain lines, and this takes a while

    return PlainConsole(stderr=stderr, width=width, color_system=None if is_plain() else "auto")


def say(text: str, *, err: bool = False) -> None:
    """Print lines in which there may be what comes from a row, an error or a file."""
    typer.echo(in_lines(text), err=err)


def agreed(question: str) -> bool:
    """Whether whoever is asked says yes. Raises UsageError where there is nobody to ask."""
    try:
        return typer.confirm(question)
    except typer.Abort as abort:
        if isinstance(abort.__context__, EOFError):  # else it is Ctrl-C
            raise UsageError("there is nobody to ask: standard input has ended; add --yes") from None
        raise


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The file. Default: FRESHVEC_CONFIG, else ./freshvec.toml, else /etc/freshvec/freshvec.toml.",
    ),
]


def sync_names(context: typer.Context, incomplete: str) -> list[str]:
    """What a shell may complete the name of a sync to."""
    try:
        settings = config.load(context.params.get("config_path"))
    except FreshvecError:
        return []
    return [sync.name for sync in settings.sync if sync.name.startswith(incomplete)]


SyncArgument = Annotated[
    str | None,
    typer.Argument(help="The sync's name; without it, every declared sync.", autocompletion=sync_names),
]
SyncOption = Annotated[
    str | None,
    typer.Option(
        "--sync", "-s", help="Which sync; needed where several are declared.", autocompletion=sync_names
    ),
]
ModelsDirOption = Annotated[
    Path | None, typer.Option(help="Where the exported models are; default: daemon.models_dir.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_settings(path: Path | None) -> Settings:
    """The settings, the log configured as they say. Raises ConfigError."""
    settings = config.load(path)
    logs.configure(settings.daemon.log_level, settings.daemon.log_format)
    return settings


def settings_if_any(path: Path | None, *, needed: bool) -> Settings:
    """The settings, or the defaults where there is no file and none is needed."""
    return load_settings(path) if needed or config.file_of(path) else Settings()


def with_models_dir(settings: Settings, folder: Path | None) -> Settings:
    """The settings with another `daemon.models_dir`, if one is given."""
    if folder is None:
        return settings
    return settings.model_copy(update={"daemon": settings.daemon.model_copy(update={"models_dir": folder})})


def settings_of_models(models_dir: Path | None, config_path: Path | None) -> Settings:
    """The settings, of which the folders alone matter; a file that nobody named may have faults."""
    settings = Settings()
    if models_dir is None or config_path is not None:
        try:
            settings = load_settings(config_path)
        except FreshvecError:
            if config_path is not None:
                raise
    return with_models_dir(settings, models_dir)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"freshvec {__version__}")
        raise typer.Exit()


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keeps an embedding for every row of a Postgres table fresh, with a model on your own machine."""
