"""What an export shows: its steps as they begin, then a table of its graphs, and why one is not installed."""

import time
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from freshvec.models.artefact import Artefact


class ExportView:
    """Shows the steps of one export; `export` calls `step` as its report."""

    def __init__(self, console: Console, model: str) -> None:
        self._console = console
        self._model = model
        self._started = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                console=console,
            )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(f"exporting {self._model}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.remove_task(self._task)
            self._bar.stop()

    def step(self, doing: str) -> None:
        """Another step begins."""
        if self._bar:
            self._bar.update(self._task, description=f"{self._model}: {doing}")
        took = f"{time.monotonic() - self._started:5.1f} s"
        self._console.print(Text.assemble((took, "dim"), f"  {doing}"), soft_wrap=True)

    def report(self, made: Artefact) -> None:
        """Print the graphs: cosines against torch fp32, and of texts in a batch against alone; speed here."""
        headings = "graph", "size", "worst cosine", "mean", "in a batch", "× fp32", "took", "installed"
        table = Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for precision, graph in made.graphs.items():
            speed = "GPU only" if precision == "fp16" else f"{graph.speed:.2f}"
            table.add_row(
                precision,
                f"{graph.megabytes:.0f} MB",
                f"{graph.worst_cosine:.6f}",
                f"{graph.mean_cosine:.6f}",
                f"{graph.worst_batched:.6f}",
                speed,
                f"{graph.seconds:.1f} s",
                "yes",
            )
        for precision in made.rejected:
            table.add_row(precision, *["–"] * 6, "no")
        self._console.print(table)
        for precision, problem in made.rejected.items():
            self._console.print(f"{precision} is not installed: {problem}.", soft_wrap=True)
        self._console.print(f"{self._model} is installed in {made.folder}", soft_wrap=True)
