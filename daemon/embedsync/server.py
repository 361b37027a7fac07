"""The HTTP side: OpenAI's embeddings request, answered by the very model that embeds the rows.

A search must be embedded by the model its rows were embedded by, in the same precision and with the prefix the model
wants for queries. Requests go through the model's dispatcher ahead of everything else: somebody is waiting.
"""

import asyncio
import base64
import hmac
import ipaddress
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from loguru import logger
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from embedsync import logs
from embedsync.encoding.batching import plan_batches
from embedsync.encoding.dispatch import Dispatcher
from embedsync.errors import ServerError
from embedsync.records import Tokens, Urgency, Vector

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise ServerError(
        "serve", "embeddings over HTTP", f"package {error.name} is not installed", "Run: pip install 'embedsync[serve]'."
    ) from error

MAX_BYTES = 8 * 2**20  # of a request's body
MAX_TEXTS = 2048  # a request, as OpenAI's
MAX_TOKENS = 65_536  # a request, each text cut at the model's limit
MAX_REQUESTS = 32  # under way at once
_HEAD_SECONDS = 10.0  # from the connection, or the answer before, to the end of a request's headers
_BODY_SECONDS = 20.0
_ENCODE_SECONDS = 60.0
_CLOSE_SECONDS = 5
_INPUT = (
    f"'input' must be a text or a list of 1 to {MAX_TEXTS:,} texts, none of them empty. Token ids are refused: those of another "
    "model's tokenizer would give vectors that mean nothing (LangChain sends texts with check_embedding_ctx_length=False)."
)

Text = Annotated[str, StringConstraints(min_length=1)]


class EmbeddingsRequest(BaseModel):
    """The body of `POST /v1/embeddings`; what else OpenAI's has is ignored. `input_type` is ours."""

    model_config = ConfigDict(extra="ignore")

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, gt=0)
    input_type: Literal["query", "document"] = "query"


@dataclass(frozen=True)
class Served:
    """A model that is served. `dimensions`: to which its vectors may be cut, as its card says."""

    dispatcher: Dispatcher
    dimensions: tuple[int, ...]


