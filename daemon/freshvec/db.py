"""Connections, named queries, and the one seam where driver errors become ours."""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, LiteralString, Protocol

import psycopg
from psycopg import sql
from psycopg.abc import Params, QueryNoTemplate
from pydantic import SecretStr

from freshvec import logs
from freshvec.errors import DatabaseError
from freshvec.pooler import shares_sessions

Connection = psycopg.Connection[tuple[Any, ...]]


class Session(Protocol):
    """What queries need: a connection, or what stands for one (pipeline/pool.py)."""

    def execute(
        self,
        query: QueryNoTemplate,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
    ) -> psycopg.Cursor[tuple[Any, ...]]: ...

    def transaction(self) -> AbstractContextManager[object]: ...

    def cursor(self) -> psycopg.Cursor[tuple[Any, ...]]: ...


# Advisory locks of freshvec: the class is fixed (the letters "fvec"), the object says what is locked.
LOCK_CLASS = 0x66766563
MIGRATE_LOCK = 0
WRITE_LOCK_CLASS = LOCK_CLASS + 1  # shared by whoever writes a sync's target, exclusive for who must be alone
BELL_LOCK_CLASS = LOCK_CLASS + 2  # exclusive while a sync's keeper wants to be rung (capture/bell.py)
LEAD_LOCK_CLASS = LOCK_CLASS + 4  # held by the one that leads those who share a sync (worker/shares.py)
SHARD_LOCK_CLASS = LOCK_CLASS + 5  # held by the owner of a shard; the object is 64 * id + shard
INDEX_LOCK_CLASS = LOCK_CLASS + 3  # held by who builds or drops the indexes of a sync (target/building.py)

BODY_QUOTE = "$freshvec$"  # what the bodies of functions are quoted by in .sql files

# Whatever shapes a row's text, or may end a session of ours early, is pinned: rendering must not depend on
# whose session it is, or the same row would have two hashes. With row security off Postgres refuses to leave
# rows out, where it would otherwise hide them and they would be taken for deleted. Plans must not depend on
# how large the first batch was: probing by key is right for any batch, while a plan that scans the whole
# source, cached from one large batch, would be used for every small one that follows. A crash of Postgres
# loses a vector and the deletion of its queue entry together, so waiting for the disk at each commit would
# buy nothing.
# A table that its owner replaced by a view would run the view's functions with our rights: none is read. The
# path comes first, by a command that looks nothing up: who may set one for the database or the role must not
# have a function of theirs run here with our rights. A function whose body was cut short must be refused.
_SESSION = """
SET search_path = pg_catalog, pg_temp;
SELECT set_config(name, value, false) FROM (VALUES
  ('client_encoding', 'UTF8'), ('timezone', 'UTC'), ('datestyle', 'ISO, YMD'),
  ('intervalstyle', 'postgres'), ('extra_float_digits', '1'), ('bytea_output', 'hex'),
  ('standard_conforming_strings', 'on'), ('xmlbinary', 'base64'), ('xmloption', 'content'),
  ('lc_monetary', 'C'), ('lc_numeric', 'C'), ('lc_time', 'C'),
  ('default_text_search_config', 'pg_catalog.simple'),
  ('quote_all_identifiers', 'off'), ('array_nulls', 'on'), ('transform_null_equals', 'off'),
  ('row_security', 'off'), ('check_function_bodies', 'on'),
  ('default_transaction_isolation', 'read committed'),
  ('default_transaction_read_only', 'off'), ('default_transaction_deferrable', 'off'),
  ('statement_timeout', '0'), ('lock_timeout', '10s'), ('idle_in_transaction_session_timeout', '15s'),
  ('work_mem', '32MB'),
  ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('jit', 'off'),
  ('synchronous_commit', 'off'), ('exit_on_error', 'off'),
  ('freshvec.is_ours', 'on')
) AS setting(name, value)
UNION ALL
SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings
 WHERE name IN ('transaction_timeout', 'idle_session_timeout')
UNION ALL
SELECT set_config(name, 'view, foreign-table', false) FROM pg_catalog.pg_settings
 WHERE name = 'restrict_nonsystem_relation_kind'
"""
# That may end a session before it is pinned, and the version that began to know it; and the errors of that,
# which the client does not always hear.
_TIMEOUTS = {"statement_timeout": 0, "idle_session_timeout": 140000, "transaction_timeout": 170000}
_CUT_OFF = ("57014", "25P04", "57P05", None)
_SET_LATER = ("application_name", "client_encoding")
_KEEPALIVE: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15000,
}

