"""Where a table's vectors are already: in a column of its own, or in another table that has its key."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from freshvec.db import Connection, queries, quoted, translated
from freshvec.errors import SchemaError
from freshvec.source.bound import BoundSync

_SQL = queries("adoption/origin")
FOUND = "auto"  # where nobody says where they are
_NUMBERS = ("vector", "halfvec", "_float4", "_float8", "_numeric")
_TEXTS = ("text", "varchar", "json", "jsonb")
_OTHERS = ("sparsevec", "bit", "varbit", "bytea")  # that can be named, and are refused
_TELLING = re.compile("embed|vector", re.IGNORECASE)  # in the name of a column whose type says little
# Columns that say when a row was changed last, and when its vector was made.
_CHANGED = ("updated_at", "modified_at", "changed_at", "last_updated_at", "last_modified_at", "last_modified")
_MADE = ("embedded_at", "updated_at", "created_at")
_DATES = ("timestamp with time zone", "timestamp without time zone")


@dataclass(frozen=True)
class Origin:
    """A column of vectors that something else made, and the columns of its table that hold the source's key.

    `kind` is its type without schema and size; `dimension` is None where the type does not tell. `text` is a
    column with the very text of each vector, `made_at` one with the time it was made, and `changed_at` one of
    the source with the time its row was changed last; None where there is none.
    """

    table: tuple[str, str]
    column: str
    kind: str
    dimension: int | None
    key: tuple[str, ...]
    known_by: str
    has_index: bool
    text: str | None
    made_at: str | None
    changed_at: str | None

    @property
    def where(self) -> str:
        return ".".join((*self.table, self.column))

    @property
    def is_source(self) -> bool:
        """Whether it is a column of the source itself."""
        return self.known_by == "itself"

    @property
    def is_likely(self) -> bool:
        """Whether type or name say that it holds vectors."""
        return self.kind in ("vector", "halfvec") or bool(_TELLING.search(self.column))

    @property
    def numbers(self) -> sql.Composable:
        """A vector as `real[]`, over a row `o` of its table."""
        column = quoted("o", self.column)
        if self.kind in _TEXTS:
            return sql.SQL("translate({}::text, '[]', '{{}}')::real[]").format(column)
        return sql.SQL("{}::real[]").format(column)


def find(connection: Connection, bound: BoundSync, where: str) -> Origin:
    """The vectors that `where` names: a column, a table or a view, qualified or not; FOUND looks for them.

    Raises SchemaError where there are none, or where they cannot be those of the sync's model.
    """
    with translated("look for vectors of", f"sync {bound.name!r}"):
        known = _candidates(connection, bound)
        if where == FOUND:
            origin = _likeliest(bound, known)
        else:
            named = _named(bound, known, where) or _beneath(connection, bound, known, where)
            origin = _only(bound, where, named, known)
    _check(bound, origin)
    return origin


@dataclass(frozen=True)
class Trigger:
    """A trigger of others that keeps the old vectors, and the command that ends it."""

    name: str
    table: str
    command: str


def triggers(connection: Connection, bound: BoundSync, origin: Origin) -> list[Trigger]:
    """What else keeps vectors of the source's rows by triggers on it."""
    given = {"oid": bound.source_oid, "table": origin.table[1], "is_source": origin.is_source}
    found = []
    with translated("look for triggers on", bound.sync.table):
        (has_pgai,) = connection.execute(_SQL["vectorizers"]).fetchone() or (False,)
        for name, identifier, table, _ in connection.execute(_SQL["triggers"], given).fetchall():
            command = f"DROP TRIGGER {identifier} ON {table};"
            if has_pgai:
                row = connection.execute(_SQL["vectorizer_of"], {"trigger": name}).fetchone()
                # Without drop_all its table stays.
                command = f"SELECT ai.drop_vectorizer({row[0]});" if row else command
            found.append(Trigger(name, table, command))
    return found


def _candidates(connection: Connection, bound: BoundSync) -> list[Origin]:
    given = {
        "oid": bound.source_oid,
        "key": list(bound.key_columns),
        "types": [*_NUMBERS, *_TEXTS, *_OTHERS],
    }
    rows = connection.execute(_SQL["candidates"], given).fetchall()
    own: dict[str, str] = next((row[-1] for row in rows if row[6] == "itself"), {})
    found = []
    for schema, table, column, kind, dimension, key, known_by, has_index, columns in rows:
        is_source = known_by == "itself"
        made_at, changed_at = _dates(columns, own, column, is_source=is_source)
        text = "chunk" if not is_source and {"chunk", "chunk_seq"} <= set(columns) else None
        name = (schema, table)
        more = (tuple(key), known_by, has_index, text, made_at, changed_at)
        found.append(Origin(name, column, kind, dimension, *more))
    return found


