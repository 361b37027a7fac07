"""Commands that look at what there is: status, wait, search, verify, retry."""

import json
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from freshvec.cli import numbers
from freshvec.cli.app import (
    ConfigOption,
    JsonOption,
    SyncArgument,
    SyncOption,
    app,
    load_settings,
    new_console,
    say,
)
from freshvec.config import Settings, Sync
from freshvec.errors import FreshvecError, NotFreshError
from freshvec.printable import in_a_line

_WATCH_SECONDS = 2.0

if TYPE_CHECKING:
    from freshvec.health.status import Seen
    from freshvec.scans.verify import Report
    from freshvec.schema.editions import Editions

MaxLagOption = Annotated[
    float | None,
    typer.Option(
        parser=numbers.seconds,
        metavar="SECONDS",
        help="Check, but let the oldest change wait for so many seconds.",
    ),
]
MinCoverageOption = Annotated[
    float | None,
    typer.Option(
        parser=numbers.share,
        metavar="SHARE",
        help="Check, but be content with this share of rows with a vector.",
    ),
]
TimeoutOption = Annotated[
    float,
    typer.Option(
        "--timeout", "-t", parser=numbers.seconds, metavar="SECONDS", help="Seconds to wait at most."
    ),
]
VectorsOption = Annotated[
    int,
    typer.Option(
        "--vectors",
        min=0,
        max=numbers.MOST_ROWS,
        help="Encode so many random rows again and compare the vectors.",
    ),
]


@app.command(
    epilog="Examples: freshvec status --watch; freshvec status --check --max-lag 60 --min-coverage 0.999"
)
def status(
    as_json: JsonOption = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Exit 3 unless every sync is applied as declared and every row is fresh."
        ),
    ] = False,
    max_lag: MaxLagOption = None,
    min_coverage: MinCoverageOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it anew every 2 s, until Ctrl-C.")
    ] = False,
    config_path: ConfigOption = None,
) -> None:
    """Coverage, backlog, lag, rate and trouble of every sync. In SQL: SELECT * FROM freshvec.status."""
    from freshvec.db import connect
    from freshvec.health.status import look
    from freshvec.schema import editions

    check = check or max_lag is not None or min_coverage is not None
    if watch and (as_json or check):
        raise typer.BadParameter("--watch goes with neither --json nor --check, which end")
    settings = load_settings(config_path)
    with connect(settings.database.url, "status") as connection:
        while True:
            found = editions.find_all(connection, settings.sync)
            syncs = tuple(each for one in found for each in one.run)
            seen = look(connection, syncs, _fingerprints(settings, syncs))
            if watch and sys.stdout.isatty():
                new_console().clear()
            _show_status(seen, found, as_json=as_json)
            if not watch:
                break
            time.sleep(_WATCH_SECONDS)
    is_as_declared = not any(one.is_refused for one in found)
    # What searches read is checked; what a swap fills or keeps beside it is not.
    checked = seen.without({name for one in found for name in one.hidden})
    if check and not (is_as_declared and checked.is_within(max_lag, min_coverage)):
        raise typer.Exit(3)


def _show_status(seen: "Seen", found: "list[Editions]", *, as_json: bool) -> None:
    from freshvec.cli import status_view

    if as_json:
        say(json.dumps(seen.as_values(), indent=2, default=str))
    else:
        status_view.show(new_console(), seen)
        for line in status_view.remarks(seen):
            say(line)
    for name, known in seen.amiss.items():
        say(f"{name}: {known.message}", err=True)
    for one in found:
        for remark in filter(None, (one.beside, one.note)):
            say(f"{one.name}: {remark}", err=True)


def _fingerprints(settings: Settings, syncs: tuple[Sync, ...]) -> dict[str, str]:
    """Those of the vectors of these syncs, as far as their models' files are here and may be read."""
    from freshvec.encoding.loading import Models
    from freshvec.errors import ModelError

    models, found = Models(settings), {}
    for sync in syncs:
        with suppress(ModelError, OSError):
            found[sync.name] = models.describe(sync).fingerprint.hex()
    return found


@app.command(epilog="Examples: freshvec wait --key 42; freshvec wait --key 7 --key en --timeout 5")
def wait(
    sync: SyncOption = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", "-k", help="The row's key; once per column, in the order of the primary key."),
    ] = None,
    timeout: TimeoutOption = 30.0,
    config_path: ConfigOption = None,
) -> None:
    """Wait until what is committed by now is fresh: a row, or the whole sync. Exit 3 if it takes too long.

    In SQL: SELECT freshvec.is_fresh('articles', '42').
    """
    from freshvec.db import connect
    from freshvec.health import status as health
    from freshvec.health.wait import wait_until_as_declared, wait_until_fresh
    from freshvec.schema.editions import find

    settings = load_settings(config_path)
    declared = _only(settings.find(sync), "wait for", "each has keys of its own")
    deadline = time.monotonic() + timeout
    with connect(settings.database.url, "wait") as connection:
        shown = find(connection, declared).shown
        name, fingerprints = shown.name, _fingerprints(settings, (shown,))
        known = wait_until_as_declared(connection, shown, fingerprints, timeout)
        left = max(0.0, deadline - time.monotonic())
        if wait_until_fresh(connection, name, key or (), left) and known is None:
            return
        (row,) = [row for row in health.read(connection) if row["sync"] == name]
    what = f"row {'/'.join(key)} of sync {name!r}" if key else f"sync {name!r}"
    problem = f"it is not fresh after {timeout:g} s; {known.message if known else health.what_holds_up(row)}"
    raise NotFreshError("wait for", what, problem, "See `freshvec status`.")