_REMEDIES = {
    "28P01": "Check the user and password in database.url, PGPASSWORD or the password file.",
    "28000": "Check that pg_hba.conf lets this user in from here.",
    "3D000": "Create the database, or correct its name in database.url or PGDATABASE.",
    "42501": "Grant the right, or connect as the table's owner.",
    "42P01": "Check the table's name, and run `freshvec apply`.",
    "3F000": "Check the schema's name, and run `freshvec apply`.",
    "42703": "Correct the sync's columns, expression or where, then run `freshvec apply`.",
    "25006": "Name the primary server; with several hosts, add target_session_attrs=read-write.",
    "25P03": "This process stood still while it had locks, so they were taken back: try again.",
    "53300": "Raise max_connections, or close idle sessions.",
}
_AS_URL = "In database.url write % as %25, @ as %40, / as %2F and a space as %20."
_AS_WORDS = "In database.url put a value with spaces in single quotes; write \\' for one in it."
_ROW_SECURITY = (
    "Policies hide rows from this role. As a superuser: ALTER ROLE … BYPASSRLS; on the role of database.url."
)
_PUBLISHED = (
    "A publication asks for what the table's replica identity lacks: ALTER TABLE … REPLICA IDENTITY FULL; or "
    "take the table out of it."
)
# By the function of Postgres that says it: the words depend on the server's language.
_SAID_BY = {"check_enable_rls": _ROW_SECURITY, "CheckCmdReplicaIdentity": _PUBLISHED}
# A refused connection comes without a code, so the server's words must do.
_SAID = (
    (r'password authentication failed|no password supplied|role ".*" does not exist', "28P01"),
    (r"no pg_hba\.conf entry|pg_hba\.conf rejects", "28000"),
    (r'database ".*" does not exist', "3D000"),
    (r"permission denied for database", "42501"),
    (r"too many (clients|connections)|remaining connection slots", "53300"),
)
_RETRYABLE = ("08", "53", "57P0", "57014", "40", "55P03", "25P0", "25006", "58")


def connect(url: SecretStr, purpose: str) -> Connection:
    """A connection in autocommit mode, its session pinned. `purpose` shows in pg_stat_activity.

    Raises DatabaseError with what to do about it; also where a pooler would give the session to others.
    """
    logs.hide_url(url.get_secret_value())
    with translated("connect to", "the database"):
        params = _KEEPALIVE | _parsed(url)
        if params.get("password"):
            logs.hide(str(params["password"]))
        return _pinned(params, purpose)


def _pinned(params: dict[str, Any], purpose: str) -> Connection:
    """A connection whose session is pinned.

    A timeout of the role's must not cut off the very statements that take it away: where one may have, a
    second attempt brings all of them along from the start. Not the first, since a pooler would refuse that.
    """
    connection = _open(params)
    version = connection.info.server_version
    try:
        return _pin(connection, params, purpose)
    except psycopg.Error as error:
        if error.sqlstate not in _CUT_OFF:
            raise
    given = params.get("options") or os.environ.get("PGOPTIONS", "")
    off = [f"-c {name}=0" for name, since in _TIMEOUTS.items() if version >= since]
    unhurried = params | {"options": " ".join([given, *off])}
    return _pin(_open(unhurried), unhurried, purpose)


