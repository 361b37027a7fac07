"""The file: a commented freshvec.toml that says what was found. A password is never written."""

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from psycopg import conninfo

from freshvec.proposal.propose import Candidate, Proposal, sync_names
from freshvec.proposal.survey import Server

_SECRETS = ("password", "sslpassword")


def without_password(url: str) -> tuple[str, bool]:
    """The connection's URL or words without a password, and whether there was one."""
    params = conninfo.conninfo_to_dict(url)
    if not any(params.get(name) for name in _SECRETS):
        return url, False
    kept: dict[str, Any] = {name: value for name, value in params.items() if name not in _SECRETS}
    short = re.sub(r"^(postgres(?:ql)?://[^:@/?]*):[^@/]*@", r"\1@", url)
    if short.startswith("postgres") and conninfo.conninfo_to_dict(short) == kept:
        return short, True
    return conninfo.make_conninfo(**kept), True


def text(
    proposal: Proposal, wanted: Sequence[Candidate], server: Server, url: str, models_dir: Path | None
) -> str:
    """The file's text: syncs of what is wanted, and of the others in comments. `url` is "" where the
    environment has it."""
    return "\n".join(_lines(proposal, wanted, server, url, models_dir)) + "\n"


def _lines(
    proposal: Proposal, wanted: Sequence[Candidate], server: Server, url: str, models_dir: Path | None
) -> Iterator[str]:
    yield f"# Written by `freshvec init` on {date.today()}, from database {server.database}."
    yield "# docs/configuration.md has every key. Next: freshvec plan, then freshvec run."
    yield ""
    yield "[database]"
    shown, had_password = without_password(url)
    if url:
        yield f"url = {_quoted(shown)}"
    else:
        yield '# url = "postgresql://me@localhost/shop"   # not written: the environment has it (PGHOST …)'
    if had_password:
        yield "# Its password is not written here: give it as PGPASSWORD or in ~/.pgpass, to the service as"
        yield "# its credential database_url (README, As a service)."
    yield '# worker_role = "freshvec_worker"   # the role of the service, where the owner applies'
    yield ""
    yield "[daemon]"
    if models_dir is not None:
        yield f"models_dir = {_quoted(str(models_dir))}"
    yield '# device = "auto"           # a GPU that works, else the CPU; or cpu, cuda, cuda:1, tensorrt'
    yield '# serve = "127.0.0.1:8377"  # embed the application\'s searches there, by `freshvec run`'
    ordered = [*wanted, *(each for each in proposal.candidates if each not in wanted)]
    for candidate, name in zip(ordered, sync_names(ordered), strict=True):
        yield ""
        lines = list(_sync(candidate, name, proposal))
        if candidate in wanted:
            yield from lines
            continue
        yield "# Found as well; without the # before each line it is kept, too."
        yield from (f"# {line}" for line in lines if not line.startswith("#"))


def _sync(candidate: Candidate, name: str, proposal: Proposal) -> Iterator[str]:
    table, cost = candidate.table, candidate.cost
    cut = f"; {cost.cut:.0%} are cut at {cost.max_tokens}" if cost.cut else ""
    yield (
        f"# {cost.rows:,} rows, {cost.texts:,} with a text. Half of the texts have at most "
        f"{cost.longest(0.5)} tokens{cut}."
    )
    yield "[[sync]]"
    yield f"name    = {_quoted(name)}"
    yield f"table   = {_quoted(table.full_name)}"
    yield f"columns = [{', '.join(map(_quoted, candidate.columns))}]   # joined by newlines"
    others = [column for column in table.columns if column.name not in candidate.columns]
    if others:
        left = ", ".join(f"{column.name} ({column.reason or 'not asked for'})" for column in others)
        yield from textwrap.wrap(f"Not taken: {left}.", 100, initial_indent="# ", subsequent_indent="# ")
    yield '# where = "published"   # an SQL condition; other rows have no embedding'
    yield f"model   = {_quoted(proposal.choice.card.name)}"
    yield f"target  = {{ type = {_quoted(proposal.vector_type)} }}{_NOTES[proposal.vector_type]}"
    if proposal.vector_type == "real[]":
        return
    if cost.cut:
        yield f'# chunk = "auto"   # a vector per passage, for the {cost.cut:.0%} that are cut'
    hidden = "" if cost.texts >= _WORTH_AN_INDEX else "# "
    yield f'{hidden}index   = {{ type = "hnsw" }}   # built once every row has its vector'


_WORTH_AN_INDEX = 10_000  # vectors: fewer are searched in a few milliseconds without one
_NOTES = {
    "halfvec": "   # half the room of vector",
    "vector": "",
    "real[]": "   # without pgvector: exact search only, no index",
}


def _quoted(value: str) -> str:
    """A TOML string."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
