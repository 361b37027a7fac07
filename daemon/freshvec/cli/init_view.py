"""What `freshvec init` shows: the tables it found, what keeps others from being kept, and what comes next."""

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from freshvec.cli import amounts, cost_view
from freshvec.config import SEARCHED
from freshvec.proposal.propose import Candidate, Proposal
from freshvec.proposal.survey import Survey

_WIDTH = 78
_NAMED = 4  # tables without prose


def found(survey: Survey, proposal: Proposal) -> Iterator[str]:
    """The database, the tables that can be kept, numbered, and those that cannot."""
    server = survey.server
    vector = f"pgvector {server.vector}" if server.vector else "no pgvector"
    yield f"Database {server.database}, as {server.user}: PostgreSQL {server.version}, {vector}."
    yield ""
    for number, candidate in enumerate(proposal.candidates, 1):
        yield from _candidate(number, candidate)
    without = [table for table in survey.tables if not table.trouble and table not in _taken(proposal)]
    if without:
        names = ", ".join(table.full_name for table in without[:_NAMED])
        more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
        yield from _wrapped(f"No prose in {names}{more}.", "")
    for table in survey.tables:
        if table.trouble:
            yield from _wrapped(f"{table.full_name} cannot be kept: {table.trouble}. {table.remedy}", "")
    if survey.unseen:
        yield from _wrapped(
            f"{survey.unseen:,} smaller tables were not looked into; name one with --table schema.table.", ""
        )


def proposed(proposal: Proposal, wanted: Sequence[Candidate]) -> Iterator[str]:
    """The model, and what the wanted tables take."""
    choice = proposal.choice
    state = "exported here" if choice.is_exported else "not exported yet: lengths are estimated"
    yield ""
    yield f"Model {choice.card.name}: {choice.card.dimension} dimensions, {state}."
    if choice.advice:
        yield from _wrapped(choice.advice, "")
    for candidate in wanted:
        yield ""
        yield f"{candidate.table.full_name} ({', '.join(candidate.columns)})"
        yield from (f"  {line}" for line in cost_view.lines(candidate.cost))
        if candidate.table.vectors:
            has = f"has vectors already, in {', '.join(candidate.table.vectors)}"
            tells = "`freshvec plan --adopt auto` tells whether they can be taken over"
            yield from _wrapped(f"{has}: {tells}", "  ")


def next_steps(survey: Survey, proposal: Proposal, output: Path, *, had_password: bool) -> Iterator[str]:
    """What was written, and the commands that come next."""
    yield f"Wrote {output}. Next:"
    where = "" if str(output) in SEARCHED else f" --config {shlex.quote(str(output))}"
    steps = []
    if had_password:
        steps.append(("export PGPASSWORD=…", "the password is not in the file; or ~/.pgpass"))
    if not proposal.choice.is_exported:
        steps.append((f"{proposal.choice.card.command}{where}", "once"))
    if survey.server.vector is None and survey.server.available:
        steps.append((f"psql {survey.server.database} -c 'CREATE EXTENSION vector'", "as a superuser"))
    steps.append((f"freshvec run{where}", "backfill, then fresh for good"))
    steps.append((f'freshvec search "…"{where}', "in another terminal"))
    width = max(len(command) for command, _ in steps)
    yield from (f"  {command:<{width}}  # {purpose}" for command, purpose in steps)


def _candidate(number: int, candidate: Candidate) -> Iterator[str]:
    table = candidate.table
    assert table.extent is not None
    below = f", {table.extent.tables} partitions" if table.is_partitioned else ""
    size = amounts.size(table.extent.bytes)
    yield f"{number:>3}  {table.full_name}: {candidate.cost.rows:,} rows, {size}{below}"
    shown = [
        f"{column.name} ({column.characters:,.0f} characters, {column.distinct:.0%} distinct)"
        for column in table.columns
        if column.name in candidate.columns
    ]
    yield from _wrapped(", ".join(shown), " " * 5)
    left = [column.name for column in table.columns if column.name not in candidate.columns]
    if left:
        yield from _wrapped(f"not {', '.join(left)}", " " * 5)
    yield from _wrapped(cost_view.short(candidate.cost), " " * 5)
    yield ""


def _taken(proposal: Proposal) -> list[object]:
    return [candidate.table for candidate in proposal.candidates]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent or "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
