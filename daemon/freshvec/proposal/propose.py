"""The proposal: of the tables that were found, which to keep, from which columns, by which model, at what
cost."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from freshvec.encoding.loading import Models
from freshvec.encoding.rate import Rates
from freshvec.errors import SchemaError
from freshvec.proposal.choice import Choice, choose
from freshvec.proposal.columns import chosen
from freshvec.proposal.survey import Survey, Table
from freshvec.schema.cost import Cost, Layout, Sampled, of_sample


@dataclass(frozen=True)
class Candidate:
    """A table that can be kept, its columns to embed, and what that takes."""

    table: Table
    columns: tuple[str, ...]
    cost: Cost


@dataclass(frozen=True)
class Proposal:
    """The candidates, those with most to read first, and the model."""

    candidates: tuple[Candidate, ...]
    choice: Choice
    vector_type: str


def propose(
    found: Survey, models: Models, model: str | None, columns: tuple[str, ...], *, measure: bool
) -> Proposal:
    """What to make of a survey. `model` and `columns` are those that were asked for, if any.

    Raises ModelError, and SchemaError for columns that a table has not, and where no table has texts.
    """
    taken = [(table, columns or chosen(table.columns)) for table in found.tables if not table.trouble]
    taken = [(table, names) for table, names in taken if names]
    for table, names in taken:
        _check(table, names)
    if not taken:
        raise SchemaError("propose", "a sync", *_nothing(found))
    texts = [text for table, names in taken for text in table.texts(names) if text]
    rates = Rates(models, is_tried=measure)
    choice = choose(models, model, texts, rates)
    candidates = [Candidate(*each, _cost(*each, choice, found.server.vector_type, rates)) for each in taken]
    candidates.sort(key=lambda candidate: -candidate.cost.tokens)
    return Proposal(tuple(candidates), choice, found.server.vector_type)


def sync_names(candidates: Sequence[Candidate]) -> list[str]:
    """A name for each, as the configuration takes it: the table's, with the schema where two have one."""
    names: list[str] = []
    for candidate in candidates:
        table = candidate.table
        for parts in ((table.name,), (table.schema, table.name), (str(table.oid), table.name)):
            name = re.sub(r"[^a-z0-9_]+", "_", "_".join(parts).lower()).strip("_")[:40]
            name = name if name[:1].isalpha() else f"sync_{name}"[:40]
            if name not in names:
                break
        names.append(name)
    return names


def _cost(table: Table, names: tuple[str, ...], choice: Choice, kind: str, rates: Rates) -> Cost:
    assert table.extent is not None
    card = choice.card
    layout = Layout(card.dimension, card.max_tokens, kind, key_columns=1)
    rows = [Sampled(text) for text in table.texts(names)]

    def rate(texts: Sequence[str]) -> float | None:
        return rates.rate(card.name, texts) if choice.is_exported else None

    return of_sample(rows, table.extent, layout, choice.lengths(rates), rate)


def _check(table: Table, names: tuple[str, ...]) -> None:
    known = [column.name for column in table.columns]
    missing = [name for name in names if name not in known]
    if missing:
        raise SchemaError(
            "take",
            f"column {missing[0]!r} of table {table.full_name}",
            "it has no such column of text",
            f"Its columns of text are: {', '.join(known)}.",
        )


def _nothing(found: Survey) -> tuple[str, str]:
    """Why nothing can be proposed, and what to do."""
    refused = [table for table in found.tables if table.trouble]
    if refused:
        first = refused[0]
        return f"of {len(refused)} tables with texts none can be kept; {first.full_name}: {first.trouble}", (
            first.remedy
        )
    if found.tables:
        names = ", ".join(table.full_name for table in found.tables[:5])
        return (
            f"no column of {names} looks like prose",
            "Name one: --table schema.table --columns title,body.",
        )
    where = f"database {found.server.database}, as {found.server.user},"
    return (
        f"{where} has no table with a column of text",
        "Check the database in --url, and the role's rights.",
    )
