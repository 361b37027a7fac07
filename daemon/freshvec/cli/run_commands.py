"""Commands that work until they are told to stop, or are done: demo, run, serve, backfill."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from loguru import logger

from freshvec import __version__, config, logs
from freshvec.cli.app import ConfigOption, SyncArgument, app, load_settings, new_console, say
from freshvec.cli.run_options import (
    AddressOption,
    DropIndexOption,
    MemberOption,
    OnOption,
    RayOption,
    RayOrAddressOption,
    WorkersOption,
)
from freshvec.config import Settings, Sync
from freshvec.errors import ServerError, UsageError
from freshvec.fleet import membership
from freshvec.fleet.member import become, name_of
from freshvec.worker import signals

if TYPE_CHECKING:
    from freshvec.worker.endpoint import Endpoint
    from freshvec.worker.worker import Worker

Reload = Callable[[], tuple[Settings, tuple[Sync, ...]]]


@app.command("demo", epilog="Example: freshvec demo --rows 2000")
def show_demo(
    rows: Annotated[int | None, typer.Option(help="Use only so many texts.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Where the exported model is kept.")] = None,
) -> None:
    """See it work: an embedded Postgres, a real model, live edits, searches. Only the model stays."""
    from freshvec.cli import demo

    demo.run(new_console(), rows, models_dir)


@app.command(
    epilog="Examples: freshvec run; freshvec run articles; freshvec run --serve 127.0.0.1:8377; "
    "freshvec run --workers per-gpu"
)
def run(
    sync: SyncArgument = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
    on: OnOption = None,
    ray_address: RayOption = None,
    config_path: ConfigOption = None,
    member: MemberOption = None,
) -> None:
    """Backfill what is missing, then keep every row fresh until Ctrl-C or SIGTERM."""
    is_asked = signals.note_reload()
    number = _begin_as(member)

    def read() -> Settings:
        settings = config.load(config_path)
        if address is not None:
            settings = _serving_on(settings, address)
        return settings if number is None else become(settings, number)

    settings, reload = read(), _reload(sync, read)
    logs.configure(settings.daemon.log_level, settings.daemon.log_format)
    if on is not None:
        from freshvec.cli import elsewhere

        where = elsewhere.Elsewhere(on, ray_address, workers)
        raise typer.Exit(elsewhere.run(settings, settings.find(sync), where, reload, is_asked))
    if workers is not None:
        from freshvec.cli import fleet

        again = ("run", *_given(sync), *_given("--serve", address), *_given("--config", config_path))
        raise typer.Exit(fleet.run(settings, settings.find(sync), workers, again))
    _work(settings, settings.find(sync), reload, is_asked, is_led=membership.is_led(member))


def _work(
    settings: Settings,
    syncs: tuple[Sync, ...],
    reload: Reload,
    is_asked: threading.Event,
    *,
    is_led: bool,
) -> None:
    """One worker in this process. Where a supervisor leads it, that shows how far all are. `is_asked`: to
    read the file again, before there was a worker."""
    from freshvec.cli.progress_view import ProgressView, followed
    from freshvec.worker.worker import Worker

    endpoint = _endpoint(settings)
    logger.info("freshvec {}: loading {}", __version__, ", ".join({sync.model: 0 for sync in syncs}))
    worker = Worker(settings, syncs, endpoint=endpoint, reload=reload)
    if is_led:
        _obey(worker)
    else:
        worker.handle_signals()
    if is_asked.is_set():
        worker.reload()
    if is_led:
        worker.run()
        return
    with followed(worker, ProgressView(settings.database.url, has_bars=_has_bars(settings))):
        worker.run()


def _reload(sync: str | None, read: Callable[[], Settings]) -> Reload:
    """What reads the file again, at SIGHUP. It may declare none any more: so the last sync is let go."""

    def reload() -> tuple[Settings, tuple[Sync, ...]]:
        again = read()
        return again, tuple(declared for declared in again.sync if sync in (None, declared.name))

    return reload


def _begin_as(member: str | None) -> int | None:
    """The number of a worker that is one of several, tied to who started it."""
    if member is None:
        return None
    number = membership.enter(member)
    logs.speak_for(name_of(number))
    return number


def _obey(worker: "Worker") -> None:
    """Signals may come twice, from systemd and from the supervisor, and mean the same: only the supervisor
    ends at once."""
    signals.handle(worker.stop, worker.reload, threading.Event())


def _given(*words: object) -> tuple[str, ...]:
    """An option with its value, or nothing where that is not given."""
    return () if words[-1] is None else tuple(str(word) for word in words)


def _endpoint(settings: Settings) -> "Callable[[Worker], Endpoint] | None":
    """What answers over HTTP, if anything is to."""
    if not settings.daemon.serve and settings.web.address == "off":
        return None
    try:
        from freshvec.web.serve import endpoints  # only serving needs these packages, and time to load them
    except ServerError as error:
        if settings.daemon.serve or "address" in settings.web.model_fields_set:
            raise
        logger.info("no page and no metrics: {}", error)
        return None
    return partial(endpoints, settings)


def _has_bars(settings: Settings) -> bool:
    """Lines for a program, each a JSON object, are not to be broken by bars."""
    return settings.daemon.log_format == "text"


@app.command(
    epilog="Example: curl http://127.0.0.1:8377/v1/embeddings -H 'Content-Type: application/json' "
    '-d \'{"model": "all-MiniLM-L6-v2", "input": "how do I return an order"}\'. '
    'A text is embedded as a search; with "input_type": "document" as a row. A text longer than the model '
    "reads is cut, and the header X-Freshvec-Truncated says how many were. At most 2,048 texts, "
    "65,536 tokens and 8 MiB per request. An address that others can reach needs a key in FRESHVEC_API_KEY."
)
def serve(
    sync: SyncArgument = None,
    address: AddressOption = None,
    config_path: ConfigOption = None,
) -> None:
    """Answer OpenAI's embeddings requests with the models of your rows, so that searches fit them."""
    from freshvec.web.serve import serve as serve_models
    from freshvec.worker.following import Following

    settings = load_settings(config_path)
    settings = _serving_on(settings, address or settings.daemon.serve or "127.0.0.1:8377")
    # What is shown may be of another model than the file says: a swap was committed.
    serve_models(settings, Following(settings.database.url, settings.find(sync)).at_start())


