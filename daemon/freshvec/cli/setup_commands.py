"""Commands for who begins, or is in trouble: init, doctor."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import SecretStr

from freshvec.cli.app import ConfigOption, JsonOption, ModelsDirOption, app, say, with_models_dir
from freshvec.config import Settings
from freshvec.errors import FreshvecError, UsageError

if TYPE_CHECKING:
    from freshvec.proposal.propose import Candidate, Proposal
    from freshvec.proposal.survey import Survey

_URL = "FRESHVEC_DATABASE_URL"
_OUTPUT = Path("freshvec.toml")


@app.command(
    epilog="Examples: freshvec init; freshvec init --url postgresql://me@localhost/shop; "
    "freshvec init --yes --table public.articles --columns title,body --output /etc/freshvec/freshvec.toml"
)
def init(
    url: Annotated[
        str | None,
        typer.Option(help=f"The database. Default: {_URL}, else PGHOST, PGDATABASE and the rest."),
    ] = None,
    table: Annotated[
        list[str] | None, typer.Option("--table", "-t", help="A table to keep; may be repeated.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="The columns to embed of the one table, as in title,body.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A name from `freshvec models`.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "freshvec.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; write what is proposed.")] = False,
    measure: Annotated[
        bool, typer.Option(help="Load the model for a second, to tell how long encoding takes here.")
    ] = True,
    models_dir: ModelsDirOption = None,
) -> None:
    """Look at a database, propose what to embed and by which model, and write a commented freshvec.toml.

    Reads some hundred rows of the largest tables, changes nothing in the database, and asks once.
    """
    from freshvec.db import connect
    from freshvec.encoding.loading import Models
    from freshvec.proposal.propose import propose
    from freshvec.proposal.survey import survey

    tables, names = tuple(table or ()), tuple(name.strip() for name in (columns or "").split(",") if name)
    _check(output, tables, names, force=force, yes=yes)
    given = url if url is not None else os.environ.get(_URL, "")
    with connect(SecretStr(given), "init") as connection:
        found = survey(connection, tables)
    models = Models(with_models_dir(Settings(), models_dir))
    proposal = propose(found, models, model, names, measure=measure)
    wanted = list(proposal.candidates) if tables else [proposal.candidates[0]]
    _settle(found, proposal, wanted, output, url or "", models_dir, force=force, yes=yes)


def _settle(
    found: "Survey",
    proposal: "Proposal",
    wanted: "list[Candidate]",
    output: Path,
    url: str,
    models_dir: Path | None,
    *,
    force: bool,
    yes: bool,
) -> None:
    """Show what was found and is proposed, ask, write the file, and say what comes next."""
    from freshvec.cli import init_view
    from freshvec.proposal import file

    for line in (*init_view.found(found, proposal), *init_view.proposed(proposal, wanted)):
        say(line)
    if not yes:
        wanted = _ask(proposal, wanted, output)
    written = file.text(proposal, wanted, found.server, url, models_dir)
    _write(output, written, force=force)
    had_password = file.without_password(url)[1]
    say("")
    for line in init_view.next_steps(found, proposal, output, had_password=had_password):
        say(line)


def _check(
    output: Path, tables: tuple[str, ...], columns: tuple[str, ...], *, force: bool, yes: bool
) -> None:
    """What can be seen before anything is looked at. Raises FreshvecError, UsageError."""
    if os.access(output, os.F_OK) and not force:
        raise _taken(output)
    if columns and len(tables) != 1:
        raise UsageError("--columns goes with one --table; name the table")
    if not yes and not sys.stdin.isatty():
        problem = "there is nobody to ask: standard input is no terminal; add --yes"
        raise UsageError(f"{problem}, and --table where another one is wanted")


def _taken(output: Path) -> FreshvecError:
    return FreshvecError(
        "write", str(output), "it is there already", "Add --force, or name another --output."
    )


def _ask(proposal: "Proposal", wanted: "list[Candidate]", output: Path) -> "list[Candidate]":
    """The one question: the tables to keep. Ends where nothing is wanted."""
    candidates = proposal.candidates
    proposed = ",".join(str(candidates.index(each) + 1) for each in wanted)
    say("")
    while True:
        question = f"Write {output}? Enter for yes, numbers for these tables, n for no"
        answer = typer.prompt(question, default=proposed, show_default=True).strip().lower()
        if answer in ("n", "no"):
            raise typer.Exit(1)
        if answer in ("y", "yes"):
            return wanted
        numbers = [part for part in answer.replace(",", " ").split() if part.isdecimal()]
        places = [int(number) - 1 for number in numbers]
        if places and all(0 <= place < len(candidates) for place in places):
            return [candidates[place] for place in dict.fromkeys(places)]
        say(f"There are tables 1 to {len(candidates)}.")


def _write(output: Path, written: str, *, force: bool) -> None:
    """The file, whole or not at all, for every user to read. Raises FreshvecError."""
    scratch = output.with_name(f".{output.name}.new")
    try:
        _make(output.parent)
        scratch.write_text(written, encoding="utf-8")
        scratch.chmod(0o644)  # no password is in it, and the service is another user
        if not force:
            os.link(scratch, output)  # it may have come meanwhile
            scratch.unlink()
        else:
            scratch.replace(output)
    except FileExistsError:
        scratch.unlink(missing_ok=True)
        raise _taken(output) from None
    except OSError as error:
        remedy = "Name another place with --output."
        raise FreshvecError("write", str(output), error.strerror or str(error), remedy) from error


def _make(folder: Path) -> None:
    """A folder, and those above it, into which every user may look, whatever the umask."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir()
    folder.chmod(0o755)


@app.command(
    epilog="Examples: freshvec doctor; freshvec doctor --strict --json. Exit codes: 0 no fault, 1 a fault; "
    "with --strict also 1 for a warning. It writes nothing but the record of a few empty transactions."
)
def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings, too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave out what is in order.")] = False,
    as_json: JsonOption = False,
    config_path: ConfigOption = None,
) -> None:
    """Look for what is wrong: device, models, database, roles, triggers, load. Say why, and what mends it."""
    from freshvec.cli import doctor_view
    from freshvec.doctor.examine import examine
    from freshvec.doctor.finding import Severity

    findings = []
    for finding in examine(config_path):
        findings.append(finding)
        if not as_json and not (quiet and finding.severity is Severity.OK):
            say(doctor_view.text(finding))
    say(doctor_view.as_json(findings) if as_json else f"\n{doctor_view.summary(findings)}")
    if max(finding.severity for finding in findings) >= (Severity.WARNING if strict else Severity.FAULT):
        raise typer.Exit(1)
