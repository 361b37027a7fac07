"""The endpoint: OpenAI's request, the daemon's vectors, and what it does when it is busy or ends."""

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.errors import ServerError
from freshvec.records import Tokens, Vector
from freshvec.web.embeddings import MAX_REQUESTS, Served
from freshvec.web.server import EmbeddingServer
from tests.integration.endpoint import Client, open_prefixed, served
from tests.support import Connection, NullEncoder, backfill, settings_for, sync_of, until


@pytest.fixture(scope="module")
def prefixed(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    return open_prefixed(models_dir, tmp_path_factory.mktemp("models"))


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


def test_what_a_client_leaves_open_as_null_is_as_left_out(client: Client) -> None:
    status, found = client.embed("one", encoding_format=None, dimensions=None, input_type=None)
    assert status == 200
    assert found == client.embed("one")[1]


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


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
def test_a_host_that_is_not_here_is_named_with_what_to_write(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESHVEC_API_KEY", "a-secret-key")
    with pytest.raises(ServerError, match=rf"{host}:8377.*Write a name or address of this machine"):
        EmbeddingServer(f"{host}:8377", {}).start()