@app.command(epilog='Example: freshvec search "how to open a compressed file" -n 3')
def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    sync: SyncOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=numbers.MOST_ROWS, help="How many rows.")
    ] = 5,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Show the rows nearest to a text."""
    from freshvec.db import connect
    from freshvec.encoding.loading import Models
    from freshvec.schema.editions import find
    from freshvec.source.bind import bind
    from freshvec.target.search import search as nearest

    settings = load_settings(config_path)
    declared = _only(settings.find(sync), "search", "the text could belong to any")
    models = Models(settings)
    with connect(settings.database.url, "search") as connection:
        shown = find(connection, declared).shown
        encoder = models.encoder(shown.model)
        bound = bind(connection, shown, models.describe(shown))
        hits = nearest(connection, bound, encoder.encode_query(text), limit)
    if as_json:
        values = [{"key": hit.key, "similarity": hit.similarity, "text": hit.text} for hit in hits]
        say(json.dumps(values, indent=2))
        return
    if not hits:
        say(f"{declared.name}: no row has an embedding yet; see `freshvec status`", err=True)
        return
    from freshvec.cli import hits_view

    hits_view.show(new_console(), bound.key_columns, hits)


def _only(declared: tuple[Sync, ...], operation: str, problem: str) -> Sync:
    """The one sync that is meant. Raises FreshvecError where it could be several."""
    if len(declared) > 1:
        raise FreshvecError(operation, "several syncs at once", problem, "Name one with --sync.")
    return declared[0]


@app.command()
def verify(
    sync: SyncArgument = None,
    repair: Annotated[bool, typer.Option("--repair", help="Queue what is wrong for the worker.")] = False,
    vectors: VectorsOption = 0,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Compare every row's text with the one its embedding was made from; exit 3 if any is not fresh."""
    from freshvec.db import connect
    from freshvec.encoding.loading import Models
    from freshvec.scans import verify as scan
    from freshvec.schema import editions
    from freshvec.source.bind import bind

    settings = load_settings(config_path)
    models = Models(settings)
    reports = []
    with connect(settings.database.url, "verify") as connection:
        for declared in editions.run(connection, settings.find(sync)):
            bound = bind(connection, declared, models.describe(declared))
            report = scan.verify(connection, bound, repair=repair)
            if vectors:
                encoder = models.encoder(declared.model)
                dispatcher = models.dispatcher(declared.model, encoder)
                precision = settings.daemon.precision
                given = (connection, bound, dispatcher, report, vectors)
                scan.verify_vectors(*given, precision=precision, repair=repair)
                dispatcher.stop(timeout=2.0)
            reports.append(report)
    if as_json:
        say(json.dumps([_as_value(report) for report in reports], indent=2))
    else:
        for report in reports:
            _show(report)
    if not all(report.is_fresh for report in reports):
        if repair:
            say("queued for the worker; verify again once it has caught up", err=True)
        raise typer.Exit(3)


def _as_value(report: "Report") -> dict[str, object]:
    return {
        "sync": report.sync,
        "rows": report.rows,
        "vectors": report.vectors,
        "fresh": report.is_fresh,
        "problems": report.problems,
        "examples": report.examples,
    }


def _show(report: "Report") -> None:
    counts = ", ".join(f"{count} {kind}" for kind, count in report.problems.items())
    compared = f" ({report.vectors} vectors encoded again)" if report.vectors else ""
    say(f"{report.sync}: {report.rows} rows, {counts or 'every one fresh'}{compared}")
    for kind, keys in report.examples.items():
        say(f"  {kind}: {', '.join(in_a_line('/'.join(key)) for key in keys)}")


@app.command()
def retry(sync: SyncArgument = None, config_path: ConfigOption = None) -> None:
    """Try again the rows whose text could not be encoded."""
    from freshvec.db import connect
    from freshvec.encoding.loading import Models
    from freshvec.scans.retry import retry as queue_failed
    from freshvec.schema import editions
    from freshvec.source.bind import bind

    settings = load_settings(config_path)
    models = Models(settings)
    with connect(settings.database.url, "retry") as connection:
        for declared in editions.run(connection, settings.find(sync)):
            bound = bind(connection, declared, models.describe(declared))
            queued = queue_failed(connection, bound)
            say(f"{declared.name}: {queued} rows queued")
