"""What the catalogue shows: a table of the models, or one whole card with what is exported of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from freshvec.cli.status_view import fits
from freshvec.models.artefact import Artefact
from freshvec.models.catalogue import ModelCard


def show(console: Console, cards: Sequence[ModelCard], exported: Mapping[str, Artefact]) -> None:
    """The table where all of it fits, else two lines per model: no name may be cut."""
    wide = table(cards, exported)
    if fits(console, wide):
        console.print(wide)
        return
    for card in cards:
        parts = [f"{_dimension(card)} dimensions", f"{card.max_tokens} tokens", card.pooling, card.licence]
        parts += [] if "model.safetensors" in card.sha256 else ["not pinned"]
        made = _exported(card, exported.get(card.name))
        line = f"  {', '.join(parts)}{'; exported: ' * bool(made)}{made}"
        console.print(f"{card.name}\n{line}", soft_wrap=True)


def table(cards: Sequence[ModelCard], exported: Mapping[str, Artefact]) -> Table:
    """One line per model; `exported` holds, by name, those that are exported here."""
    shown = Table(
        "model",
        "dimension",
        "tokens",
        "pool",
        "fp16",
        "licence",
        "pinned",
        "exported",
        box=None,
        padding=(0, 1),
    )
    shown.columns[0].no_wrap = True
    for card in cards:
        made = exported.get(card.name)
        shown.add_row(
            card.name,
            _dimension(card),
            str(card.max_tokens),
            card.pooling,
            card.fp16,
            card.licence,
            "yes" if "model.safetensors" in card.sha256 else "no",
            _exported(card, made),
        )
    return shown


def _dimension(card: ModelCard) -> str:
    return f"{card.dimension} to {min(card.matryoshka)}" if card.matryoshka else f"{card.dimension}"


def _exported(card: ModelCard, made: Artefact | None) -> str:
    return " ".join(made.graphs) if made else ""


def show_one(console: Console, card: ModelCard, made: Artefact | None) -> None:
    """Print every key of a card, the installed graphs, and why a graph is not installed."""
    for key, value in card.model_dump().items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for part, content in parts:
            line = Text.assemble((key, "bold"), f"{'.' * bool(part)}{part} = {content!r}")
            console.print(line, soft_wrap=True)
    if made is None:
        console.print(f"It is not here yet; run: {card.command}", soft_wrap=True)
        return
    console.print(f"Exported to {made.folder}:", soft_wrap=True)
    for precision, graph in made.graphs.items():
        cosine = f"worst cosine against torch fp32 {graph.worst_cosine:.6f}"
        console.print(f"  {precision}: {graph.megabytes:.0f} MB, {cosine}")
    for precision, problem in made.rejected.items():
        console.print(f"  {precision}: not installed: {problem}", soft_wrap=True)


def graphs_of(made: Artefact | None) -> dict[str, Any] | None:
    """What is exported of a model, as JSON; None where nothing is."""
    if made is None:
        return None
    graphs = {precision: graph.model_dump() for precision, graph in made.graphs.items()}
    return {"folder": str(made.folder), "graphs": graphs, "rejected": made.rejected}
