"""The embeddings endpoint: its address, its key, and its routes."""

from collections.abc import Mapping

from loguru import logger
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from freshvec.web.embeddings import Embeddings, Served
from freshvec.web.guards import Answer, Guard
from freshvec.web.http_thread import HttpThread
from freshvec.web.refusals import Refused


class EmbeddingServer:
    """Serves from a thread of its own. `start` binds, `stop` lets requests under way end within seconds."""

    def __init__(self, address: str, models: Mapping[str, Served]) -> None:
        """`address` is host:port. Raises ServerError when others can reach it and no key is set."""
        self._http = HttpThread(address)
        self._guard = Guard("embeddings", self._http.host)
        self._embeddings = Embeddings(models)

    def start(self) -> int:
        """Bind, serve, and return the port. Raises ServerError when the address cannot be bound."""
        port = self._http.start(self._app())
        logger.info("serving embeddings on http://{}:{}/v1/embeddings", self._http.host, port)
        return port

    @property
    def busy(self) -> int:
        """Requests under way."""
        return self._embeddings.busy

    def stop(self) -> None:
        """Accept nothing more, and end when the requests under way are answered."""
        self._http.stop()

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/embeddings", self._guarded(self._embeddings.embeddings), methods=["POST"]),
                Route("/v1/models", self._guarded(self._embeddings.list_models), methods=["GET"]),
                Route("/health", self._embeddings.health, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _unknown},
            middleware=[self._guard.middleware()],
        )

    def _guarded(self, answer: Answer) -> Answer:
        """`answer` for those who know the key; a refusal becomes the error that OpenAI's clients expect."""

        async def guarded(request: Request) -> Response:
            try:
                if not self._guard.knows(request):
                    raise Refused(401, "the API key is missing or wrong", code="invalid_api_key")
                return await answer(request)
            except Refused as refused:
                return JSONResponse(refused.body, refused.status, refused.headers)

        return guarded


async def _unknown(request: Request, error: Exception) -> Response:
    """No such path or method, as an error that OpenAI's clients expect."""
    assert isinstance(error, HTTPException)
    refused = Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail.lower()}")
    return JSONResponse(refused.body, error.status_code, error.headers)
