"""What the tests of the endpoint share: a client, a model with prefixes, and a server for both."""

import http.client
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.models import catalogue
from freshvec.models.artefact import MANIFEST, Artefact
from freshvec.records import Vector
from freshvec.web.embeddings import Served
from freshvec.web.server import EmbeddingServer
from tests.support import MODEL, models_in

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


def open_prefixed(models_dir: Path, folder: Path) -> OnnxEncoder:
    """The real model with a card that asks for prefixes, copied to that folder."""
    made = models_in(models_dir).artefact(MODEL)
    shutil.copytree(made.folder, folder / "prefixed")
    card = made.model_copy(update={"card": PREFIXED})
    (folder / "prefixed" / MANIFEST).write_text(card.model_dump_json(exclude={"folder"}))
    return OnnxEncoder(Artefact.open(folder, PREFIXED), "cpu")