def _dates(
    columns: dict[str, str], own: dict[str, str], column: str, *, is_source: bool
) -> tuple[str | None, str | None]:
    """The columns that say when a vector was made and when its row was changed, where both are there and
    compare: of one type, with a time zone or without."""
    job = column.removesuffix("_embeddings")  # as pg_vectorize calls them
    made = (f"{column}_updated_at", f"{job}_updated_at", f"{column}_at", "embedded_at")
    made_at = next((name for name in (made if is_source else _MADE) if name in columns), None)
    changed_at = next((name for name in _CHANGED if name in own), None)
    if made_at is None or changed_at is None:
        return None, None
    is_alike = columns[made_at] == own[changed_at] and columns[made_at] in _DATES
    return (made_at, changed_at) if is_alike else (None, None)


def _likeliest(bound: BoundSync, known: Sequence[Origin]) -> Origin:
    """The one column that may well be meant. Raises SchemaError where there is none, or several."""
    source = bound.source_name[1]
    likely = [
        one
        for one in known
        if one.is_likely
        and one.kind not in _OTHERS
        and (one.known_by != "name" or source in one.table[1] or one.table[0] == "vectorize")
    ]
    fitting = [one for one in likely if one.dimension in (None, bound.model.dimension)] or likely
    if not fitting:
        problem = "neither it nor a table with its key has a column that looks like vectors"
        raise _refused(bound.sync.table, problem, "Name one: --adopt schema.table.column.")
    return _single(bound.sync.table, fitting)


def _named(bound: BoundSync, known: Sequence[Origin], where: str) -> list[Origin]:
    """The columns that a name may mean; one of the source itself goes before a table of that name."""
    names = _parts(where)
    if len(names) == 1:
        own = [one for one in known if one.is_source and (one.column,) == names]
        if own:
            return own
    return [one for one in known if names in _names_of(one)] or [
        one for one in known if one.is_likely and names in (one.table, one.table[1:])
    ]


def _names_of(one: Origin) -> tuple[tuple[str, ...], ...]:
    return (*one.table, one.column), (one.table[1], one.column)


def _beneath(connection: Connection, bound: BoundSync, known: Sequence[Origin], where: str) -> list[Origin]:
    """The likely columns of the tables that a view of that name reads, its source apart."""
    *schema, view = _parts(where)[-2:]
    given = {"view": view, "schema": schema[0] if schema else None}
    tables = set(connection.execute(_SQL["beneath"], given).fetchall()) - {bound.source_name}
    return [one for one in known if one.is_likely and one.table in tables]


def _only(bound: BoundSync, where: str, named: Sequence[Origin], known: Sequence[Origin]) -> Origin:
    if named:
        return _single(where, named)
    there = ", ".join(one.where for one in known if one.is_likely)
    problem = f"no column of vectors of that name is in {bound.sync.table}, or in a table that has its key "
    problem += f"({', '.join(bound.key_columns)})"
    remedy = f"There are: {there}." if there else "Leave --adopt out; then every row is encoded."
    raise _refused(where, problem, remedy)


def _single(what: str, found: Sequence[Origin]) -> Origin:
    if len(found) > 1:
        names = ", ".join(one.where for one in found)
        raise _refused(what, f"several columns may be meant: {names}", "Name one of them.")
    return found[0]


def _parts(where: str) -> tuple[str, ...]:
    """`schema.table.column`, or less of it, with SQL's own quoting: unquoted names fold to lower case."""
    part = r'"(?:[^"]|"")+"|[^".\s]+'
    if not re.fullmatch(rf"(?:{part})(?:\.(?:{part})){{0,2}}", where.strip()):
        remedy = "Write schema.table.column, with double quotes round unusual names."
        raise _refused(where, "it is no name of a column, table or view", remedy)
    found = re.findall(part, where)
    return tuple(name[1:-1].replace('""', '"') if name.startswith('"') else name.lower() for name in found)


def _check(bound: BoundSync, origin: Origin) -> None:
    """Raises SchemaError where its vectors cannot be the model's, or cannot be found by key."""
    model = bound.model
    if origin.kind in _OTHERS:
        problem = f"its type is {origin.kind}, which does not hold a vector's numbers"
        raise _refused(origin.where, problem, "Leave --adopt out; then every row is encoded.")
    if origin.dimension not in (None, model.dimension):
        problem = f"its vectors have {origin.dimension} dimensions, but {model.name} gives {model.dimension}"
        remedy = "Declare the model that made them; `freshvec models` lists them with their dimensions."
        raise _refused(origin.where, problem, remedy)
    if not origin.has_index:
        table = sql.Identifier(*origin.table).as_string()
        key = ", ".join(sql.Identifier(name).as_string() for name in origin.key)
        problem = "no index finds its rows by their key, so each would need all of the table read"
        raise _refused(origin.where, problem, f"Run: CREATE INDEX CONCURRENTLY ON {table} ({key});")


def _refused(subject: str, problem: str, remedy: str) -> SchemaError:
    return SchemaError("adopt the vectors of", subject, problem, remedy)
