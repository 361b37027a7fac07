"""The endpoint: OpenAI's request, the daemon's vectors, and nothing that a client sends can break it."""

import base64
import http.client
import json
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.errors import ServerError
from freshvec.models import catalogue
from freshvec.models.artefact import MANIFEST, Artefact
from freshvec.records import Tokens, Vector
from freshvec.web.embeddings import MAX_BYTES, MAX_REQUESTS, MAX_TEXTS, Served
from freshvec.web.server import EmbeddingServer
from tests.support import MODEL, Connection, NullEncoder, backfill, models_in, settings_for, sync_of, until

PREFIXED = catalogue.find(MODEL).model_copy(
    update={
        "name": "prefixed",
        "query_prefix": "query: ",
        "document_prefix": "passage: ",
        "matryoshka": (128, 64),
    }
)
JSON = {"Content-Type": "application/json"}


class Client:
    """One request per call, on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = JSON
    ) -> tuple[int, Any, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            text = answer.read()
            return (
                answer.status,
                json.loads(text) if text[:1] in b"{[" and text else text.decode(),
                answer.headers,
            )
        finally:
            connection.close()

    def embed(
        self, given: object, model: str = "prefixed", headers: Mapping[str, str] = JSON, **more: object
    ) -> tuple[int, Any]:
        body = json.dumps({"input": given, "model": model, **more}).encode()
        return self.send("POST", "/v1/embeddings", body, headers)[:2]

    def vectors(self, given: object, **more: Any) -> Vector:
        status, found = self.embed(given, **more)
        assert status == 200, found
        assert [entry["index"] for entry in found["data"]] == list(range(len(found["data"])))
        return np.array([entry["embedding"] for entry in found["data"]], dtype=np.float32)


@contextmanager
def served(encoder: Any, name: str = "prefixed", dimensions: tuple[int, ...] = (128, 64)) -> Iterator[Client]:
    dispatcher = Dispatcher(encoder, BatchBudget(512, fixed=True))
    server = EmbeddingServer("127.0.0.1:0", {name: Served(dispatcher, dimensions)})
    try:
        yield Client(server.start())
    finally:
        server.stop()
        dispatcher.stop(10)


@pytest.fixture(scope="module")
def prefixed(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    """The real model with a card that asks for prefixes."""
    folder = tmp_path_factory.mktemp("models")
    made = models_in(models_dir).artefact(MODEL)
    shutil.copytree(made.folder, folder / "prefixed")
    card = made.model_copy(update={"card": PREFIXED})
    (folder / "prefixed" / MANIFEST).write_text(card.model_dump_json(exclude={"folder"}))
    return OnnxEncoder(Artefact.open(folder, PREFIXED), "cpu")


@pytest.fixture(scope="module")
def client(prefixed: OnnxEncoder) -> Iterator[Client]:
    with served(prefixed) as made:
        yield made


def plain(encoder: OnnxEncoder, text: str) -> Vector:
    """The vector of exactly this text, by an encoder without prefixes."""
    vector: Vector = encoder.encode(encoder.tokenize([text]))[0]
    return vector


def test_a_search_and_a_row_get_the_prefix_the_model_wants(
    client: Client, encoder: OnnxEncoder, prefixed: OnnxEncoder
) -> None:
    (query,) = client.vectors("bread")
    (document,) = client.vectors("bread", input_type="document")
    assert np.abs(query - plain(encoder, "query: bread")).max() <= 1e-5
    assert np.abs(document - plain(encoder, "passage: bread")).max() <= 1e-5
    assert np.abs(query - prefixed.encode_query("bread")).max() <= 1e-5, "freshvec search asks the same"


def test_a_document_is_embedded_as_the_daemon_embeds_the_row(
    client: Client, prefixed: OnnxEncoder, url: str, docs: Connection
) -> None:
    texts = ["How to bake bread", "Tuning a guitar " * 30, "é ☃ 'quotes' \\ and\nlines"]
    for number, text in enumerate(texts):
        docs.execute("INSERT INTO docs VALUES (%s, %s)", (number, text))
    backfill(settings_for(url, sync_of("docs")), prefixed)
    rows = docs.execute("SELECT embedding::real[] FROM docs_embedding ORDER BY id").fetchall()
    stored = np.array([row[0] for row in rows], dtype=np.float32)
    assert np.abs(client.vectors(texts, input_type="document") - stored).max() <= 1e-5


def test_both_formats_and_the_usage(client: Client, prefixed: OnnxEncoder) -> None:
    status, found = client.embed(["one", "another text"], encoding_format="base64", user="somebody")
    assert status == 200
    assert (found["object"], found["model"]) == ("list", "prefixed")
    coded = [np.frombuffer(base64.b64decode(entry["embedding"]), dtype="<f4") for entry in found["data"]]
    assert np.array_equal(np.stack(coded), client.vectors(["one", "another text"]))
    tokens = sum(map(len, prefixed.tokenize_queries(["one", "another text"])))
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_order_is_kept_whatever_the_lengths(client: Client, prefixed: OnnxEncoder) -> None:
    texts = [f"text {number} " * (1 + number * 37 % 60) for number in range(70)]
    alone = np.stack([prefixed.encode_query(text) for text in texts])
    assert np.abs(client.vectors(texts) - alone).max() <= 1e-5


def test_dimensions_are_those_of_the_card(client: Client) -> None:
    (whole,), (cut,) = client.vectors("bread"), client.vectors("bread", dimensions=128)
    assert np.abs(cut - whole[:128] / np.linalg.norm(whole[:128])).max() <= 1e-6
    status, found = client.embed("bread", dimensions=100)
    assert (status, found["error"]["param"]) == (400, "dimensions")
    assert "384, 128, 64" in found["error"]["message"]


def test_a_cut_text_is_said(client: Client) -> None:
    body = json.dumps({"input": ["short", "long " * 1000], "model": "prefixed"}).encode()
    status, found, headers = client.send("POST", "/v1/embeddings", body)
    assert (status, headers["X-Freshvec-Truncated"]) == (200, "1")
    assert found["usage"]["prompt_tokens"] < 2 * 256
    assert "Server" not in headers


def test_many_clients_at_once_each_get_their_own(client: Client, prefixed: OnnxEncoder) -> None:
    found: dict[int, Vector] = {}

    def ask(number: int) -> None:
        found[number] = client.vectors([f"the question of client {number}", "a text in common"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(16):
        assert (
            np.abs(found[number][0] - prefixed.encode_query(f"the question of client {number}")).max() <= 1e-5
        )


@pytest.mark.parametrize(
    "given", ["", [], [""], ["a", ""], [1, 2], [[1, 2]], ["a", 1], None, {"a": 1}, ["a"] * (MAX_TEXTS + 1)]
)
def test_impossible_inputs_are_refused_with_the_remedy(client: Client, given: object) -> None:
    status, found = client.embed(given)
    assert (status, found["error"]["param"], found["error"]["type"]) == (
        400,
        "input",
        "invalid_request_error",
    )
    assert "Token ids are refused" in found["error"]["message"]


def test_an_unknown_model_is_named_with_those_there_are(client: Client) -> None:
    status, found = client.embed("text", model="text-embedding-3-small")
    assert (status, found["error"]["code"]) == (404, "model_not_found")
    assert "prefixed" in found["error"]["message"]
    assert client.send("GET", "/v1/models")[1]["data"][0]["id"] == "prefixed"


def test_too_many_tokens_are_refused(client: Client) -> None:
    status, found = client.embed(["word " * 300] * 300)
    assert status == 400
    assert "send fewer texts" in found["error"]["message"]


def test_a_large_body_is_not_read(client: Client) -> None:
    post = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as raw:
        raw.sendall(f"{post}Content-Length: {MAX_BYTES + 1}\r\n\r\n".encode())  # not one byte of the body
        assert b" 413 " in raw.recv(1000)
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as raw:
        raw.sendall(f"{post}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"100000\r\n" + b" " * 2**20 + b"\r\n"
        try:
            for _ in range(2 * MAX_BYTES // 2**20):
                raw.sendall(chunk)
        except OSError:
            pass  # it has hung up already
        try:
            answer = raw.recv(1000)
        except OSError:
            answer = b" 413 "  # it was lost with the connection
        assert b" 413 " in answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"Content-Type": "text/plain"}, 415),
        (JSON | {"Host": "evil.example"}, 400),
        (JSON | {"Host": "localhost:1"}, 200),
    ],
)
def test_web_pages_cannot_reach_it(client: Client, headers: dict[str, str], status: int) -> None:
    assert client.embed("text", headers=headers)[0] == status


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from(["input", "model", "dimensions", "x"]), inner)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
        st.text(max_size=30).map(lambda text: json.dumps({"input": text, "model": "prefixed"}).encode()),
    )
)
def test_no_body_breaks_it(client: Client, body: bytes) -> None:
    status, found, _ = client.send("POST", "/v1/embeddings", body)
    assert status in (200, 400, 404), found
    assert client.send("GET", "/health")[0] == 200


def test_connections_that_say_nothing_do_not_lock_others_out(
    prefixed: OnnxEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freshvec.web.http_thread.HEAD_SECONDS", 0.5)
    with served(prefixed) as asked:
        idle = [
            socket.create_connection(("127.0.0.1", asked.port), timeout=30) for _ in range(5 * MAX_REQUESTS)
        ]
        for each in idle[::2]:
            each.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: loc")
        until("a request is answered", lambda: asked.embed("text")[0] == 200)
        for each in idle:
            until("it is closed", lambda each=each: _is_closed(each))  # type: ignore[misc]
            each.close()


def _is_closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(1000):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("GET", "/v1/embeddings", 405)])
def test_other_paths_and_methods_get_an_error_of_the_same_shape(
    client: Client, method: str, path: str, status: int
) -> None:
    found = client.send(method, path)
    assert (found[0], found[1]["error"]["type"]) == (status, "invalid_request_error")


def test_a_key_is_asked_for_where_one_is_set(prefixed: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match="no key is set"):
        EmbeddingServer("0.0.0.0:0", {})
    monkeypatch.setenv("FRESHVEC_API_KEY", "a-secret-key")
    with served(prefixed) as asked:
        assert asked.embed("text")[0] == 401
        assert asked.embed("text", headers=JSON | {"Authorization": "Bearer wrong"})[0] == 401
        assert asked.embed("text", headers=JSON | {"Authorization": "Bearer a-secret-key"})[0] == 200
        assert asked.send("GET", "/v1/models")[0] == 401


class HeldUp(NullEncoder):
    """Encodes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def encode(self, batch: list[Tokens]) -> Vector:
        assert self.gate.wait(60)
        return super().encode(batch)


