"""What Kubernetes asks of a pod, and KEDA of the database, by the words of the manifests."""

from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg

from tests.support import (
    DOCS_SYNC,
    Connection,
    WorkerProcess,
    config_toml,
    count,
    exists,
    free_port,
    until,
    write_config,
)
from tests.unit.test_kubernetes import FOLDER, objects, worker


def asked(port: int, path: str) -> int:
    """The kubelet's question: by the pod's address, and without the key."""
    request = Request(f"http://127.0.0.1:{port}{path}", headers={"Host": f"10.1.2.3:{port}"})
    try:
        with urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_probes_are_answered_without_the_key_and_nothing_else_is(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    port = free_port()
    _, container = worker()
    values = {each["name"]: each.get("value", "a key of the test") for each in container["env"]}
    environment = values | {"FRESHVEC_DATABASE_URL": url, "FRESHVEC_WEB_ADDRESS": f"0.0.0.0:{port}"}
    process = workers(
        write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC)), env=environment
    )
    until("the page is up", lambda: "page and metrics on" in process.output)
    paths = [container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")]
    until("it is ready", lambda: asked(port, paths[-1]) == 200)
    assert [asked(port, path) for path in paths] == [200, 200, 200]
    assert [asked(port, path) for path in ("/", "/metrics", "/api/state")] == [401, 401, 401]
    until("the row is fresh", lambda: exists(docs, "docs_embedding") and count(docs, "docs_embedding") == 1)
    assert process.stop() == 0


MONITOR = """
CREATE ROLE scaling LOGIN;
GRANT USAGE ON SCHEMA freshvec TO scaling;
GRANT SELECT ON freshvec.status, freshvec.progress, freshvec.lag TO scaling;
GRANT EXECUTE ON FUNCTION freshvec.sync_status(), freshvec.sync_progress() TO scaling;
"""


def test_keda_s_questions_have_one_number_each_for_who_only_monitors(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    toml = config_toml(url, models_dir, DOCS_SYNC)
    process = workers(write_config(tmp_path / "freshvec.toml", toml))
    until("the row is fresh", lambda: exists(docs, "docs_embedding") and count(docs, "docs_embedding") == 1)
    assert process.stop() == 0
    scaled, _ = objects((FOLDER / "autoscaling/scaledobject.yaml").read_text())
    age, backlog = (trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"])
    docs.execute(MONITOR)
    try:
        with psycopg.connect(url, user="scaling", autocommit=True) as monitor:
            assert [monitor.execute(query).fetchall() for query in (age, backlog)] == [[(0.0,)], [(0.0,)]]
            docs.execute("INSERT INTO docs VALUES (2, 'two'), (3, 'three')")
            until("it waits", lambda: (monitor.execute(age).fetchone() or (0,))[0] > 0)
            assert monitor.execute(backlog).fetchall() == [(2.0,)]
    finally:
        docs.execute("DROP OWNED BY scaling; DROP ROLE scaling")
