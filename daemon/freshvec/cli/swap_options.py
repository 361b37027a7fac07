"""The options of `swap`: what begins one, the steps that follow, and how they go."""

from pathlib import Path
from typing import Annotated

import typer

from freshvec.cli import numbers
from freshvec.cli.app import sync_names

Sync = Annotated[str, typer.Argument(help="The sync's name.", autocompletion=sync_names)]

# What begins one.
Model = Annotated[str | None, typer.Option(help="Begin a swap to this model.")]
Columns = Annotated[
    str | None, typer.Option(help="Begin a swap to the text of these columns, as in title,body.")
]
Expression = Annotated[str | None, typer.Option(help="Begin a swap to this text, an SQL expression.")]
Where = Annotated[str | None, typer.Option(help="Begin a swap to rows that meet this SQL condition.")]
Type = Annotated[
    str | None, typer.Option("--type", help="Begin a swap to vectors of this type, as in halfvec.")
]
FromFile = Annotated[
    bool, typer.Option("--from-file", help="Begin a swap to what the file says now, passages included.")
]
Table = Annotated[
    str | None, typer.Option(help="The table of the new vectors. Default: the old one's name and a number.")
]

# The steps that follow.
Commit = Annotated[bool, typer.Option("--commit", help="Let the view show the new vectors.")]
Rollback = Annotated[bool, typer.Option("--rollback", help="Let the view show the old vectors again.")]
Finish = Annotated[bool, typer.Option("--finish", help="Take the old vectors away.")]
Abandon = Annotated[bool, typer.Option("--abandon", help="Take the new vectors away.")]

# How they go.
Keep = Annotated[
    float,
    typer.Option(
        parser=numbers.days, metavar="DAYS", help="With --commit: how long the old vectors are kept fresh."
    ),
]
Queries = Annotated[
    Path | None,
    typer.Option(help="A file of searches to compare old and new by, one per line. Default: texts of rows."),
]
Sample = Annotated[
    int, typer.Option(min=0, max=numbers.MOST_ROWS, help="How many rows to compare by; 0 for no report.")
]
Force = Annotated[bool, typer.Option("--force", help="Commit though rows failed, or the index is not built.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Wait = Annotated[
    float,
    typer.Option(
        parser=numbers.seconds,
        metavar="SECONDS",
        help="Seconds to wait for what is under way: changes, locks, a worker.",
    ),
]