class _Refused(Exception):
    """The request gets an error as OpenAI's clients know it."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        super().__init__(message)


class _Connection(H11Protocol):
    """A connection that is closed when its headers do not come: uvicorn itself waits for ever, so that few could block all."""

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
            self._due = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def _unset(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


class EmbeddingServer:
    """Serves from a thread of its own. `start` binds, `stop` lets requests under way end within seconds."""

    def __init__(self, address: str, models: Mapping[str, Served]) -> None:
        """`address` is host:port. Raises ServerError for an address others can reach while there is no key."""
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._models = models
        self._key = _api_key()
        self._busy = 0
        self._is_local = _is_loopback(self._host)
        if not self._is_local and self._key is None:
            raise ServerError(
                "serve on", address, "others could reach it, and no key is set",
                "Set EMBEDSYNC_API_KEY (or the unit's credential api_key), or write 127.0.0.1.",
            )  # fmt: skip
        self._server = uvicorn.Server(self._configured())
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Bind and serve; the port. Raises ServerError when the address cannot be had."""
        host = self._host.strip("[]")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            bound = socket.create_server((host, self._port), family=family, backlog=128)
        except OSError as error:
            raise ServerError(
                "serve on", f"{self._host}:{self._port}", error.strerror or str(error),
                "Write another port, or stop what uses this one (ss -ltnp shows it).",
            ) from error  # fmt: skip
        self._port = bound.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, args=([bound],), name="http", daemon=True)
        self._thread.start()
        logger.info("serving embeddings on http://{}:{}/v1/embeddings", self._host, self._port)
        return int(self._port)

    def stop(self) -> None:
        """Accept nothing more, and end when what is under way is answered."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS + 2)

    def _configured(self) -> uvicorn.Config:
        return uvicorn.Config(
            self._app(), log_config=None, access_log=False, server_header=False, proxy_headers=False, lifespan="off", ws="none",
            http=_Connection,
            limit_concurrency=4 * MAX_REQUESTS, timeout_keep_alive=30, timeout_graceful_shutdown=_CLOSE_SECONDS,
        )  # fmt: skip

    def _app(self) -> Starlette:
        # A web page may point a name of its own at 127.0.0.1; its requests carry that name.
        hosts = ["localhost", "127.0.0.1", "[::1]", "::1", self._host] if self._is_local else ["*"]
        return Starlette(
            routes=[
                Route("/v1/embeddings", self._guarded(self._embeddings), methods=["POST"]),
                Route("/v1/models", self._guarded(self._list_models), methods=["GET"]),
                Route("/health", self._health, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _unknown},
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        )

    def _guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """`answer`, for those who know the key, its refusals as OpenAI's clients expect them."""

        async def guarded(request: Request) -> Response:
            try:
                self._check_key(request)
                return await answer(request)
            except _Refused as refused:
                headers = {"Retry-After": "1"} if refused.status in (429, 503) else {}
                return JSONResponse(refused.body, refused.status, headers)

        return guarded

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if self._key is not None and not hmac.compare_digest(given, self._key.encode()):
            raise _Refused(401, "the API key is missing or wrong", code="invalid_api_key")

    async def _list_models(self, request: Request) -> Response:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "embedsync"} for name in self._models]
        return JSONResponse({"object": "list", "data": models})

    async def _health(self, request: Request) -> Response:
        """200 when every model encodes; it takes its turn among the requests, so that asking cannot overload it."""
        try:
            async with self._turn():
                for served in self._models.values():
                    await self._encode(served.dispatcher, served.dispatcher.encoder.tokenize_queries(["health"]))
        except _Refused as refused:
            return JSONResponse(refused.body, 503)
        return JSONResponse({"status": "ok"})

    async def _embeddings(self, request: Request) -> Response:
        async with self._turn():
            return await self._answer(await _parsed(request))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of a bounded number of requests under way. Raises _Refused when there are too many."""
        if self._busy >= MAX_REQUESTS:
            raise _Refused(429, f"{MAX_REQUESTS} requests are under way; try again", code="rate_limit_exceeded")
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    async def _answer(self, asked: EmbeddingsRequest) -> Response:
        served = self._models.get(asked.model)
        if served is None:
            known = ", ".join(self._models)
            raise _Refused(404, f"there is no model {asked.model!r} here, but {known}", param="model", code="model_not_found")
        encoder = served.dispatcher.encoder
        width = asked.dimensions or encoder.dimension
        if width not in (encoder.dimension, *served.dimensions):
            possible = ", ".join(map(str, (encoder.dimension, *served.dimensions)))
            raise _Refused(400, f"{asked.model} has no {width} dimensions, but {possible}", param="dimensions")
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        tokenize = encoder.tokenize_queries if asked.input_type == "query" else encoder.tokenize
        tokens = await asyncio.to_thread(tokenize, texts)
        total = sum(map(len, tokens))
        if total > MAX_TOKENS and len(tokens) > 1:
            raise _Refused(400, f"{total:,} tokens are more than {MAX_TOKENS:,}; send fewer texts a request", param="input")
        vectors = [_cut(vector, width) for vector in await self._encode(served.dispatcher, tokens)]
        shown = [_base64(vector) if asked.encoding_format == "base64" else vector.tolist() for vector in vectors]
        data = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(shown)]
        usage = {"prompt_tokens": total, "total_tokens": total}
        truncated = sum(text.truncated for text in tokens)
        return JSONResponse(
            {"object": "list", "data": data, "model": asked.model, "usage": usage},
            headers={"X-Embedsync-Truncated": str(truncated)} if truncated else {},
        )

    async def _encode(self, dispatcher: Dispatcher, tokens: list[Tokens]) -> list[Vector]:
        """Vectors in the order of the texts; what nobody waits for any more is not encoded."""
        loop, owner = asyncio.get_running_loop(), object()
        batches = plan_batches([len(text) for text in tokens], dispatcher.budget.next_size)
        waiting: list[asyncio.Future[list[Vector | Exception]]] = [loop.create_future() for _ in batches]
        for batch, future in zip(batches, waiting, strict=True):
            chosen = [tokens[i] for i in batch.indices]
            dispatcher.submit(Urgency.QUERY, chosen, batch.size, partial(_deliver, loop, future), owner=owner)
        try:
            results = await asyncio.wait_for(asyncio.gather(*waiting), _ENCODE_SECONDS)
        except TimeoutError:
            raise _Refused(503, "the encoder does not answer; see the log of embedsync") from None
        finally:
            dispatcher.forget(owner)
        vectors: dict[int, Vector] = {}
        for batch, encoded in zip(batches, results, strict=True):
            for place, result in zip(batch.indices, encoded, strict=True):
                if isinstance(result, Exception):
                    raise _Refused(503, f"text {place} could not be encoded: {result}", param="input")
                vectors[place] = result
        return [vectors[place] for place in range(len(tokens))]


async def _unknown(request: Request, error: Exception) -> Response:
    """No such path or method, said as OpenAI's clients expect it."""
    assert isinstance(error, HTTPException)
    refused = _Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail.lower()}")
    return JSONResponse(refused.body, error.status_code, error.headers)


async def _parsed(request: Request) -> EmbeddingsRequest:
    # A page of another origin may send such a body as text without asking; as JSON the browser must ask first.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _Refused(415, "write Content-Type: application/json")
    try:
        body = await asyncio.wait_for(_body(request), _BODY_SECONDS)
    except (TimeoutError, ClientDisconnect):
        raise _Refused(408, "the body did not arrive") from None
    try:
        return EmbeddingsRequest.model_validate_json(body)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        param = str(detail["loc"][0]) if detail["loc"] else None
        message = _INPUT if param == "input" else f"{param or 'the body'}: {detail['msg']}"
        raise _Refused(400, message, param=param) from None


async def _body(request: Request) -> bytes:
    """The body, read no further than the bound."""
    refused = _Refused(413, f"the body has more than {MAX_BYTES // 2**20} MiB; send fewer texts a request")
    if int(request.headers.get("content-length") or 0) > MAX_BYTES:
        raise refused
    read = bytearray()
    async for part in request.stream():
        read += part
        if len(read) > MAX_BYTES:
            raise refused
    return bytes(read)


def _deliver(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[list[Vector | Exception]]", results: list[Vector | Exception]
) -> None:
    """Called on the encoder's thread, which must not suffer when the server is gone."""

    def deliver() -> None:
        if not future.done():
            future.set_result(results)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:
        logger.debug("an embedding was ready after its server had stopped")


def _cut(vector: Vector, width: int) -> Vector:
    """The first `width` numbers, of length one again: how Matryoshka vectors are cut (arXiv:2205.13147)."""
    if width == len(vector):
        return vector
    part = vector[:width]
    return part / np.linalg.norm(part)


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _api_key() -> str | None:
    """The key from the unit's credential or the environment; never shown in a log."""
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", ""), "api_key")
    key = credential.read_text().strip() if credential.is_file() else os.environ.get("EMBEDSYNC_API_KEY", "")
    if key:
        logs.hide(key)
    return key or None