def _serving_on(settings: Settings, address: str) -> Settings:
    """The settings with another `daemon.serve`. Raises UsageError."""
    changed = settings.model_dump(exclude_unset=True)
    changed["daemon"] = changed.get("daemon", {}) | {"serve": address}
    try:
        return Settings.model_validate(changed)
    except ValueError:
        fault = f"{address!r} is not an address; write host:port, as in 127.0.0.1:8377"
        raise UsageError(fault) from None


@app.command(
    epilog="Examples: freshvec backfill; freshvec backfill articles --drop-index; "
    "freshvec backfill --workers 4"
)
def backfill(
    sync: SyncArgument = None,
    drop_index: DropIndexOption = False,
    workers: WorkersOption = None,
    on: OnOption = None,
    ray_address: RayOrAddressOption = None,
    config_path: ConfigOption = None,
    member: MemberOption = None,
) -> None:
    """Make every row fresh once, with a progress bar, build the declared index, then exit.

    It goes on where a run that was killed has stopped.
    """
    number = _begin_as(member)
    settings = load_settings(config_path)
    syncs = settings.find(sync)
    if number is not None:
        settings = become(settings, number)
    if membership.is_led(member):
        _fill(settings, syncs)
        return
    _refuse_other_models(settings, syncs)
    if drop_index:
        _drop_indexes(settings, syncs)
    if on is not None:
        from freshvec.cli import elsewhere

        where = elsewhere.Elsewhere(on, ray_address, workers)
        raise typer.Exit(elsewhere.backfill(settings, syncs, where))
    if workers is not None:
        from freshvec.cli import fleet

        again = ("backfill", *_given(sync), *_given("--config", config_path))
        raise typer.Exit(fleet.backfill(settings, syncs, workers, again))

    from freshvec.cli.progress_view import ProgressView
    from freshvec.worker.worker import Worker

    with ProgressView(settings.database.url, anew=True, has_bars=_has_bars(settings)) as view:
        worker = Worker(settings, syncs, once=True, on_tick=view.tick, tick_seconds=view.tick_seconds)
        worker.handle_signals()
        worker.run()
        failed = view.summary(worker)
    if failed:
        raise typer.Exit(1)


def _fill(settings: Settings, syncs: tuple[Sync, ...]) -> None:
    """One of several that fill tables: whoever started it shows how far they are, and counts what failed."""
    from freshvec.worker.worker import Worker

    worker = Worker(settings, syncs, once=True)
    _obey(worker)
    worker.run()
    if not all(keeper.was_fresh for keeper in worker.keepers):
        raise typer.Exit(1)


def _refuse_other_models(settings: Settings, syncs: tuple[Sync, ...]) -> None:
    """A worker that runs on keeps what there is; who asks for rows to be made fresh is told instead."""
    from freshvec.db import connect
    from freshvec.schema import editions

    with connect(settings.database.url, "backfill") as connection:
        editions.to_apply(connection, syncs)


def _drop_indexes(settings: Settings, syncs: tuple[Sync, ...]) -> None:
    """Drop those of ours. Raises FreshvecError where a worker keeps a sync: it would build them again."""
    from freshvec.db import connect
    from freshvec.schema import editions, migrations
    from freshvec.target import building
    from freshvec.worker import ownership

    with connect(settings.database.url, "index") as connection:
        migrations.migrate(connection)
        for declared in editions.run(connection, syncs):
            if ownership.owner(connection, declared.name) is not None:
                raise ownership.refusal(connection, declared.name)
            for index in building.drop_ours(connection, declared.name):
                say(f"{declared.name}: index {index} is dropped, to be built at the end")
