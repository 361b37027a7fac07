"""What a monitoring system asks: metrics, health, readiness; and the dashboard and rules that name them."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from freshvec.errors import ServerError
from freshvec.health.watch import StatusWatch
from freshvec.web.guards import Guard
from freshvec.web.serve import Endpoints
from freshvec.worker.worker import Worker
from tests.acceptance.page import get, paged, state, tables, with_page
from tests.support import (
    DOCS_SYNC,
    REPOSITORY,
    Connection,
    NullEncoder,
    WorkerProcess,
    config_toml,
    free_port,
    sync_of,
    until,
    write_config,
)

MONITORING = REPOSITORY / "docs/monitoring"
LABELS = {"sync", "model", "stage", "le", "version", "python"}
# Only a GPU has them, and only a sync whose table was walked, or that has something to do.
NOT_HERE = {"freshvec_device_memory_used_bytes", "freshvec_device_memory_total_bytes"} | {
    f"freshvec_index_{what}"
    for what in ("valid", "bytes", "build_ratio")  # below
}


@pytest.fixture
def page(url: str, application: Connection) -> Iterator[tuple[str, Worker]]:
    settings = with_page(url, *tables(application, 2, rows=40), sync_of("nowhere", "lost"))
    encoder = NullEncoder(refuse="docs_01 row 7")
    with paged(settings, encoder) as (address, worker):
        until("the walks have ended", lambda: len(samples(address).get("freshvec_rows", {})) == 2)
        until("all is written", lambda: value(address, "freshvec_rows", sync="docs_01") == 39)
        yield address, worker


def samples(address: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Every sample of a scrape: by name, then by its labels."""
    status, text, headers = get(address, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def value(address: str, name: str, **labels: str) -> float | None:
    return samples(address).get(name, {}).get(tuple(sorted(labels.items())))


def test_they_say_what_was_done(page: tuple[str, Worker], application: Connection) -> None:
    address, worker = page
    application.execute("UPDATE docs_00 SET body = 'another text' WHERE id = 5")
    until("the lag is told", lambda: (value(address, "freshvec_lag_seconds_count", sync="docs_00") or 0) >= 1)
    told = samples(address)

    def of(name: str, sync: str) -> float:
        return told[f"freshvec_{name}"][(("sync", sync),)]

    assert of("rows", "docs_00") == 40
    assert of("rows_encoded_total", "docs_00") == 41
    assert (of("failed_rows", "docs_01"), of("row_failures_total", "docs_01")) == (1, 1)
    assert (of("trouble", "lost"), of("trouble", "docs_00")) == (1, 0)
    assert (of("running", "lost"), of("running", "docs_00")) == (0, 1)
    assert of("pipeline_starts_total", "docs_00") == 1
    assert time.time() - of("last_proven_timestamp_seconds", "docs_00") < 600
    assert of("lag_seconds_sum", "docs_00") > 0
    model = (("model", worker.keepers[0].sync.model),)
    tokens, padded = (told[f"freshvec_encoder_{kind}_total"][model] for kind in ("tokens", "padded_tokens"))
    assert 0 < tokens <= padded
    stages = told["freshvec_stage_seconds_count"]
    assert {dict(labels)["stage"] for labels, runs in stages.items() if runs} == {
        "read",
        "tokenise",
        "encode",
        "write",
    }
    assert told["freshvec_build_info"]
    assert told["process_resident_memory_bytes"]
    named = {name for by_labels in told.values() for labels in by_labels for name, _ in labels}
    assert named <= LABELS, "none that names a row"


def test_every_metric_that_is_named_exists(page: tuple[str, Worker]) -> None:
    """In the dashboard, in the rules and in the documents."""
    told = samples(page[0])
    documents = [*MONITORING.iterdir(), REPOSITORY / "docs/operations.md", REPOSITORY / "README.md"]
    named = set()
    for path in documents:
        for name in re.findall(r"\b(?:freshvec|process)_[a-z0-9_]+\b", path.read_text(encoding="utf-8")):
            named.add(name)
    words = {"freshvec_worker", "freshvec_0"}  # a role, and a package of Debian
    families = {name.removesuffix("_count") for name in told if name.endswith("_count")}
    assert named - told.keys() - families - NOT_HERE - words == set()
    assert len(named & told.keys()) > 25


def test_the_dashboard_s_panels_ask_for_something() -> None:
    board = json.loads((MONITORING / "grafana.json").read_text())
    assert len(board["panels"]) >= 12
    for panel in board["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert "freshvec_" in target["expr"] or "process_" in target["expr"]


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("rules are checked by promtool: `apt-get install prometheus`")
    return found


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    done = subprocess.run(
        [promtool(), "check", "rules", "--lint=all", str(MONITORING / "alerts.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_a_scrape(page: tuple[str, Worker]) -> None:
    given = get(page[0], "/metrics")[1]
    done = subprocess.run([promtool(), "check", "metrics"], input=given, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_version_that_is_none_is_answered_with_plain_text(page: tuple[str, Worker]) -> None:
    status, _, headers = get(page[0], "/metrics", Accept="application/openmetrics-text; version=abc")
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")


def test_ready_means_that_every_sync_is_worked_on(page: tuple[str, Worker], application: Connection) -> None:
    address, _ = page
    status, reasons, _ = get(address, "/readyz")
    assert status == 503
    assert b"sync lost: " in reasons
    assert get(address, "/healthz")[0] == 200, "to begin anew would not help"
    application.execute("CREATE TABLE nowhere (id bigint PRIMARY KEY, body text)")
    until("it is ready", lambda: get(address, "/readyz")[0] == 200)


def test_a_database_that_is_away_is_said_and_holds_nothing_up(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    folder = tmp_path / "socket"
    folder.symlink_to(url.split("host=")[1])
    address = f"127.0.0.1:{free_port()}"
    reached = url.split("?")[0] + f"?host={folder}"
    config = write_config(tmp_path / "freshvec.toml", config_toml(reached, models_dir, DOCS_SYNC))
    process = workers(config, env={"FRESHVEC_WEB_ADDRESS": address})
    until("it serves", lambda: "page and metrics on" in process.output)
    until("it is ready", lambda: get(address, "/readyz")[0] == 200)
    folder.unlink()
    docs.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^freshvec'"
    )
    until("it is said", lambda: value(address, "freshvec_database_up") == 0)
    began = time.monotonic()
    status, reasons, _ = get(address, "/readyz")
    assert time.monotonic() - began < 3
    assert status == 503
    assert b"database: " in reasons
    assert get(address, "/healthz")[0] == 200
    until("the loss is counted", lambda: (value(address, "freshvec_reconnects_total") or 0) >= 1)
    folder.symlink_to(url.split("host=")[1])
    until("it is ready again", lambda: get(address, "/readyz")[0] == 200)
    assert process.stop() == 0
    assert "Traceback" not in process.output


def test_a_server_that_does_not_answer_holds_nobody_up() -> None:
    """One that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        watch = StatusWatch(SecretStr(f"postgresql://nobody@127.0.0.1:{port}/none"), with_failures=False)
        began = time.monotonic()
        threads = [threading.Thread(target=watch.latest) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert time.monotonic() - began < 5


def test_other_sites_and_wrong_questions_are_refused(page: tuple[str, Worker]) -> None:
    asked: tuple[tuple[dict[str, str], str, int], ...] = (
        ({"Host": "evil.example"}, "/", 400),  # a name of a web page's own that leads here
        ({"Host": "evil.example"}, "/metrics", 400),
        ({"Sec-Fetch-Site": "cross-site"}, "/api/state", 403),
        ({"Sec-Fetch-Site": "same-site"}, "/api/search?sync=docs_00&text=x", 403),
        ({"Sec-Fetch-Site": "cross-site"}, "/", 200),  # a link that somebody followed
        ({"Sec-Fetch-Site": "same-origin"}, "/api/state", 200),
        ({}, "/api/search?sync=docs_00&text=", 400),
        ({}, "/api/search?sync=none&text=x", 404),
        ({}, "/api/search?sync=lost&text=x", 503),
        ({}, "/api/search?text=x", 404),
        ({}, "/api/state?since=-1", 200),
        ({}, "/api/state?since=²", 200),
        ({}, "/serve.py", 404),
    )
    for headers, path, status in asked:
        assert get(page[0], quote(path, safe="/?=&"), **headers)[0] == status, (headers, path)


def test_nothing_can_be_written(page: tuple[str, Worker]) -> None:
    for path in ("/", "/api/state", "/api/search", "/metrics"):
        request = urllib.request.Request(f"http://{page[0]}{path}", b"{}", method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code == 405


def test_page_and_metrics_tell_of_an_index_that_is_built(url: str, application: Connection) -> None:
    (table,) = tables(application, 1)
    with paged(with_page(url, table | {"index": {}}, sweep_seconds=0.2), NullEncoder()) as (address, _):
        until("it is built", lambda: value(address, "freshvec_index_valid", sync="docs_00") == 1)
        assert (value(address, "freshvec_index_bytes", sync="docs_00") or 0) > 8000
        assert value(address, "freshvec_index_trouble", sync="docs_00") == 0
        name = state(address)["syncs"][0]["index_name"]
        with psycopg.connect(url) as looking:  # at what was: no index is finished meanwhile
            looking.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            looking.execute("SELECT 1")
            lost = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass"
            application.execute(lost, (name,))
            phase = "waiting for old snapshots"
            until("it is built again", lambda: phase == state(address)["syncs"][0]["index_phase"])
            until("the metrics follow", lambda: value(address, "freshvec_index_valid", sync="docs_00") == 0)


def test_a_key_is_asked_for_where_one_is_set(
    url: str, application: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServerError, match="no key is set"):
        Guard("the page", "0.0.0.0")
    monkeypatch.setenv("FRESHVEC_API_KEY", "a-secret-key")
    with paged(with_page(url, *tables(application, 1)), NullEncoder()) as (address, _):
        status, _, headers = get(address, "/metrics")
        assert (status, headers["WWW-Authenticate"].split()[0]) == (401, "Basic")
        assert get(address, "/metrics", Authorization="Bearer a-secret-key")[0] == 200
        assert get(address, "/", Authorization="Basic bWU6YS1zZWNyZXQta2V5")[0] == 200  # me:a-secret-key
        assert get(address, "/", Authorization="Basic bWU6d3Jvbmc=")[0] == 401
        assert get(address, "/", Authorization="Basic ???")[0] == 401
        assert get(address, "/healthz")[0] == 200
        assert get(address, "/readyz")[1] in (b"ready\n", b"not ready\n"), "a stranger is told no reasons"


class Taken:
    """A server whose address is in use."""

    def start(self) -> None:
        raise ServerError("serve on", "127.0.0.1:8378", "Address already in use")

    def stop(self) -> None:
        """It never started."""


def test_a_default_that_is_taken_is_gone_without_and_an_address_asked_for_is_not() -> None:
    Endpoints(needed=[], others=[Taken()]).start()
    with pytest.raises(ServerError, match="already in use"):
        Endpoints(needed=[Taken()], others=[]).start()


def test_off_is_off(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    process = workers(config, env={"FRESHVEC_WEB_ADDRESS": "off"})
    until("it works", lambda: docs.execute("SELECT to_regclass('docs_embedded')").fetchone() != (None,))
    assert "page and metrics" not in process.output
    assert process.stop() == 0
