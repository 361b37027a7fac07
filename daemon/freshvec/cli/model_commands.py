"""Commands about models: export, models, bench."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freshvec import config
from freshvec.cli.app import (
    ConfigOption,
    JsonOption,
    ModelsDirOption,
    app,
    new_console,
    say,
    settings_if_any,
    settings_of_models,
    with_models_dir,
)
from freshvec.config import Settings

if TYPE_CHECKING:
    from freshvec.bench.baselines import Baseline
    from freshvec.bench.measure import Options
    from freshvec.bench.texts import Texts
    from freshvec.models.artefact import Artefact


@app.command(
    epilog="Examples: freshvec export all-MiniLM-L6-v2; "
    "freshvec export bge-m3 --from ./bge-m3 --precision fp32 --precision fp16; "
    "freshvec export e5-base-v2 --gate int8=0.99. "
    "Exit code 1 when a graph asked for with --precision fails its gate."
)
def export(
    model: Annotated[str, typer.Argument(help="A name from `freshvec models`.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A folder with the model's safetensors; default: package or hub."),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="fp32, fp16 or int8; may be repeated. Default: all three. fp32 is always made."),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="Another least cosine, as in int8=0.99; else fp32 0.99999, fp16 0.999, int8 0.98."),
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(help="Where to install it; default: daemon.models_dir.")
    ] = None,
    config_path: ConfigOption = None,
) -> None:
    """Export a model to ONNX, compare its graphs with torch on real texts, and install those that pass."""
    from freshvec.cli.export_view import ExportView
    from freshvec.encoding.loading import Models
    from freshvec.export.export import PRECISIONS
    from freshvec.export.export import export as export_model
    from freshvec.export.gate import parse_gates, parse_precisions

    wanted, gates = parse_precisions(precision or []), parse_gates(gate or [])
    models = Models(settings_of_models(models_dir, config_path))
    with ExportView(new_console(), model) as view:
        precisions = wanted or PRECISIONS
        made = export_model(models.card(model), models.folder, source, precisions, gates, view.step)
    view.report(made)
    if made.rejected.keys() & set(wanted):
        raise typer.Exit(1)


@app.command(
    epilog="Examples: freshvec models; freshvec models bge-m3. `freshvec describe` adds a model of your own."
)
def models(
    name: Annotated[
        str | None, typer.Argument(help="One model: its whole card, and what is exported of it.")
    ] = None,
    models_dir: ModelsDirOption = None,
    config_path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the model catalogue, and what of it is exported here."""
    from freshvec.cli import catalogue_view
    from freshvec.encoding.loading import Models
    from freshvec.models import catalogue

    settings = with_models_dir(settings_if_any(config_path, needed=False), models_dir)
    known = Models(settings)
    cards = [known.card(name)] if name else list(catalogue.load(known.catalogue_dirs).values())
    exported = known.exported(cards)
    if as_json:
        graphs = catalogue_view.graphs_of
        shown = [card.model_dump() | {"exported": graphs(exported.get(card.name))} for card in cards]
        say(json.dumps(shown, indent=2))
    elif name:
        catalogue_view.show_one(new_console(), cards[0], exported.get(name))
    else:
        catalogue_view.show(new_console(), cards, exported)


@app.command(
    epilog="Examples: freshvec bench all-MiniLM-L6-v2; "
    "freshvec bench --sync articles --against sentence-transformers; "
    "freshvec bench bge-small-en-v1.5 --texts titles.txt --device cpu --json. "
    "Takes minutes; Ctrl-C ends it at any time."
)
def bench(
    model: Annotated[str | None, typer.Argument(help="An exported model; default: that of the sync.")] = None,
    sync: Annotated[
        str | None, typer.Option("--sync", "-s", help="Encode rows of this sync; nothing is written.")
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Encode this file: one text per line, or JSON lines (.jsonl) with `text`.",
        ),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="At most so many texts. Default: 1,000, with a GPU 20,000.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="cpu, cuda, cuda:1 or tensorrt; may be repeated. Default: the CPU, and CUDA if it is there."
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="sentence-transformers or fastembed, measured in turns; may be repeated."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds; figures are their medians.")] = 3,
    models_dir: ModelsDirOption = None,
    config_path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast a model's graphs are on this machine, as a share of what the hardware can multiply."""
    from freshvec.bench.measure import Options
    from freshvec.encoding.loading import Models

    if sync and texts:
        raise typer.BadParameter("give either --sync or --texts")
    settings = settings_if_any(config_path, needed=sync is not None or model is None)
    settings = with_models_dir(settings, models_dir)
    opened = Models(settings).artefact(model or _one_model(settings, sync))
    daemon = settings.daemon
    devices, baselines = _devices(device or []), _baselines(against or [])
    options = Options(devices, daemon.threads, daemon.batch_tokens, baselines, rounds)
    _bench(opened, _texts(settings, opened, options, sync, texts, rows), options, as_json=as_json)


def _bench(opened: "Artefact", texts: "Texts", options: "Options", *, as_json: bool) -> None:
    from freshvec.bench import environment, measure
    from freshvec.cli import bench_view

    with bench_view.BenchView(measure.steps(opened, options)) as shown:
        report = measure.run(opened, texts, options, shown.step)
    if as_json:
        say(json.dumps({"machine": environment.describe(), **report.json()}, indent=2))
    else:
        bench_view.show(new_console(), report, environment.describe())


def _texts(
    settings: Settings,
    opened: "Artefact",
    options: "Options",
    sync: str | None,
    file: Path | None,
    rows: int | None,
) -> "Texts":
    """What is encoded: rows of a sync, lines of a file, or the standard library's docstrings."""
    from freshvec.bench import measure
    from freshvec.bench.texts import of_file, of_standard_library, of_sync
    from freshvec.encoding.loading import Models

    on_cpu = all(where == "cpu" for _, where in measure.lineup(opened, options.devices))
    count = rows or (1000 if on_cpu else 20_000)
    if sync:
        (declared,) = settings.find(sync)
        return of_sync(settings, declared, Models(settings).describe(declared), count)
    return of_file(file, count) if file else of_standard_library(count)


def _one_model(settings: Settings, sync: str | None) -> str:
    """The model of the sync, or the only one that is declared. Raises BadParameter for several."""
    declared = {declared.model for declared in settings.find(sync)}
    if len(declared) > 1:
        raise typer.BadParameter(f"several models are declared: {', '.join(sorted(declared))}; name one")
    return declared.pop()


def _devices(names: list[str]) -> tuple[str, ...]:
    for name in names:
        try:
            config.Daemon(device=name)
        except ValueError as error:
            problem = f"there is no device {name!r}; write cpu, cuda, cuda:1 or tensorrt"
            raise typer.BadParameter(problem) from error
    return () if "auto" in names else tuple(dict.fromkeys(names))


def _baselines(names: list[str]) -> "tuple[Baseline, ...]":
    from freshvec.bench.baselines import BASELINES

    for name in names:
        if name not in BASELINES:
            raise typer.BadParameter(
                f"there is no {name!r} to measure against; write {' or '.join(BASELINES)}"
            )
    return tuple(baseline for baseline in BASELINES if baseline in names)
