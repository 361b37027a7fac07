"""A worker with a page, for tests: many small tables, an encoder without a model, hostile texts."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from functools import partial
from typing import Any

from freshvec.config import Settings
from freshvec.web.serve import endpoints
from freshvec.worker.worker import Worker
from tests.support import Connection, NullEncoder, free_port, settings_for, sync_of, until

HOSTILE = "<img src=x onerror='hacked=1'><script>hacked=1</script>{{hacked=1}} `${hacked=1}`"


def get(address: str, path: str = "/", **headers: str) -> tuple[int, bytes, Message]:
    """Status, body and headers of one request."""
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def state(address: str, since: int = 0) -> dict[str, Any]:
    """What the page asks for."""
    status, body, _ = get(address, f"/api/state?since={since}")
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def tables(connection: Connection, count: int, rows: int = 3) -> list[dict[str, Any]]:
    """So many tables of so many rows, and their syncs."""
    names = [f"docs_{number:02}" for number in range(count)]
    for name in names:
        connection.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY, body text)")
        connection.execute(
            f"INSERT INTO {name} SELECT n, '{name} row ' || n FROM generate_series(1, %s) AS n", (rows,)
        )
    return [sync_of(name, name) for name in names]


def with_page(url: str, *syncs: dict[str, Any], rows: bool = True, **daemon: Any) -> Settings:
    """Settings with a page on a free port."""
    plain = settings_for(url, *syncs, **daemon).model_dump(exclude_unset=True)
    web = {"address": f"127.0.0.1:{free_port()}", "rows": rows}
    return Settings.model_validate(plain | {"web": web})


def _is_served(address: str) -> bool:
    try:
        return get(address, "/healthz")[0] == 200
    except OSError:
        return False


@contextmanager
def paged(settings: Settings, encoder: NullEncoder) -> Iterator[tuple[str, Worker]]:
    """A worker with its page; gives the page's address."""
    worker = Worker(
        settings,
        settings.sync,
        load=lambda _: encoder,
        tick_seconds=0.2,
        endpoint=partial(endpoints, settings),
    )
    thread = threading.Thread(target=worker.run, name="worker")
    thread.start()
    try:
        until("the page is served", lambda: _is_served(settings.web.address))
        yield settings.web.address, worker
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive(), "the worker did not stop"
