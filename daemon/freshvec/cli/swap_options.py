"""The options of `swap`: what begins one, the steps that follow, and how they go."""

from pathlib import Path
from typing import Annotated

import typer

from freshvec.cli.app import sync_names

Sync = Annotated[str, typer.Argument(help="The sync's name.", autocompletion=sync_names)]

# What begins one.
Model = Annotated[str | None, typer.Option(help="Begin: with this model.")]
Columns = Annotated[str | None, typer.Option(help="Begin: with these columns, as in title,body.")]
Expression = Annotated[str | None, typer.Option(help="Begin: with this text, in SQL.")]
Where = Annotated[str | None, typer.Option(help="Begin: with these rows alone.")]
Type = Annotated[str | None, typer.Option("--type", help="Begin: with vectors of this type, as in halfvec.")]
FromFile = Annotated[
    bool, typer.Option("--from-file", help="Begin: with what the file says by now, as of passages.")
]
Table = Annotated[
    str | None, typer.Option(help="Begin: the new table. Default: the old one's name and a number.")
]

# The steps that follow.
Commit = Annotated[bool, typer.Option("--commit", help="Let the view show the new vectors.")]
Rollback = Annotated[bool, typer.Option("--rollback", help="Let it show the old ones again.")]
Finish = Annotated[bool, typer.Option("--finish", help="Take the old ones away.")]
Abandon = Annotated[bool, typer.Option("--abandon", help="Take the new ones away.")]

# How they go.
Keep = Annotated[
    float, typer.Option(min=0, metavar="DAYS", help="How long a commit keeps the old ones fresh.")
]
Queries = Annotated[
    Path | None, typer.Option(help="Searches to compare old and new by, one a line. Default: rows.")
]
Sample = Annotated[int, typer.Option(min=0, help="How many rows to compare by; 0 for no report.")]
Force = Annotated[bool, typer.Option("--force", help="Commit though rows failed, or the index is not built.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Wait = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for what is under way: changes, locks, a worker.")
]
