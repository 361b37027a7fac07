"""What a benchmark shows: what is being measured, then a table of the results."""

import statistics
from types import TracebackType
from typing import Any, Self

from loguru import logger
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from freshvec.bench.report import Contender, Report
from freshvec.cli.app import new_console

_WIDE = 120  # columns of a table that goes to a file


class BenchView:
    """Shows the steps of one benchmark on standard error; `measure.run` calls `step`."""

    def __init__(self, steps: int) -> None:
        console = new_console(stderr=True)
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._steps = steps

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self._steps, completed=-1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, doing: str) -> None:
        """Another step begins."""
        if self._bar:
            self._bar.update(self._task, advance=1, description=doing)
        else:
            logger.info("{}", doing)


def show(console: Console, report: Report, machine: dict[str, Any]) -> None:
    """Print the table and what a reader needs beside it; `machine` is what `environment.describe` returns."""
    if not console.is_terminal:
        console = new_console(width=_WIDE)
    baselines = list(
        dict.fromkeys(contender.name for contender in report.contenders if not contender.is_ours)
    )
    table = Table(
        title=report.artefact.card.name,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("graph")
    table.add_column("on", no_wrap=True)
    headings = "tokens/s", "texts/s", "of the\nlimit", "encoding\nalone", "padding", "batch", "MiB"
    for heading in (*headings, *(f"times\n{_broken(name)}" for name in baselines)):
        table.add_column(heading, justify="right", overflow="fold")
    for contender in report.contenders:
        table.add_row(*_cells(report, contender, baselines))
    console.print(table)
    for line in (*_explained(report), *report.notes(), _where(machine)):
        console.print(line, soft_wrap=True)


def _cells(report: Report, contender: Contender, baselines: list[str]) -> list[str]:
    """A contender's row of the table."""
    cells = [_broken(contender.name), contender.device]
    cells += [f"{contender.median(lambda one: one.tokens_per_second):,.0f}"]
    cells += [f"{contender.median(lambda one: one.texts_per_second):,.0f}", _percent(report.share(contender))]
    if contender.is_ours:
        cells += [f"{contender.median(lambda one: one.encoded_per_second):,.0f}"]
        cells += [
            f"{contender.median(lambda one: one.waste):.1%}",
            f"{contender.batch_tokens:,}{'' if contender.settled else '?'}",
        ]
    else:
        cells += ["–"] * 3
    ratios = report.ratios(contender)
    return [
        *cells,
        f"{contender.memory_mib:,.0f}",
        *(f"{ratios[name]:.2f}" if name in ratios else "–" for name in baselines),
    ]


def _broken(name: str) -> str:
    """A long name on two lines."""
    return name.replace("-", "-\n")


def _explained(report: Report) -> list[str]:
    """The lines under the table: texts, limits, tokenising, and what the columns mean."""
    count = len(report.texts.rows)
    lines = [
        f"texts: {count:,} {report.texts.origin}, {report.tokens / count:.0f} tokens on average, "
        f"{report.truncated / count:.1%} cut at {report.artefact.card.max_tokens}"
    ]
    for key in dict.fromkeys((contender.precision, contender.device) for contender in report.contenders):
        if rates := report.limits.get(key):
            best = max(rates, key=lambda rate: rate.flops)
            shape = " × ".join(map(str, best.shape))
            lines.append(
                f"limit of {key[0]} on {key[1]}: {_flops(best.flops)}/s, "
                f"matrix multiplication by {best.library} ({shape})"
            )
    if flops := report.artefact.flops_per_token:
        lines.append(f"a token costs {_flops(flops)}")
    for (package, processes), speeds in report.tokenizing.items():
        name = "one process" if processes == 1 else f"{processes} processes"
        lines.append(f"tokenising alone, {package}, {name}: {statistics.median(speeds):,.0f} tokens/s")
    lines.append(
        "tokens: real ones, padding not counted, tokenising included unless encoding is alone; "
        "batch: padded tokens, as the daemon's search found them; MiB: what it added to this process"
    )
    return lines


def _where(machine: dict[str, Any]) -> str:
    """The machine, in one line."""
    gpu = [machine["gpu"]] if machine["gpu"] else []
    packages = [f"{name} {version}" for name, version in machine["packages"].items()]
    cores, python = f"{machine['cores']} cores", f"Python {machine['python']}"
    return ", ".join([machine["processor"], cores, *gpu, python, *packages, machine["date"]])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _flops(number: float) -> str:
    """A number of operations, with the unit that keeps it short."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if number >= size:
            return f"{number / size:.3g} {unit}FLOP"
    return f"{number / 1e6:.3g} MFLOP"