def _open(params: dict[str, Any]) -> Connection:
    return psycopg.connect(autocommit=True, **params)


def _pin(connection: Connection, params: dict[str, Any], purpose: str) -> Connection:
    """Set the session up, once it is known that nobody else will have it."""
    try:
        if shares_sessions(connection, lambda: _open(params)):
            raise _refused(connection)
        connection.execute(_SESSION)
        connection.execute("SELECT set_config('application_name', %s, false)", (f"freshvec {purpose}",))
        return connection
    except BaseException:
        connection.close()
        raise


def _refused(connection: Connection) -> DatabaseError:
    pooler = f"the pooler at {connection.info.host}, port {connection.info.port},"
    return DatabaseError(
        "connect to",
        "the database",
        f"{pooler} gives a session to another client after each transaction, and freshvec needs its own",
        "Write the address of Postgres itself into database.url (port 5432, mostly), or that of a pool in "
        "session mode.",
    )


def _parsed(url: SecretStr) -> dict[str, Any]:
    """What the URL says, but for what is set in the session: a pooler would set it in those of others."""
    try:
        params = psycopg.conninfo.conninfo_to_dict(url.get_secret_value())
        return {name: value for name, value in params.items() if name not in _SET_LATER}
    except psycopg.ProgrammingError as error:
        remedy = _AS_URL if "://" in url.get_secret_value() else _AS_WORDS
        raise DatabaseError(
            "connect to", "the database", f"its URL cannot be read: {error}", remedy
        ) from error


@contextmanager
def translated(operation: str, subject: str) -> Iterator[None]:
    """Turn what the driver raises inside into a DatabaseError; the driver's error stays its cause."""
    try:
        yield
    except psycopg.Error as error:
        state = error.sqlstate or ""
        problem = error.diag.message_primary or str(error).strip() or type(error).__name__
        lost = not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        said = next((meant for words, meant in _SAID if lost and re.search(words, problem)), "")
        remedy = _REMEDIES.get(state or said, "")
        remedy = _SAID_BY.get(error.diag.source_function or "", remedy)
        if lost and not remedy:
            remedy = "Check that Postgres runs and that database.url or PGHOST and PGPORT lead to it."
        lost = lost and said != "28P01"
        raise DatabaseError(
            operation, subject, problem, remedy, retryable=lost or state.startswith(_RETRYABLE)
        ) from error


def is_denied(error: BaseException) -> bool:
    """Whether what `translated` gave says that a right is lacking."""
    return getattr(error.__cause__, "sqlstate", None) == "42501"


@cache
def queries(name: str) -> dict[str, LiteralString]:
    """The blocks of `<name>.sql`, which stands beside its module; `name` is as in "capture/queue".

    Each begins with `-- name: purpose` and ends where the next begins.
    """
    text = files("freshvec").joinpath(f"{name}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- (\w+): .*\n", text, flags=re.MULTILINE)
    return {part: body.strip().rstrip(";") for part, body in zip(parts[1::2], parts[2::2], strict=True)}


def quoted_name(*names: str | None) -> str:
    """A quoted identifier, qualified where several are given, as a value or in a message."""
    return sql.Identifier(*(name for name in names if name is not None)).as_string()


def quoted(*names: str | None) -> sql.Composable:
    """The same in a query, which is then run with parameters, be they none: `()`."""
    return verbatim(quoted_name(*names))


def verbatim(text: str) -> sql.Composable:
    """SQL the user wrote. In a query with parameters a `%` would begin a placeholder, so it is doubled."""
    return sql.SQL(text.replace("%", "%%"))


def as_sent(statement: sql.Composable, connection: Connection | None = None) -> str:
    """The text that the server gets of a query without parameters."""
    return statement.as_string(connection).replace("%%", "%")


def finished(fragment: sql.Composable) -> sql.Composable:
    """The same SQL as one text, which costs nothing to use again."""
    text: Any = fragment.as_string()
    return sql.SQL(text)
