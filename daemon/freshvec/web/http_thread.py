"""An HTTP server on a thread of its own: it binds, serves one application, and stops within seconds."""

import asyncio
import errno
import os
import socket
import threading

from hypercorn.asyncio import serve
from hypercorn.config import Config, Sockets
from starlette.applications import Starlette

from freshvec.errors import ServerError
from freshvec.web.connections import InTime, Listening

HEAD_SECONDS = 10.0  # from the connection, or the answer before, to the end of a request's headers
_CLOSE_SECONDS = 5.0


class HttpThread:
    """Serves from `start`, which binds, until `stop`, which lets requests under way end within seconds."""

    def __init__(self, address: str) -> None:
        """`address` is host:port."""
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None

    def start(self, app: Starlette) -> int:
        """Bind, serve, and return the port. Raises ServerError when the address cannot be bound."""
        host = self.host.strip("[]")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            bound = socket.create_server((host, self.port), family=family, backlog=128)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServerError("serve on", f"{self.host}:{self.port}", reason, _remedy(error)) from error
        self.port = int(bound.getsockname()[1])
        # The server closes what it is given: it is given a descriptor of its own.
        listening = Listening(os.dup(bound.fileno()))
        bound.close()
        serving = (InTime(app, listening), _configured(listening))
        self._thread = threading.Thread(target=self._run, args=serving, name="http", daemon=True)
        self._thread.start()
        return self.port

    def stop(self) -> None:
        """Accept nothing more, and end when the requests under way are answered."""
        if self._thread is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._stopping.set)
        except RuntimeError:
            return  # it has ended
        self._thread.join(_CLOSE_SECONDS + 2)

    def _run(self, app: InTime, config: Config) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(serve(app, config, shutdown_trigger=self._stopping.wait))  # type: ignore[arg-type]


def _remedy(error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL or (error.errno or 0) < 0:  # no such address, no such name
        return "Write a name or address of this machine, as 127.0.0.1, or 0.0.0.0 for all it has."
    if isinstance(error, PermissionError):
        return "Write a port of 1024 or more."
    return "Write another port, or stop what uses this one (ss -ltnp shows it)."


class _Config(Config):
    """The server's own, but for the socket that it listens at."""

    def __init__(self, listening: Listening) -> None:
        super().__init__()
        self._listening = listening

    def create_sockets(self) -> Sockets:
        return Sockets([], [self._listening], [])


def _configured(listening: Listening) -> Config:
    config = _Config(listening)
    config.errorlog = config.accesslog = None
    config.include_server_header = False
    config.graceful_timeout = _CLOSE_SECONDS
    # It runs from the connection, or the answer before, until a request's headers are there: connections that
    # say nothing, or little by little, are closed.
    config.keep_alive_timeout = HEAD_SECONDS
    return config
