"""Random programs of SQL: what an application, its operators and accidents may do to a table that is kept."""

from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Kind:
    """A kind of key: its columns as declared, and the literal of each for the row called `number`.

    `spelling` chooses between values that are equal and print differently, where the type has such.
    """

    name: str
    columns: tuple[str, ...]
    literals: tuple[str, ...]

    @property
    def names(self) -> str:
        return ", ".join(column.split()[0] for column in self.columns)

    def key(self, number: int, spelling: int = 0) -> str:
        return ", ".join(literal.format(n=number, z="0" * spelling) for literal in self.literals)

    def is_row(self, number: int, spelling: int = 0) -> str:
        return f"({self.names}) = ({self.key(number, spelling)})"


LABELS = 120
KINDS = (
    Kind("bigint", ("id bigint",), ("{n}::bigint",)),
    Kind("text", ("id text",), ("'Ünï {n}'::text",)),
    Kind("uuid", ("id uuid",), ("'00000000-0000-0000-0000-{n:012d}'::uuid",)),
    Kind("numeric", ("id numeric",), ("{n}.0{z}::numeric",)),
    Kind("timestamptz", ("id timestamptz",), ("'2026-01-01 00:00:00.{n:03d}+02'::timestamptz",)),
    Kind("date", ("id date",), ("(date '2026-01-01' + {n})",)),
    Kind("bytea", ("id bytea",), ("'\\x{n:06d}'::bytea",)),
    Kind("composite", ("a int", "b text"), ("({n} % 3)", "'b\"'',{n}'::text")),
    Kind("collated", ('id text COLLATE "C"',), ("(CASE {n} % 2 WHEN 0 THEN 'a' ELSE 'B' END || {n})",)),
    Kind("boolean and int", ("flag boolean", "id int"), ("({n} % 2 = 0)", "{n}")),
    Kind("enum", ("id app.label",), ("'label {n}'::app.label",)),
    Kind("char", ("id char(6)",), ("'c {n}'::char(6)",)),
)


@dataclass(frozen=True)
class Statement:
    """One statement of the application. `undone`: rolled back to a savepoint before it."""

    what: str
    row: int = 0
    other: int = 0
    text: str | None = "text"
    undone: bool = False


@dataclass(frozen=True)
class Together:
    """Statements of one transaction."""

    statements: tuple[Statement, ...]
    commits: bool = True


@dataclass(frozen=True)
class Event:
    """Something that happens to the workers."""

    what: str


Step = Statement | Together | Event


@dataclass(frozen=True)
class Program:
    kind: Kind
    is_partitioned: bool
    steps: tuple[Step, ...]


