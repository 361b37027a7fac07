"""DDL that changes every text, or which columns texts are made of, and neither rewrites the table nor touches
what is watched."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.at_rest import Kept
from tests.integration.locking import ON_18
from tests.integration.test_identity import happen
from tests.support import sync_of, until

MOOD = "CREATE TYPE mood AS ENUM ('glad', 'sad')"
SHOUT = """CREATE FUNCTION public.shout(said text) RETURNS text LANGUAGE sql IMMUTABLE
           AS $$ SELECT upper(said) || '{}' $$"""


@dataclass(frozen=True)
class Event:
    """A table is made so, its text declared so, and this happens to it; then a row is edited so.

    `shown` is the text in a query in which the row is `d`.
    """

    text: str
    happens: str
    made: str = "SELECT"
    edit: str = "UPDATE docs SET body = 'edited' WHERE id = 5"
    columns: bool = False
    shown: str | None = None
    since: int = 16

    @property
    def declared(self) -> dict[str, Any]:
        return {"columns": [self.text]} if self.columns else {"expression": self.text}


def of_type(made: str, kind: str, value: str, happens: str, text: str = "kind", **more: Any) -> Event:
    column = f"ALTER TABLE docs ADD kind {kind} DEFAULT {value}"
    return Event(text, happens, f"{made};\n{column}", columns=text == "kind", **more)


EXTRA = "ALTER TABLE docs ADD extra text DEFAULT 'more'"
VIRTUAL = "ALTER TABLE docs ADD v text GENERATED ALWAYS AS (upper(body)) VIRTUAL"
STORED = VIRTUAL.replace("VIRTUAL", "STORED")
SET_V = "ALTER TABLE docs ALTER v SET EXPRESSION AS (body || views::int4)"
MADE_V = "ALTER TABLE docs DROP v;\nALTER TABLE docs ADD v text GENERATED ALWAYS AS (lower(body) || views)"
VIEWS = "UPDATE docs SET views = 7 WHERE id = 5"
GLAD = "ALTER TYPE mood RENAME VALUE 'glad' TO 'happy'"
JOINED = "CREATE OPERATOR public.~~~~ (FUNCTION = public.shout, RIGHTARG = text)"

EVENTS = {
    "a column for the whole row": Event(
        "to_jsonb(docs)", EXTRA, edit="UPDATE docs SET extra = 'x' WHERE id = 5", shown="to_jsonb(d)::text"
    ),
    "a column for the row as text": Event(
        "docs::text", EXTRA, edit="UPDATE docs SET extra = 'x' WHERE id = 5", shown="d::text"
    ),
    "a column of the whole row dropped": Event(
        "docs::text", "ALTER TABLE docs DROP views", shown="d::text", edit="DELETE FROM docs WHERE id = 5"
    ),
    "a virtual column of another expression": Event("v", SET_V, VIRTUAL, VIEWS, columns=True, since=18),
    "a virtual column made anew": Event("v", f"{MADE_V} VIRTUAL", VIRTUAL, VIEWS, columns=True, since=18),
    "a virtual column in an expression": Event("v || '!'", SET_V, VIRTUAL, VIEWS, since=18),
    "a stored column of another expression": Event("v", SET_V, STORED, VIEWS, columns=True, since=18),
    "a stored column made anew": Event("v", f"{MADE_V} STORED", STORED, VIEWS, columns=True),
    "an enum's label": of_type(MOOD, "mood", "'glad'", GLAD),
    "an enum's label in an expression": of_type(MOOD, "mood", "'glad'", GLAD, "body || kind"),
    "an attribute of a type that the text names": Event(
        "to_jsonb(ROW(body, 1)::public.pair)",
        "ALTER TYPE pair RENAME ATTRIBUTE one TO other",
        "CREATE TYPE pair AS (one text, two int)",
    ),
    "an enum's label in an array": of_type(MOOD, "mood[]", "'{glad,sad}'", GLAD),
    "an enum's label in a domain": of_type(
        f"{MOOD};\nCREATE DOMAIN feeling AS mood", "feeling", "'glad'", GLAD
    ),
    "an enum's label in a row": of_type(
        f"{MOOD};\nCREATE TYPE pair AS (one mood, two int)", "pair", "'(glad,1)'", GLAD
    ),
    "an enum's label in a range": of_type(
        f"{MOOD};\nCREATE TYPE moods AS RANGE (SUBTYPE = mood)", "moods", "'[glad,sad]'", GLAD
    ),
    "an attribute added": of_type(
        "CREATE TYPE pair AS (one int, two int)", "pair", "'(1,2)'", "ALTER TYPE pair ADD ATTRIBUTE three int"
    ),
    "an attribute dropped": of_type(
        "CREATE TYPE pair AS (one int, two int)", "pair", "'(1,2)'", "ALTER TYPE pair DROP ATTRIBUTE two"
    ),
    "an attribute renamed": of_type(
        "CREATE TYPE pair AS (one int, two int)",
        "pair",
        "'(1,2)'",
        "ALTER TYPE pair RENAME ATTRIBUTE two TO other",
        "to_jsonb(kind)",
        shown="to_jsonb(kind)::text",
    ),
    "another function of the name that fits better": Event(
        "public.shout(body)",
        SHOUT.format("?").replace("said text", "said varchar"),
        f"ALTER TABLE docs ALTER body TYPE varchar;\n{SHOUT.format('!')}",
    ),
    "a setting of a function": Event(
        "public.shout(body)",
        "ALTER FUNCTION public.shout(text) SET quote_all_identifiers = on",
        """CREATE FUNCTION public.shout(said text) RETURNS text LANGUAGE sql IMMUTABLE
           AS $$ SELECT said || current_setting('quote_all_identifiers') $$""",
    ),
    "an operator made anew": Event(
        "OPERATOR(public.~~~~) body",
        f"DROP OPERATOR public.~~~~ (NONE, text);\n{JOINED.replace('shout', 'whisper')}",
        f"{SHOUT.format('!')};\n{SHOUT.format('?').replace('shout', 'whisper')};\n{JOINED}",
    ),
    "a cast of an enum": of_type(
        f"""{MOOD};\nCREATE FUNCTION public.named(mood) RETURNS text LANGUAGE sql IMMUTABLE
            AS $$ SELECT enum_out($1)::text || '!' $$""",
        "mood",
        "'glad'",
        "CREATE CAST (mood AS text) WITH FUNCTION public.named(mood)",
        "kind::text",
    ),
}


def declare(kept: Kept, event: Event) -> None:
    version = kept.app.info.server_version // 10000
    if version < event.since:
        pytest.skip(f"Postgres {event.since} has it first")
    happen(kept.app, event.made)
    kept.sync = sync_of("docs", **event.declared)
    kept.text = event.shown or f"({event.text})::text"


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_what_happens_under_a_running_worker_is_healed(kept: Kept, event: Event) -> None:
    declare(kept, event)
    with kept.running() as worker:
        happen(kept.app, event.happens)
        assert kept.wrong()
        worker.sweep()
        until("everything is right", kept.is_right, 4)
        kept.app.execute(event.edit.encode())
        until("the edit has arrived", kept.is_right, 4)


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
@ON_18
def test_what_happened_while_no_worker_ran_is_healed(kept: Kept, event: Event) -> None:
    declare(kept, event)
    with kept.running():
        pass
    happen(kept.app, event.happens)
    assert kept.wrong()
    with kept.running():
        until("everything is right", kept.is_right, 4)
        kept.app.execute(event.edit.encode())
        until("the edit has arrived", kept.is_right, 4)
