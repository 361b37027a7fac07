"""The command line: thin faces over the layers below."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from loguru import logger
from rich.console import Console
from rich.table import Table

from embedsync import __version__, config, logs
from embedsync.config import Settings
from embedsync.errors import ConfigError, EmbedsyncError

if TYPE_CHECKING:
    from embedsync.encoding.rivals import Rival

app = typer.Typer(
    name="embedsync", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", add_completion=False,
    help="Keeps an embedding for every row of a Postgres table fresh, with a model on your own machine.",
    epilog="Start with [bold]embedsync demo[/bold]. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not fresh.",
)  # fmt: skip
console = Console(highlight=False)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Default: ./embedsync.toml, /etc/embedsync/embedsync.toml.")
]
SyncArgument = Annotated[str | None, typer.Argument(help="The sync's name; without it, every declared sync.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line; an error of ours ends in one clear message and its exit code."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    logs.configure()
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Abort:
        sys.exit(130)
    except EmbedsyncError as error:
        logger.error("{}", error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error of the command line's library
            error.show()
            sys.exit(2)
        logger.exception("this should not have happened: {}", type(error).__name__)
        sys.exit(1)


def _settings(path: Path | None) -> Settings:
    settings = config.load(path)
    logs.configure(settings.daemon.log_level, settings.daemon.log_format)
    return settings


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"embedsync {__version__}")
        raise typer.Exit()


@app.callback()
def top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Keeps an embedding for every row of a Postgres table fresh, with a model on your own machine."""


@app.command(epilog="Example: embedsync demo --rows 2000")
def demo(
    rows: Annotated[int | None, typer.Option(help="Use only so many texts.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Where the exported model is kept.")] = None,
) -> None:
    """See it work: an embedded Postgres, real texts, a real model, live edits, searches. Leaves nothing behind."""
    from embedsync import demo as show

    show.run(console, rows, models_dir)


