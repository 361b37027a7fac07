"""Serve an endpoint for the models of some syncs, beside a worker or by itself."""

import signal
import threading
from collections.abc import Mapping

from freshvec.config import Settings, Sync
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.loading import Models
from freshvec.errors import ServerError
from freshvec.worker.sdnotify import notify

try:
    from freshvec.web.embeddings import Served
    from freshvec.web.server import EmbeddingServer
except ImportError as error:
    raise ServerError(
        "serve",
        "embeddings over HTTP",
        f"package {error.name} is not installed",
        "Run: pip install 'freshvec[serve]'.",
    ) from error


def open_server(settings: Settings, dispatchers: Mapping[str, Dispatcher]) -> EmbeddingServer:
    """The endpoint at `daemon.serve` for these models, not yet started. Raises ModelError, ServerError."""
    assert settings.daemon.serve is not None
    models = Models(settings)
    served = {
        name: Served(dispatcher, models.card(name).matryoshka) for name, dispatcher in dispatchers.items()
    }
    return EmbeddingServer(settings.daemon.serve, served)


def serve(settings: Settings, syncs: tuple[Sync, ...]) -> None:
    """Serve the models of these syncs until SIGTERM or SIGINT. Raises ModelError, ServerError."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    models = Models(settings)
    names = dict.fromkeys(sync.model for sync in syncs)
    dispatchers = {name: models.dispatcher(name, models.encoder(name)) for name in names}
    server = open_server(settings, dispatchers)
    server.start()
    notify("READY=1\nSTATUS=serving")
    stopping.wait()
    notify("STOPPING=1")
    server.stop()
    for dispatcher in dispatchers.values():
        dispatcher.stop(timeout=2.0)
