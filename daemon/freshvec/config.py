"""TOML and environment into frozen settings; every fault is reported at once."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from freshvec import logs
from freshvec.environment import PREFIX, FromOutside, credential_beside, misspelt, variable_of
from freshvec.errors import ConfigError, UsageError, meant
from freshvec.faults import address_or_off, at_home, describe, valid_address, valid_device
from freshvec.storage import Chunk, Chunked, Frozen, Index, TableName, Target, split_name

SEARCHED = ("freshvec.toml", "/etc/freshvec/freshvec.toml")
_ADVICE = "docs/configuration.md has every key; `freshvec init --output FILE` writes a sound file to compare."


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Folder = Annotated[Path, AfterValidator(at_home)]


class Database(Frozen):
    """How to reach Postgres. What is not set is left to libpq: PGHOST, PGUSER and PGPASSFILE work."""

    url: SecretStr = SecretStr("")
    """The URL of Postgres itself, as in `postgresql://me@localhost/shop`. A pool in transaction mode is
    refused."""
    replica: SecretStr = SecretStr("")
    """The URL of a physical replica that walks read the table from; vectors are written to the primary. It
    may lag. Default: the primary is read."""
    worker_role: str | None = None
    """The role that runs the daemon: `freshvec apply` grants it what `run` needs, and no more."""


class Daemon(Frozen):
    """How the daemon encodes, reads and writes, and where it keeps its models."""

    device: Annotated[str, AfterValidator(valid_device)] = "auto"
    """What encodes: `auto` (a GPU that works, else the CPU), `cpu`, `cuda`, `cuda:1`, `tensorrt`."""
    precision: Literal["fp32", "fp16", "bf16", "int8"] | None = None
    """How exactly it computes. bf16 needs OpenVINO and a processor with AMX. Default: fp16 on a GPU; on a CPU
    fp32, or bf16 where a trial finds it quicker and the vectors there are do not say otherwise. Vectors of
    bf16 and of int8 compare with their own kind alone."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the encoder. Default: as many as the cgroup and the affinity allow."""
    batch_tokens: int | None = Field(default=None, ge=16)
    """Tokens per batch, padding included. Default: found by measuring, and kept for the next start."""
    commit_every_batches: int = Field(default=5, ge=1)
    """Encoded batches that are written in one transaction. A live change never waits for others."""
    commit_every_seconds: float = Field(default=1.0, gt=0, le=10**9)
    """Seconds after which what is encoded is written, however little it is."""
    prove_every_hours: float = Field(default=24.0, gt=0, le=10**6)
    """Hours after which every row is compared again, slowly, whether or not anything was noted."""
    prove_vectors: int = Field(default=1000, ge=0)
    """Rows, chosen at random, whose texts are encoded again then, to compare the vectors themselves."""
    wake: Literal["bell", "poll"] = "bell"
    """How changes are heard of: `bell` (writers notify while it is quiet), or `poll` (they never do)."""
    pause_at_lag_seconds: float | None = Field(default=None, gt=0, le=10**9)
    """Walks and bulk changes pause while a replica replays later than this many seconds, or checkpoints fall
    behind `max_wal_size`. Live changes never pause. Default: nothing does."""
    sweep_seconds: float = Field(default=30.0, gt=0, le=10**9)
    """Seconds between looks at every queue without a notification: it finds what no bell announced."""
    shutdown_seconds: float = Field(default=10.0, gt=0, le=10**9)
    """Seconds that SIGTERM leaves to write what was read. Nothing is lost when they do not suffice."""
    page_rows: int | None = Field(default=None, ge=1)
    """Rows per page of a backfill. Default: 1,000, with a GPU 2,048."""
    models_dir: Folder | None = None
    """Exported models. Default: `/var/lib/freshvec/models` for root's exports, for those of others
    `~/.local/share/freshvec/models`; a model is looked for in both."""
    catalogue_dirs: tuple[Folder, ...] = ()
    """Folders with more model descriptions (TOML) than those that come with freshvec."""
    serve: Annotated[str, AfterValidator(valid_address)] | None = None
    """The address at which `run` answers embeddings requests, as in `127.0.0.1:8377`. Default: none."""
    share: bool = False
    """Whether workers share each sync, as with `--workers` and `--on`; else one keeps it, others stand by."""
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe messages that are logged."""
    log_format: Literal["text", "json"] = "text"
    """How they are logged, on standard error."""


class Web(Frozen):
    """The page, the metrics and the health checks of `freshvec run`; they need `freshvec[serve]`."""

    address: Annotated[str, AfterValidator(address_or_off)] = "127.0.0.1:8378"
    """Where they are: `/` the page, `/metrics` for Prometheus, `/healthz`, `/readyz`; `off` for nowhere. What
    others can reach needs a key in `FRESHVEC_API_KEY`. Where the default is taken, `run` goes on without."""
    rows: bool = False
    """Whether the page may show what is in rows: a search box, the rows that failed, the log. Whoever has an
    account on this machine can open the page."""


class Sync(Frozen):
    """One source table, its text, one model, one target."""

    name: Name
    """Its name in commands and messages: lower-case letters, digits and _, at most 40, a letter first."""
    table: TableName
    """The source table, as `schema.table`. It needs a primary key, or a unique index on NOT NULL columns."""
    columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The columns whose texts are embedded, joined by newlines. Write either this or `expression`."""
    expression: Annotated[str, StringConstraints(min_length=1)] | None = None
    """The text in SQL, as in `title || ': ' || body`. Functions must be schema-qualified."""
    where: Annotated[str, StringConstraints(min_length=1)] | None = None
    """An SQL condition over the row. Rows that do not meet it have no embedding."""
    model: str
    """A name from `freshvec models`, of a model that was fetched or exported beforehand."""
    queue_bytes: int = Field(default=2**30, ge=2**16)
    """Bytes of queue after which, with no worker to read it, changes are noted no more and the table is
    walked."""
    target: Target = Target()
    """Where its vectors lie, as in `target = { type = "halfvec" }`."""
    chunk: Chunked | None = None
    """Whether texts are cut into passages with a vector each, as in `chunk = { tokens = 200, overlap = 30 }`.
    Default: no; what a text has beyond the model's limit is then left out, and counted."""
    index: Index | None = None
    """The index on them, as in `index = { type = "hnsw" }`. Default: none; freshvec then leaves it to you."""

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if (self.columns is None) == (self.expression is None):
            raise ValueError('it needs a text: write either columns = ["title", "body"] or expression = "…"')
        for text in (self.expression, self.where):
            if text and ("$freshvec$" in text or ";" in text):
                raise ValueError(
                    "an SQL expression must not contain ';' or '$freshvec$'; write one plain expression"
                )
        if self.chunk is not None and self.target.type == "real[]":
            raise ValueError(
                'real[] holds whole texts; write target = { type = "vector" }, or take chunk out'
            )
        if self.chunk is not None and self.target.column is not None:
            raise ValueError("a column holds one vector per row; take chunk out, or column out of target")
        if self.target.column is not None and self.target.column in (self.columns or ()):
            raise ValueError(
                f"{self.target.column!r} cannot be text and vector at once; name two columns in columns and "
                "target"
            )
        if self.index is not None and self.target.type == "real[]":
            raise ValueError(
                'real[] can have no index; write target = { type = "halfvec" }, or take index out'
            )
        return self

    @property
    def target_name(self) -> tuple[str | None, str]:
        schema, table = split_name(self.table)
        if self.target.table is None:
            return schema, f"{table}_embedding"
        own_schema, own_table = split_name(self.target.table)
        return own_schema or schema, own_table


