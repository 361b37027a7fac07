"""Which shard a key is in, and what a member reads: each entry is one member's, whatever the key's type."""

from collections.abc import Sequence

import psycopg
import pytest

from freshvec.capture.queue import QueueReader, append
from freshvec.config import Settings
from freshvec.db import connect
from freshvec.pipeline.share import ALL, SHARDS, mask
from freshvec.records import Key
from freshvec.source.bound import BoundSync
from tests.support import Connection, NullEncoder, backfill, bound_sync, settings_for, sync_of

KEYS = {
    "bigint": [str(number) for number in range(200)],
    "text": [f"key {number}" for number in range(200)],
    "uuid": [f"00000000-0000-0000-0000-{number:012}" for number in range(200)],
    "numeric": [f"{number}.5" for number in range(200)],
    "timestamptz": [f"2026-01-01 00:{minute:02}:00+00" for minute in range(60)],
}


def bound_to(application: Connection, kind: str, settings: Settings) -> BoundSync:
    application.execute(f"CREATE TABLE docs (id {kind} PRIMARY KEY, body text)".encode())
    backfill(settings, NullEncoder())
    with connect(settings.database.url, "test") as connection:
        return bound_sync(connection, settings, NullEncoder())


def read(settings: Settings, bound: BoundSync, shards: int | None) -> list[str]:
    with connect(settings.database.url, "test") as connection:
        found = QueueReader(connection, bound, shards).read(1000, [], bulk=True)[1]
    return [change.key[0] for change in found for _ in change.entries]


def queued(settings: Settings, bound: BoundSync, keys: Sequence[str]) -> None:
    with connect(settings.database.url, "test") as connection:
        append(connection, bound, [(key,) for key in keys])


@pytest.mark.parametrize("kind", KEYS)
def test_each_key_is_in_one_shard(application: Connection, kind: str) -> None:
    settings = settings_for(application.info.dsn, sync_of("docs"), sweep_seconds=600)
    bound = bound_to(application, kind, settings)
    queued(settings, bound, KEYS[kind])
    each = [read(settings, bound, mask({shard})) for shard in range(SHARDS)]
    together = [key for keys in each for key in keys]
    assert sorted(together) == sorted(read(settings, bound, None))
    assert len(together) == len(KEYS[kind])
    half = mask(set(range(32)))
    assert sorted(read(settings, bound, half)) == sorted(key for keys in each[:32] for key in keys)
    assert max(len(keys) for keys in each) < len(together) / 4, "they are spread"


def test_spellings_of_one_key_are_in_one_shard(application: Connection) -> None:
    settings = settings_for(application.info.dsn, sync_of("docs"), sweep_seconds=600)
    bound = bound_to(application, "numeric", settings)
    queued(settings, bound, ["7", "7.0", "7.000", "07"])
    found = [read(settings, bound, mask({shard})) for shard in range(SHARDS)]
    assert sorted(len(keys) for keys in found)[-2:] == [0, 4]


def test_keys_that_only_a_collation_takes_for_equal_are_in_one_shard(url15: str) -> None:
    with psycopg.connect(url15, autocommit=True) as application:
        application.execute(
            "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
        target = {"type": "real[]"}
        settings = settings_for(url15, sync_of("docs", target=target), sweep_seconds=600)
        bound = bound_to(application, "text COLLATE nocase", settings)
        queued(settings, bound, ["Straße", "STRASSE", "strasse", "straSSe"])
        found = [read(settings, bound, mask({shard})) for shard in range(SHARDS)]
        assert max(len(keys) for keys in found) >= 3


def test_keys_without_a_hash_are_in_the_first_shard(application: Connection) -> None:
    settings = settings_for(application.info.dsn, sync_of("docs"), sweep_seconds=600)
    bound = bound_to(application, "money", settings)
    keys: list[Key] = [("$1.00",), ("$2.00",)]
    queued(settings, bound, [key[0] for key in keys])
    assert len(read(settings, bound, mask({0, 5}))) == 2
    assert read(settings, bound, mask({1, 5})) == []
    assert read(settings, bound, mask(set())) == []
    with connect(settings.database.url, "test") as connection:
        assert not QueueReader(connection, bound, mask({0})).is_empty()
        assert QueueReader(connection, bound, mask({1})).is_empty()


def test_who_has_no_shard_reads_nothing_and_who_has_all_reads_all(application: Connection) -> None:
    settings = settings_for(application.info.dsn, sync_of("docs"), sweep_seconds=600)
    bound = bound_to(application, "bigint", settings)
    queued(settings, bound, KEYS["bigint"])
    assert read(settings, bound, 0) == []
    assert mask(set(range(SHARDS))) == ALL
    assert len(read(settings, bound, ALL)) == 200