@app.command(
    epilog="Examples: embedsync export all-MiniLM-L6-v2; "
    "embedsync export bge-m3 --from ./bge-m3 --precision fp32 --precision fp16; "
    "embedsync export e5-base-v2 --gate int8=0.99. Exit code 1 when a graph asked for with --precision fails its gate."
)
def export(
    model: Annotated[str, typer.Argument(help="A name from `embedsync models`.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder with the model's safetensors; default: package or hub.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, fp16 or int8; may be repeated. Default: all three. fp32 is always made.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="Another least cosine, as in int8=0.99; else fp32 0.99999, fp16 0.999, int8 0.98."),
    ] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Where to install it; default: daemon.models_dir.")] = None,
    config_path: ConfigOption = None,
) -> None:
    """Export a model to ONNX, hold its graphs against torch on real texts, and install those that pass."""
    from embedsync.encoding import artefact, catalogue
    from embedsync.encoding import export as exporting
    from embedsync.encoding.gate import parse_gates, parse_precisions
    from embedsync.export_view import ExportView

    wanted, gates = parse_precisions(precision or []), parse_gates(gate or [])
    folders: tuple[Path, ...] = ()
    if models_dir is None or config_path is not None:
        try:
            settings = _settings(config_path)
            folders, models_dir = settings.daemon.catalogue_dirs, models_dir or settings.daemon.models_dir
        except EmbedsyncError:
            if config_path is not None:
                raise
    card = catalogue.find(model, folders)
    with ExportView(console, model) as view:
        made = exporting.export(
            card, models_dir or artefact.default_models_dir(), source, wanted or exporting.PRECISIONS, gates, view.step
        )
    view.report(made)
    if made.rejected.keys() & set(wanted):
        raise typer.Exit(1)


@app.command(
    epilog="Examples: embedsync models; embedsync models bge-m3. A model of your own is a TOML file in daemon.catalogue_dirs: "
    'name = "mine", source = "me/mine", dimension = 384, max_tokens = 512, pooling = "mean", and as they apply query_prefix, '
    "document_prefix, normalize, licence and a table sha256 with the checksums of its files."
)
def models(
    name: Annotated[str | None, typer.Argument(help="One model: its whole card, and what is exported of it.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Where exported models are; default: daemon.models_dir.")] = None,
    config_path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the model catalogue, and what of it is exported here."""
    from embedsync import catalogue_view
    from embedsync.encoding import artefact, catalogue

    settings = _with_models_dir(_settings_if_any(config_path, needed=False), models_dir)
    folders = settings.daemon.catalogue_dirs
    cards = [catalogue.find(name, folders)] if name else list(catalogue.load(folders).values())
    folder = settings.daemon.models_dir or artefact.default_models_dir()
    exported = {card.name: made for card in cards if (made := artefact.Artefact.if_exported(folder, card)) is not None}
    if as_json:
        found = [card.model_dump() | {"exported": catalogue_view.graphs_of(exported.get(card.name))} for card in cards]
        typer.echo(json.dumps(found, indent=2))
    elif name:
        catalogue_view.show_one(console, cards[0], exported.get(name))
    else:
        console.print(catalogue_view.table(cards, exported))


@app.command()
def plan(sync: SyncArgument = None, config_path: ConfigOption = None) -> None:
    """Print the exact DDL that `apply` would run. Changes nothing."""
    from embedsync import migrations, schema, service
    from embedsync.db import connect

    settings = _settings(config_path)
    with connect(settings.database.direct, "plan") as connection:
        for path in migrations.pending(connection):
            typer.echo(f"-- migration {path.name}\n{path.read_text().rstrip()}\n")
        for declared in settings.find(sync):
            model = service.describe_model(settings, declared.model)
            planned = schema.plan(connection, declared, model, settings.database.worker_role)
            state = "already applied, nothing would change" if planned.is_applied else "not applied yet"
            typer.echo(f"-- sync {declared.name}: {state}")
            typer.echo("\n".join(f"{statement};" for statement in (*planned.shape, *planned.grants)) + "\n")


@app.command()
def apply(sync: SyncArgument = None, config_path: ConfigOption = None) -> None:
    """Make the declared syncs' queue, triggers, target and view. Running it again changes nothing."""
    from embedsync import migrations, schema, service
    from embedsync.db import connect

    settings = _settings(config_path)
    with connect(settings.database.direct, "apply") as connection:
        for name in migrations.migrate(connection):
            typer.echo(f"migrated: {name}")
        for declared in settings.find(sync):
            model = service.describe_model(settings, declared.model)
            bound, changed = schema.apply(connection, declared, model, settings.database.worker_role)
            typer.echo(f"{declared.name}: {'applied' if changed else 'nothing to do'} (target {'.'.join(bound.target_name)})")


@app.command()
def remove(
    sync: Annotated[str, typer.Argument(help="The sync's name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config_path: ConfigOption = None,
) -> None:
    """Take everything of a sync away, its embeddings included; the source table stays as it was."""
    from embedsync import schema
    from embedsync.db import connect

    settings = _settings(config_path)
    if not yes and not typer.confirm(f"Drop the triggers, the queue and all embeddings of sync {sync!r}?"):
        raise typer.Exit(1)
    with connect(settings.database.direct, "remove") as connection:
        found = schema.remove(connection, sync)
    typer.echo(f"{sync}: removed" if found else f"{sync}: the database knows no such sync")


@app.command(epilog="Examples: embedsync run; embedsync run articles; embedsync run --serve 127.0.0.1:8377")
def run(
    sync: SyncArgument = None,
    address: Annotated[
        str | None, typer.Option("--serve", metavar="HOST:PORT", help="Answer OpenAI's embeddings requests there, too.")
    ] = None,
    config_path: ConfigOption = None,
) -> None:
    """Backfill what is missing, then keep every row fresh until SIGTERM."""
    from embedsync.service import Service

    settings = _settings(config_path)
    if address is not None:
        settings = _serving_on(settings, address)
    service = Service(settings, settings.find(sync))
    service.handle_signals()
    service.run()


@app.command(
    epilog="Example: curl http://127.0.0.1:8377/v1/embeddings -H 'Content-Type: application/json' "
    '-d \'{"model": "all-MiniLM-L6-v2", "input": "how do I return an order"}\'. '
    'A text is embedded as a search; with "input_type": "document" as a row. One longer than the model reads is cut, and the '
    "header X-Embedsync-Truncated says how many were. At most 2,048 texts, 65,536 tokens and 8 MiB a request. "
    "An address that others can reach needs a key in EMBEDSYNC_API_KEY."
)
def serve(
    sync: SyncArgument = None,
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default: daemon.serve, else 127.0.0.1:8377.")] = None,
    config_path: ConfigOption = None,
) -> None:
    """Answer OpenAI's embeddings requests with the models of your rows, so that searches fit them."""
    from embedsync import service

    settings = _settings(config_path)
    settings = _serving_on(settings, address or settings.daemon.serve or "127.0.0.1:8377")
    service.serve(settings, settings.find(sync))


def _serving_on(settings: Settings, address: str) -> Settings:
    """The settings with another `daemon.serve`. Raises ConfigError."""
    changed = settings.model_dump(exclude_unset=True)
    changed["daemon"] = changed.get("daemon", {}) | {"serve": address}
    try:
        return Settings.model_validate(changed)
    except ValueError:
        fault = f"{address!r} is not an address; write host:port, as in 127.0.0.1:8377"
        raise ConfigError("of the command line", [fault]) from None


@app.command()
def backfill(sync: SyncArgument = None, config_path: ConfigOption = None) -> None:
    """Make every row fresh once, with a progress bar, then exit. Resumes where a killed run stopped."""
    from embedsync.backfill_view import BackfillView
    from embedsync.service import Service

    settings = _settings(config_path)
    syncs = settings.find(sync)
    with BackfillView(console, settings) as view:
        service = Service(settings, syncs, once=True, on_tick=view.tick, tick_seconds=view.tick_seconds)
        service.handle_signals()
        service.run()
        failed = view.summary(service)
    if failed:
        raise typer.Exit(1)


@app.command(epilog="Example: embedsync status --check || alert")
def status(
    as_json: JsonOption = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 3 unless every row is fresh.")] = False,
    config_path: ConfigOption = None,
) -> None:
    """Coverage, backlog, lag, rate and trouble of every sync. In SQL: SELECT * FROM embedsync.status."""
    from embedsync import status as reading
    from embedsync.db import connect

    settings = _settings(config_path)
    with connect(settings.database.url, "status") as connection:
        found = reading.read(connection)
        failures = reading.failures(connection)
    if as_json:
        typer.echo(json.dumps([row | {"failures": failures.get(row["sync"], [])} for row in found], indent=2, default=str))
    else:
        console.print(reading.table(found))
        for name, rows in failures.items():
            typer.echo(f"{name}: could not encode these; an edit releases a row, `embedsync retry {name}` tries all again")
            for row in rows:
                typer.echo(f"  {'/'.join(map(str, row['key'].values()))}: {row['error']}")
    if check and not all(reading.is_fresh(row) for row in found):
        raise typer.Exit(3)


@app.command(epilog='Example: embedsync search "how to open a compressed file" -n 3')
def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    sync: Annotated[str | None, typer.Option("--sync", "-s", help="Which sync; needed where several are declared.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 5,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Show the rows nearest to a text."""
    from embedsync import search as searching
    from embedsync import service, source
    from embedsync.db import connect

    settings = _settings(config_path)
    declared = settings.find(sync)
    if len(declared) > 1:
        raise EmbedsyncError("search", "several syncs at once", "the text could belong to any", "Name one with --sync.")
    encoder = service.load_encoder(settings, declared[0].model)
    with connect(settings.database.url, "search") as connection:
        bound = source.bind(connection, declared[0], service.describe_model(settings, declared[0].model))
        hits = searching.search(connection, bound, encoder.encode_query(text), limit)
    if as_json:
        typer.echo(json.dumps([{"key": hit.key, "similarity": hit.similarity, "text": hit.text} for hit in hits], indent=2))
        return
    table = Table("similarity", ", ".join(bound.key_columns), "text")
    for hit in hits:
        table.add_row(f"{hit.similarity:.3f}", ", ".join(hit.key), " ".join(hit.text.split())[:120])
    console.print(table)


@app.command()
def verify(
    sync: SyncArgument = None,
    repair: Annotated[bool, typer.Option("--repair", help="Queue what is wrong for the worker.")] = False,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Compare every row's text with the one its embedding was made from; exit 3 if any is not fresh."""
    from embedsync import service, source
    from embedsync import verify as verifying
    from embedsync.db import connect

    settings = _settings(config_path)
    reports = []
    with connect(settings.database.url, "verify") as connection:
        for declared in settings.find(sync):
            bound = source.bind(connection, declared, service.describe_model(settings, declared.model))
            reports.append(verifying.verify(connection, bound, repair=repair))
    for report in reports:
        if as_json:
            found = {"sync": report.sync, "rows": report.rows, "fresh": report.is_fresh, "problems": report.problems}
            typer.echo(json.dumps(found | {"examples": report.examples}))
            continue
        verdict = "every one fresh" if report.is_fresh else ", ".join(f"{n} {kind}" for kind, n in report.problems.items())
        typer.echo(f"{report.sync}: {report.rows} rows, {verdict}")
        for kind, keys in report.examples.items():
            typer.echo(f"  {kind}: {', '.join('/'.join(key) for key in keys)}")
    if not all(report.is_fresh for report in reports):
        if repair:
            typer.echo("queued for the worker; verify again once it has caught up")
        raise typer.Exit(3)


@app.command()
def retry(sync: SyncArgument = None, config_path: ConfigOption = None) -> None:
    """Try rows again whose text could not be encoded."""
    from embedsync import service, source, target
    from embedsync.db import connect

    settings = _settings(config_path)
    with connect(settings.database.url, "retry") as connection:
        for declared in settings.find(sync):
            bound = source.bind(connection, declared, service.describe_model(settings, declared.model))
            queued = target.retry(connection, bound)
            connection.execute("SELECT embedsync.ring(%s)", (declared.name,))
            typer.echo(f"{declared.name}: {queued} rows queued")


@app.command(
    epilog="Examples: embedsync bench all-MiniLM-L6-v2; embedsync bench --sync articles --against sentence-transformers; "
    "embedsync bench bge-small-en-v1.5 --texts titles.txt --device cpu --json. Takes minutes; Ctrl-C ends it at any time."
)
def bench(
    model: Annotated[str | None, typer.Argument(help="An exported model; default: that of the sync.")] = None,
    sync: Annotated[str | None, typer.Option("--sync", "-s", help="Encode rows of this sync; nothing is written.")] = None,
    texts: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Encode this file: one text a line, or JSON lines (.jsonl) with `text`."),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="At most so many texts. Default: 1,000, with a GPU 20,000.")] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="cpu, cuda, cuda:1 or tensorrt; may be repeated. Default: the CPU, and CUDA if it is there."),
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="sentence-transformers or fastembed, measured in turns; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Medians are of so many.")] = 3,
    models_dir: Annotated[Path | None, typer.Option(help="Where the exported models are; default: daemon.models_dir.")] = None,
    config_path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast a model's graphs are on this machine, as a share of what the hardware can multiply."""
    from embedsync import service
    from embedsync.bench import machine, measure, view
    from embedsync.bench import texts as origins
    from embedsync.encoding import artefact, catalogue

    if sync and texts:
        raise typer.BadParameter("give either --sync or --texts")
    settings = _settings_if_any(config_path, needed=sync is not None or model is None)
    settings = _with_models_dir(settings, models_dir)
    name = model or _one_model(settings, sync)
    opened = artefact.Artefact.open(
        settings.daemon.models_dir or artefact.default_models_dir(), catalogue.find(name, settings.daemon.catalogue_dirs)
    )
    options = measure.Options(
        _devices(device or []), settings.daemon.threads, settings.daemon.batch_tokens, _rivals(against or []), rounds
    )
    on_cpu = all(where == "cpu" for _, where in measure.lineup(opened, options.devices))
    count = rows or (1000 if on_cpu else 20_000)
    if sync:
        found = origins.of_sync(settings, settings.find(sync)[0], service.describe_model(settings, name), count)
    else:
        found = origins.of_file(texts, count) if texts else origins.of_standard_library(count)
    with view.BenchView(measure.steps(opened, options)) as shown:
        report = measure.run(opened, found, options, shown.step)
    if as_json:
        typer.echo(json.dumps({"machine": machine.describe(), **report.json()}, indent=2))
    else:
        view.show(console, report, machine.describe())


def _settings_if_any(path: Path | None, *, needed: bool) -> Settings:
    """The settings, or the defaults where there is no file and none is needed."""
    if needed or path or "EMBEDSYNC_CONFIG" in os.environ or any(Path(name).exists() for name in config.SEARCHED):
        return _settings(path)
    return Settings()


def _with_models_dir(settings: Settings, folder: Path | None) -> Settings:
    if folder is None:
        return settings
    return settings.model_copy(update={"daemon": settings.daemon.model_copy(update={"models_dir": folder})})


def _one_model(settings: Settings, sync: str | None) -> str:
    """The model of the sync, or the only one that is declared."""
    models = {declared.model for declared in settings.find(sync)}
    if len(models) > 1:
        raise typer.BadParameter(f"several models are declared: {', '.join(sorted(models))}; name one")
    return models.pop()


def _devices(names: list[str]) -> tuple[str, ...]:
    for name in names:
        try:
            config.Daemon(device=name)
        except ValueError as error:
            raise typer.BadParameter(f"there is no device {name!r}; write cpu, cuda, cuda:1 or tensorrt") from error
    return () if "auto" in names else tuple(dict.fromkeys(names))


def _rivals(names: list[str]) -> "tuple[Rival, ...]":
    from embedsync.encoding.rivals import RIVALS

    for name in names:
        if name not in RIVALS:
            raise typer.BadParameter(f"there is no {name!r} to measure against; write {' or '.join(RIVALS)}")
    return tuple(rival for rival in RIVALS if rival in names)