def _shared_columns(syncs: tuple[Sync, ...]) -> list[str]:
    """Faults of syncs that write into one column."""
    found, faults = dict[tuple[str, str, str], str](), []
    for sync in syncs:
        if sync.target.column is not None:
            schema, table = split_name(sync.table)
            other = found.setdefault((schema or "public", table, sync.target.column), sync.name)
            if other != sync.name:
                faults.append(
                    f"syncs {other!r} and {sync.name!r} both write into column {sync.target.column!r} of "
                    f"{sync.table}; give {sync.name!r} a column of its own"
                )
    return faults


_SECTIONS: dict[str, type[Frozen]] = {"database": Database, "daemon": Daemon, "web": Web}


class Settings(Frozen):
    database: Database = Database()
    daemon: Daemon = Daemon()
    web: Web = Web()
    sync: tuple[Sync, ...] = ()

    @model_validator(mode="after")
    def _apart(self) -> Self:
        names = [sync.name for sync in self.sync]
        twice = sorted({name for name in names if names.count(name) > 1})
        faults = [f"two syncs are called {name!r}; give each a name of its own" for name in twice]
        targets: dict[tuple[str | None, str], str] = {}
        for sync in self.sync:
            schema, table = sync.target_name
            if len((table + "_embedded").encode()) > 63:
                faults.append(
                    f"sync {sync.name!r}: the target's name {table!r} is too long for Postgres; "
                    'write a shorter target = { table = "…" }'
                )
            other = targets.setdefault((schema or "public", table), sync.name)
            if other != sync.name:
                faults.append(
                    f"syncs {other!r} and {sync.name!r} both write to {table!r}; "
                    f'give {sync.name!r} its own target = {{ table = "…" }}'
                )
        faults += _shared_columns(self.sync)
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def find(self, name: str | None) -> tuple[Sync, ...]:
        """The sync called `name`, or all. Raises UsageError, ConfigError when there is none."""
        if name is None:
            if not self.sync:
                fault = "none is declared; add one with name, table, columns and model"
                raise ConfigError("freshvec.toml", [f"[[sync]]: {fault}; `freshvec init` proposes some"])
            return self.sync
        found = tuple(sync for sync in self.sync if sync.name == name)
        if not found:
            names = [sync.name for sync in self.sync]
            known = ", ".join(names) or "none"
            raise UsageError(f"there is no sync {name!r}; declared are: {known}{meant(name, names)}")
        return found


