"""The HTTP server: its thread, its address, its key, and its routes."""

import asyncio
import hmac
import ipaddress
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import uvicorn
from loguru import logger
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from freshvec import logs
from freshvec.errors import ServerError
from freshvec.web.embeddings import MAX_REQUESTS, Embeddings, Served
from freshvec.web.refusals import Refused

HEAD_SECONDS = 10.0  # from the connection, or the answer before, to the end of a request's headers
_CLOSE_SECONDS = 5


class _Connection(H11Protocol):
    """A connection that is closed when a request's headers do not come in time.

    uvicorn itself waits for them for ever, so that a few connections could block all.
    """

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset()

    def _await_head(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self._unset()
        elif self._due is None:
            self._due = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unset(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


class EmbeddingServer:
    """Serves from a thread of its own. `start` binds, `stop` lets requests under way end within seconds."""

    def __init__(self, address: str, models: Mapping[str, Served]) -> None:
        """`address` is host:port. Raises ServerError when others can reach it and no key is set."""
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._embeddings = Embeddings(models)
        self._key = _api_key()
        self._is_local = _is_loopback(self._host)
        if not self._is_local and self._key is None:
            raise ServerError(
                "serve on",
                address,
                "others could reach it, and no key is set",
                "Set FRESHVEC_API_KEY (or the unit's credential api_key), or write 127.0.0.1.",
            )
        self._server = uvicorn.Server(self._configured())
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Bind, serve, and return the port. Raises ServerError when the address cannot be bound."""
        host = self._host.strip("[]")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            bound = socket.create_server((host, self._port), family=family, backlog=128)
        except OSError as error:
            raise ServerError(
                "serve on",
                f"{self._host}:{self._port}",
                error.strerror or str(error),
                "Write another port, or stop what uses this one (ss -ltnp shows it).",
            ) from error
        self._port = bound.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, args=([bound],), name="http", daemon=True)
        self._thread.start()
        logger.info("serving embeddings on http://{}:{}/v1/embeddings", self._host, self._port)
        return int(self._port)

    @property
    def busy(self) -> int:
        """Requests under way."""
        return self._embeddings.busy

    def stop(self) -> None:
        """Accept nothing more, and end when the requests under way are answered."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS + 2)

    def _configured(self) -> uvicorn.Config:
        return uvicorn.Config(
            self._app(),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            http=_Connection,
            limit_concurrency=4 * MAX_REQUESTS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_CLOSE_SECONDS,
        )

    def _app(self) -> Starlette:
        # A web page may point a name of its own at 127.0.0.1, but its requests carry that name.
        hosts = ["localhost", "127.0.0.1", "[::1]", "::1", self._host] if self._is_local else ["*"]
        return Starlette(
            routes=[
                Route("/v1/embeddings", self._guarded(self._embeddings.embeddings), methods=["POST"]),
                Route("/v1/models", self._guarded(self._embeddings.list_models), methods=["GET"]),
                Route("/health", self._embeddings.health, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _unknown},
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        )

    def _guarded(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """`answer` for those who know the key; a refusal becomes the error that OpenAI's clients expect."""

        async def guarded(request: Request) -> Response:
            try:
                self._check_key(request)
                return await answer(request)
            except Refused as refused:
                return JSONResponse(refused.body, refused.status, refused.headers)

        return guarded

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if self._key is not None and not hmac.compare_digest(given, self._key.encode()):
            raise Refused(401, "the API key is missing or wrong", code="invalid_api_key")


async def _unknown(request: Request, error: Exception) -> Response:
    """No such path or method, as an error that OpenAI's clients expect."""
    assert isinstance(error, HTTPException)
    refused = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail.lower()}")
    return JSONResponse(refused.body, error.status_code, error.headers)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _api_key() -> str | None:
    """The key from the unit's credential or the environment, None where there is none; no log shows it."""
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", ""), "api_key")
    key = credential.read_text().strip() if credential.is_file() else os.environ.get("FRESHVEC_API_KEY", "")
    if key:
        logs.hide(key)
    return key or None