def test_more_requests_than_it_bears_are_told_to_come_again() -> None:
    encoder = HeldUp()
    with served(encoder) as asked:
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(asked.embed("text")[0]))
            for _ in range(MAX_REQUESTS + 4)
        ]
        for thread in threads:
            thread.start()
        until("the surplus is turned away", lambda: len(answers) == 4)
        assert answers == [429] * 4
        encoder.gate.set()
        for thread in threads:
            thread.join(60)
        assert sorted(answers) == [200] * MAX_REQUESTS + [429] * 4


def test_what_cannot_be_encoded_is_said_and_the_next_is_served() -> None:
    with served(NullEncoder(refuse="cursed")) as asked:
        status, found = asked.embed(["fine", "cursed"])
        assert status == 503
        assert "text 1 could not be encoded: the null encoder refuses this text" in found["error"]["message"]
        assert asked.embed(["fine"])[0] == 200


def test_stopping_answers_what_is_under_way() -> None:
    encoder = HeldUp()
    dispatcher = Dispatcher(encoder, BatchBudget(512, fixed=True))
    server = EmbeddingServer("127.0.0.1:0", {"prefixed": Served(dispatcher, ())})
    asked = Client(server.start())
    answers: list[int] = []
    request = threading.Thread(target=lambda: answers.append(asked.embed("text")[0]))
    request.start()
    until("the request is under way", lambda: server.busy == 1)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    encoder.gate.set()
    stopping.join(20)
    request.join(20)
    assert answers == [200]
    dispatcher.stop(10)


def test_a_taken_port_is_named(client: Client) -> None:
    with pytest.raises(ServerError, match=rf"127\.0\.0\.1:{client.port}.*in use.*another port"):
        EmbeddingServer(f"127.0.0.1:{client.port}", {}).start()
