"""What a client may send to the endpoint: it is refused with the remedy, and nothing of it breaks it."""

import base64
import http.client
import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.errors import ServerError
from freshvec.web.embeddings import MAX_BYTES, MAX_REQUESTS, MAX_TEXTS
from freshvec.web.server import EmbeddingServer
from tests.integration.endpoint import JSON, Client, open_prefixed, served
from tests.support import until


@pytest.fixture(scope="module")
def prefixed(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    return open_prefixed(models_dir, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def client(prefixed: OnnxEncoder) -> Iterator[Client]:
    with served(prefixed) as made:
        yield made


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
        until("a request is answered", lambda: _answers(asked))
        for each in idle:
            until("it is closed", lambda each=each: _is_closed(each))  # type: ignore[misc]
            each.close()


def test_connections_have_a_bound(prefixed: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freshvec.web.connections.MOST", 3)
    monkeypatch.setattr("freshvec.web.http_thread.HEAD_SECONDS", 900.0)
    with served(prefixed) as asked:
        held = [socket.create_connection(("127.0.0.1", asked.port), timeout=90) for _ in range(3)]
        with socket.create_connection(("127.0.0.1", asked.port), timeout=90) as beyond:
            assert _is_closed(beyond)
        held.pop().close()
        for _ in range(10):  # each on a connection of its own
            until("there is room again", lambda: _answers(asked))
        for each in held:
            each.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert each.recv(12) == b"HTTP/1.1 200"
            each.close()


def test_a_client_that_never_reads_loses_its_answer(
    prefixed: OnnxEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freshvec.web.connections.SEND_SECONDS", 1.0)
    body = json.dumps({"input": ["a text"] * MAX_TEXTS, "model": "prefixed"}).encode()
    head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with served(prefixed) as asked, socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", asked.port))
        raw.sendall(f"POST /v1/embeddings HTTP/1.1\r\n{head}".encode() + body)
        # What is reset is an event of its own: nothing of the answer need be read for it.
        poller = select.poll()
        poller.register(raw, 0)
        assert poller.poll(60_000), "it is hung up on"
        assert _answers(asked)


def _answers(asked: Client) -> bool:
    try:
        return asked.embed("text")[0] == 200
    except (OSError, http.client.HTTPException):
        return False  # it was hung up on


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


@pytest.mark.parametrize("key", ["schlüssel", "鍵"])
def test_a_key_may_have_letters_that_are_not_ascii(
    prefixed: OnnxEncoder, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("FRESHVEC_API_KEY", key)
    sent = key.encode().decode("latin-1")  # as the client writes it: bytes of UTF-8
    password = base64.b64encode(f"me:{key}".encode()).decode()
    with served(prefixed) as asked:
        for given, status in ((f"Bearer {sent}", 200), (f"Basic {password}", 200), (f"Basic {sent}", 401)):
            assert asked.send("GET", "/v1/models", headers={"Authorization": given})[0] == status