SQL = {
    "insert": "INSERT INTO docs VALUES ({i}, %(text)s)",
    "upsert": """INSERT INTO docs VALUES ({i}, %(text)s)
                 ON CONFLICT ({names}) DO UPDATE SET body = excluded.body""",
    "upsert or nothing": "INSERT INTO docs VALUES ({i}, %(text)s), ({j}, 'two') ON CONFLICT DO NOTHING",
    "edit": "UPDATE docs SET body = %(text)s WHERE {is_i}",
    "edit the note": "UPDATE docs SET note = %(text)s WHERE {is_i}",
    "edit all": "UPDATE docs SET body = body || '.'",
    "hide or show": "UPDATE docs SET wanted = NOT wanted WHERE {is_i}",
    "spell otherwise": "UPDATE docs SET ({names}) = ROW ({respelt}) WHERE {is_i}",
    "renumber": "UPDATE docs SET ({names}) = ROW ({j}) WHERE {is_i}",
    "delete": "DELETE FROM docs WHERE {is_i}",
    "delete all": "DELETE FROM docs",
    "truncate": "TRUNCATE docs",
    "refill": "TRUNCATE docs; INSERT INTO docs VALUES ({i}, 'refilled'), ({j}, 'too') ON CONFLICT DO NOTHING",
    "move": """WITH gone AS (DELETE FROM docs WHERE {is_i} RETURNING body)
               INSERT INTO docs SELECT {j}, body FROM gone ON CONFLICT DO NOTHING""",
    "merge": """MERGE INTO docs AS d USING (SELECT * FROM docs WHERE {is_i} OR {is_j}) AS s ON {d_is_s}
                WHEN MATCHED AND s.body IS NULL THEN DELETE
                WHEN MATCHED THEN UPDATE SET body = 'merged ' || s.body
                WHEN NOT MATCHED THEN DO NOTHING""",
    "merge a new key": """MERGE INTO docs AS d USING (VALUES (1)) AS s (one) ON {is_i}
                WHEN MATCHED THEN UPDATE SET ({names}) = ROW ({j}), body = 'merged'
                WHEN NOT MATCHED THEN INSERT ({names}, body) VALUES ({i}, 'inserted')""",
    "many": "INSERT INTO docs VALUES {many} ON CONFLICT DO NOTHING",
    "swap": """DROP TABLE IF EXISTS docs_old; CREATE TABLE docs_new (LIKE docs INCLUDING ALL);
               INSERT INTO docs_new SELECT * FROM docs; UPDATE docs_new SET body = 'swapped' WHERE {is_i};
               DELETE FROM docs_new WHERE {is_j};
               ALTER TABLE docs RENAME TO docs_old; ALTER TABLE docs_new RENAME TO docs""",
    "swap back": """ALTER TABLE docs RENAME TO docs_new; ALTER TABLE docs_old RENAME TO docs;
                    ALTER TABLE docs_new RENAME TO docs_old""",
    "detach": "ALTER TABLE docs DETACH PARTITION docs_1",
    "attach": "ALTER TABLE docs ATTACH PARTITION docs_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    "edit beside": "UPDATE docs_1 SET body = %(text)s",
    "truncate beside": "TRUNCATE docs_1",
    "delete from the target": "DELETE FROM docs_embedding WHERE {is_i}",
    "edit the target": "UPDATE docs_embedding SET embedding = '[1,0,0,0,0,0,0,0]' WHERE {is_i}",
    "renumber in the target": "UPDATE docs_embedding SET ({names}) = ROW ({j}) WHERE {is_i}",
    "truncate the target": "TRUNCATE docs_embedding",
}
COPIES = "copy"
EVENTS = ("restart", "kill backends", "second worker", "redefine", "rest")

_rows = st.integers(0, 5)
_texts = st.sampled_from(["one", "two", "wörds\n", "", " ", None, "long " * 10])
_statements = st.builds(
    Statement, st.sampled_from([*SQL, COPIES]), _rows, _rows, _texts, st.sampled_from([False, False, True])
)
_steps: st.SearchStrategy[Step] = st.one_of(
    _statements,
    _statements,
    st.builds(
        Together,
        st.lists(_statements, min_size=1, max_size=4).map(tuple),
        st.sampled_from([True, True, False]),
    ),
    st.builds(Event, st.sampled_from(EVENTS)),
)
PROGRAMS = st.builds(
    Program, st.sampled_from(KINDS), st.booleans(), st.lists(_steps, min_size=1, max_size=14).map(tuple)
)


def tables(program: Program) -> str:
    """The DDL of the table that is kept, with six rows in it."""
    kind = program.kind
    labels = ", ".join(f"'label {number}'" for number in range(LABELS))
    columns = f"{', '.join(kind.columns)}, body text, note text DEFAULT 'note', wanted boolean DEFAULT true"
    rows = ", ".join(f"({kind.key(number)}, 'text {number}')" for number in range(6))
    ddl = [
        "DROP SCHEMA IF EXISTS freshvec CASCADE; DROP SCHEMA IF EXISTS app CASCADE; CREATE SCHEMA app",
        f"CREATE TYPE app.label AS ENUM ({labels})",
        f"CREATE TABLE docs ({columns}, PRIMARY KEY ({kind.names}))",
        f"INSERT INTO docs VALUES {rows}",
    ]
    if program.is_partitioned:
        first = kind.names.split(",")[-1]
        ddl[2] += f" PARTITION BY HASH ({first})"
        parts = "CREATE TABLE docs_{0} PARTITION OF docs FOR VALUES WITH (MODULUS 2, REMAINDER {0})"
        ddl[3:3] = [parts.format(number) for number in (0, 1)]
    return "; ".join(ddl)


def composed(kind: Kind, statement: Statement) -> str:
    """The statement's SQL for this kind of key."""
    names = kind.names.split(", ")
    return SQL[statement.what].format(
        names=kind.names,
        i=kind.key(statement.row),
        j=kind.key(statement.other),
        respelt=kind.key(statement.row, spelling=2),
        is_i=kind.is_row(statement.row),
        is_j=kind.is_row(statement.other),
        d_is_s=" AND ".join(f"d.{name} = s.{name}" for name in names),
        many=", ".join(f"({kind.key(number)}, 'many {number}')" for number in range(6, 106)),
    )