class _Loaded(Settings, FromOutside):
    """Settings of the file, with those of the environment and of credentials over them."""

    model_config = FromOutside.model_config


def load(path: Path | None = None) -> Settings:
    """Settings from the file and the environment; the environment wins over all but `[[sync]]`.

    Raises ConfigError that lists every fault: the key, what is wrong, and what to write instead.
    """
    origin, document = _read(path)
    faults = misspelt(_SECTIONS)
    try:
        url = credential_beside(Path(origin))
        if url and isinstance(document.setdefault("database", {}), dict):
            document["database"]["url"] = url
        settings = _Loaded(**document)
    except ValidationError as error:
        found = [describe(detail, _siblings(detail), variable_of(detail["loc"])) for detail in error.errors()]
        faults += [fault for part in found for fault in part.split("\n") if fault]
    except (SettingsError, OSError, UnicodeDecodeError) as error:
        faults.append(f"a credential, as database_url, cannot be read: {error}")
    if faults:
        raise ConfigError(origin, faults, _ADVICE)
    for secret in (settings.database.url, settings.database.replica):
        logs.hide_url(secret.get_secret_value())
    return settings


def file_of(path: Path | None = None) -> Path | None:
    """The file that is read: the one that is named, here or by FRESHVEC_CONFIG, or the first that exists."""
    if path is None and os.environ.get(f"{PREFIX}CONFIG"):
        path = Path(os.environ[f"{PREFIX}CONFIG"])
    # Not Path.exists, which raises in a folder that this user may not look into.
    return path or next((Path(name) for name in SEARCHED if os.access(name, os.F_OK)), None)


def _read(path: Path | None) -> tuple[str, dict[str, Any]]:
    path = file_of(path)
    if path is None:
        advice = "`freshvec init` looks at your database and writes one; name another with --config"
        raise ConfigError(SEARCHED[0], [f"there is none here nor at {SEARCHED[1]}; {advice}"])
    try:
        return str(path), tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        fault = f"it cannot be read: {error.strerror}; `freshvec init --output {path}` writes one"
        raise ConfigError(str(path), [fault]) from error
    except PermissionError as error:
        remedy = f"as its owner or root: chmod a+rX {path.parent} {path}"
        raise ConfigError(str(path), [f"it cannot be read: {error.strerror}; {remedy}"]) from error
    except OSError as error:
        raise ConfigError(str(path), [f"it cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"it is not valid TOML: {error}"], _ADVICE) from error


def _siblings(detail: ErrorDetails) -> list[str]:
    keys: dict[str, type[Frozen]] = {**_SECTIONS, "sync": Sync, "target": Target}
    keys |= {"chunk": Chunk, "index": Index}
    parents = [part for part in detail["loc"][:-1] if isinstance(part, str)]
    model = keys.get(parents[-1], Settings) if parents else Settings
    return list(model.model_fields)
