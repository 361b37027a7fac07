"""A sample of a sync's texts: real rows, rendered as the daemon renders them, from all over the table."""

from freshvec.db import connect
from freshvec.records import Model
from freshvec.source.bind import bind
from freshvec.source.bound import CHARACTERS_PER_TOKEN
from freshvec.source.sample import sample
from tests.support import Connection, settings_for, sync_of

TINY = Model("tiny", 3, 4, b"fingerprint 0000")


def sampled(url: str, rows: int, **more: str) -> list[str]:
    settings = settings_for(url, sync_of("docs", **more))
    with connect(settings.database.url, "test") as connection:
        return sample(connection, bind(connection, settings.sync[0], TINY), rows)


def test_it_is_spread_over_the_table(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 1000) g")
    places = [int(text.split()[1]) for text in sampled(url, 10)]
    assert len(places) == 10
    tenths = sorted((place - 1) // 100 for place in places)
    assert tenths == list(range(10)), "one of each tenth"


def test_all_where_there_are_fewer_and_none_of_an_empty_table(url: str, docs: Connection) -> None:
    assert sampled(url, 10) == []
    docs.execute("INSERT INTO docs VALUES (1, 'one'), (2, NULL), (3, '  '), (4, 'four')")
    assert sorted(sampled(url, 10)) == ["four", "one"]


def test_it_is_the_text_of_the_sync_cut_as_a_page_cuts_it(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'half'), (2, 'left out'), (3, repeat('x', 100000))")
    texts = sampled(url, 10, expression="id || ' at 100% of ' || body", where="id % 2 = 1")
    assert sorted(text[:20] for text in texts) == ["1 at 100% of half", "3 at 100% of xxxxxxx"]
    assert max(map(len, texts)) == TINY.max_tokens * CHARACTERS_PER_TOKEN


def test_of_a_large_table_only_some_pages_are_read(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 100000) g")
    docs.execute("ANALYZE docs")
    docs.execute("CREATE SEQUENCE rendered")
    body = "SELECT nextval('public.rendered') || t"
    docs.execute(f"CREATE FUNCTION seen(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $${body}$$")
    assert len(sampled(url, 100, expression="public.seen(body)")) == 100
    (rendered,) = docs.execute("SELECT last_value FROM rendered").fetchone() or (0,)
    # Not a tenth of the table, though each row may be rendered more than once.
    assert 100 <= rendered < 20_000


def test_where_few_rows_are_wanted_all_of_the_table_is_looked_at(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50000) g")
    docs.execute("ANALYZE docs")
    texts = sampled(url, 10, where="id > 49990")
    assert sorted(texts) == sorted(f"text {place}" for place in range(49991, 50001))


def test_a_partitioned_table(url: str, application: Connection) -> None:
    application.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    application.execute("CREATE TABLE early PARTITION OF docs FOR VALUES FROM (1) TO (51)")
    application.execute("CREATE TABLE late PARTITION OF docs FOR VALUES FROM (51) TO (101)")
    application.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 100) g")
    places = [int(text.split()[1]) for text in sampled(url, 10)]
    assert sum(place > 50 for place in places) == 5


def test_of_small_partitions_some_are_read_and_not_all_or_none(url: str, application: Connection) -> None:
    """The same blocks of each would be all of them, or none."""
    application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    for number in range(200):
        values = f"FROM ({number * 25}) TO ({number * 25 + 25})"
        application.execute(f"CREATE TABLE docs_{number} PARTITION OF docs FOR VALUES {values}".encode())
    application.execute("INSERT INTO docs SELECT n, 'text ' || n FROM generate_series(0, 4999) AS n")
    application.execute("ANALYZE docs; CREATE SEQUENCE rendered")
    body = "SELECT nextval('public.rendered') || ' ' || t"
    application.execute(f"CREATE FUNCTION seen(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $${body}$$")
    looks = 5
    members = set()
    for _ in range(looks):
        texts = sampled(url, 20, expression="public.seen(body)")
        assert len(texts) == 20
        members |= {int(text.split()[2]) // 25 for text in texts}
    (rendered,) = application.execute("SELECT last_value FROM rendered").fetchone() or (0,)
    assert rendered < looks * 5000 / 4, "not all of it each time, nor a text several times"
    assert len(members) > 10, "not the same ones each time"
