"""The options of `run`, `backfill` and `serve`: where they answer, how many work where, and in what way."""

from typing import Annotated

import typer

# One option for both commands, under either name.
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--serve",
        "--address",
        metavar="HOST:PORT",
        help="Where to answer OpenAI's embeddings requests. Default: daemon.serve; else `run` answers none, "
        "and `serve` at 127.0.0.1:8377.",
    ),
]


WorkersOption = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N|per-gpu",
        help="Start so many workers, which share the rows; `per-gpu`: one on each GPU. Default: one, in this "
        "process.",
    ),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ray",
        help="Start the workers on Ray's machines: as many as `--workers` says, else as there is room for.",
    ),
]
_WHERE_RAY_IS = "Where Ray is, as in 10.0.0.1:6379. Default: RAY_ADDRESS, else this machine."
RayOption = Annotated[str | None, typer.Option("--ray-address", metavar="HOST:PORT", help=_WHERE_RAY_IS)]
# `backfill` serves nothing, so the short name is free there.
RayOrAddressOption = Annotated[
    str | None, typer.Option("--address", "--ray-address", metavar="HOST:PORT", help=_WHERE_RAY_IS)
]
MemberOption = Annotated[
    str | None,
    typer.Option(
        "--member",
        metavar="N",
        help="Be the worker of this number, from 0, of several that share the rows and are started one by "
        "one: on the GPU of that number; only 0 serves. `--workers` starts all.",
    ),
]
DropIndexOption = Annotated[
    bool,
    typer.Option(
        "--drop-index",
        help="Drop the index that freshvec made, and build it at the end: faster where most rows are to "
        "be encoded again. Searches read every row meanwhile.",
    ),
]
