"""What `run` and `serve` answer over HTTP, put together from the settings."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from loguru import logger

from freshvec.config import Settings, Sync
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.loading import Models
from freshvec.errors import ServerError, UnservableError
from freshvec.health.process import ProcessNow, look
from freshvec.worker.endpoint import Endpoint
from freshvec.worker.sdnotify import notify
from freshvec.worker.worker import Worker

try:
    from freshvec.web.embeddings import Served
    from freshvec.web.page_server import PageServer
    from freshvec.web.server import EmbeddingServer
except ImportError as error:
    raise UnservableError(
        "serve",
        "over HTTP",
        f"package {error.name} is not installed",
        "Run: pip install 'freshvec[serve]'.",
    ) from error

_LOOK_SECONDS = 1.0  # between looks whether the models can still be asked


class Endpoints:
    """Everything a worker answers. What it can do without is left out, with a warning, where it cannot
    start."""

    def __init__(self, needed: Sequence[Endpoint], others: Sequence[Endpoint]) -> None:
        self._needed = needed
        self._others = others

    def start(self) -> None:
        """Raises ServerError when one that is needed cannot start."""
        for each in self._needed:
            each.start()
        for each in self._others:
            try:
                each.start()
            except ServerError as error:
                logger.warning("no page and no metrics: {}", error)

    def stop(self) -> None:
        for each in (*self._others, *self._needed):
            each.stop()


class ServedModels(Mapping[str, Served]):
    """What these dispatchers serve; a swap may bring another one at any time. Raises ModelError.

    `shown` gives the model of a sync, so that who asks for the sync's name follows a swap.
    """

    def __init__(
        self,
        models: Models,
        dispatchers: Mapping[str, Dispatcher],
        shown: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._models = models
        self._dispatchers = dispatchers
        self._shown = shown
        self._widths = {name: models.card(name).matryoshka for name in dispatchers}

    def __getitem__(self, name: str) -> Served:
        if name not in self._dispatchers:
            name = self._shown()[name]
        dispatcher = self._dispatchers[name]  # of now: a model may be taken away, or loaded anew
        if name not in self._widths:
            self._widths[name] = self._models.card(name).matryoshka
        return Served(dispatcher, self._widths[name])

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._dispatchers))

    def __len__(self) -> int:
        return len(self._dispatchers)


def endpoints(settings: Settings, worker: Worker) -> Endpoints:
    """The embeddings endpoint and the page, as far as they are asked for. Raises ModelError, ServerError."""
    needed: list[Endpoint] = []
    others: list[Endpoint] = []
    if settings.daemon.serve:
        needed.append(open_server(settings, worker.dispatchers, lambda: worker.shown_models))
    if settings.web.address != "off":
        is_asked_for = "address" in settings.web.model_fields_set
        page = PageServer(settings, lambda: look(worker), lambda: worker.keepers)
        (needed if is_asked_for else others).append(page)
    return Endpoints(needed, others)


def page_of(settings: Settings, process: Callable[[], ProcessNow]) -> Endpoints:
    """The page of workers that are elsewhere: without charts and searches, which take one that is here.

    Raises ServerError.
    """
    page = [PageServer(settings, process, list)] if settings.web.address != "off" else []
    is_asked_for = "address" in settings.web.model_fields_set
    return Endpoints(page, []) if is_asked_for else Endpoints([], page)


def open_server(
    settings: Settings,
    dispatchers: Mapping[str, Dispatcher],
    shown: Callable[[], Mapping[str, str]] = dict,
) -> EmbeddingServer:
    """The endpoint at `daemon.serve` for these models, not yet started. Raises ModelError, ServerError."""
    assert settings.daemon.serve is not None
    return EmbeddingServer(settings.daemon.serve, ServedModels(Models(settings), dispatchers, shown))


def serve(settings: Settings, syncs: tuple[Sync, ...]) -> None:
    """Serve the models of these syncs until SIGTERM or SIGINT.

    Raises ModelError, ServerError, and DeviceError where only another process can go on.
    """
    models = Models(settings)
    names = dict.fromkeys(sync.model for sync in syncs)
    dispatchers = {name: models.dispatcher(name, models.encoder(name)) for name in names}
    server = open_server(settings, dispatchers)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # before, while models are loaded, they end it at once
        signal.signal(number, lambda *_: stopping.set())
    server.start()
    notify("READY=1\nSTATUS=serving")
    try:
        while not stopping.wait(_LOOK_SECONDS):
            if lost := next((each.lost for each in dispatchers.values() if each.lost is not None), None):
                raise lost
    finally:
        notify("STOPPING=1")
        server.stop()
        for dispatcher in dispatchers.values():
            dispatcher.stop(timeout=2.0)
