"""The page, the metrics and the health checks: their address, their routes, and what a browser is told."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files

from loguru import logger
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from freshvec import logs
from freshvec.config import Settings
from freshvec.health.history import SECONDS, History
from freshvec.health.process import ProcessNow
from freshvec.health.watch import Seen, StatusWatch
from freshvec.web import view
from freshvec.web.guards import Answer, Guard
from freshvec.web.http_thread import HttpThread
from freshvec.web.metrics import Metrics
from freshvec.web.readiness import unready
from freshvec.web.refusals import Refused
from freshvec.web.row_search import RowSearch
from freshvec.worker.keeper import Keeper

_FILES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "uplot.css": "text/css",
    "uplot.js": "text/javascript",
    "page.js": "text/javascript",
    "syncs.js": "text/javascript",
    "charts.js": "text/javascript",
    "search.js": "text/javascript",
    "show.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
# Nothing but these files runs or styles anything, nothing leads elsewhere, and no text becomes markup.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class PageServer:
    """Serves from a thread of its own, and only looks: nothing that is asked of it changes anything."""

    def __init__(
        self,
        settings: Settings,
        process: Callable[[], ProcessNow],
        keepers: Callable[[], Sequence[Keeper]],
    ) -> None:
        """`process` is what is shown, of which `keepers` are here. Raises ServerError when others can reach
        the address and no key is set."""
        self._http = HttpThread(settings.web.address)
        self._guard = Guard("the page", self._http.host)
        self._rows = settings.web.rows
        self._process = process
        self._keepers = keepers
        self._history = History()
        self._watch = StatusWatch(settings.database.url, with_failures=self._rows)
        self._metrics = Metrics(process, self._watch.latest)
        self._search = RowSearch(keepers, settings.database.url)

    def start(self) -> int:
        """Bind, serve, and return the port. Raises ServerError when the address cannot be bound."""
        port = self._http.start(self._app())
        logger.info("page and metrics on http://{}:{}", self._http.host, port)
        return port

    def stop(self) -> None:
        """Accept nothing more, and end when the requests under way are answered."""
        self._http.stop()

    def _app(self) -> Starlette:
        routes = [
            Route("/healthz", self._alive),
            Route("/readyz", self._ready),
            Route("/metrics", self._guarded(self._scrape)),
            Route("/api/state", self._guarded(self._state)),
            Route("/api/search", self._guarded(self._found)),
            *(
                Route(f"/{'' if name == 'index.html' else name}", self._guarded(_static(name, kind)))
                for name, kind in _FILES.items()
            ),
        ]
        middleware = [self._guard.middleware(), Middleware(GZipMiddleware, minimum_size=2000)]
        return Starlette(routes=routes, middleware=middleware, lifespan=self._sampling)

    @asynccontextmanager
    async def _sampling(self, app: Starlette) -> AsyncIterator[None]:
        """Keep the history while the server runs."""
        task = asyncio.create_task(self._sample())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _sample(self) -> None:
        while True:
            self._history.sample(list(self._keepers()))
            await asyncio.sleep(SECONDS)

    def _guarded(self, answer: Answer) -> Answer:
        """`answer` for those who know the key, if they were not sent here by another site."""

        async def guarded(request: Request) -> Response:
            if not self._guard.knows(request):
                challenge = {"WWW-Authenticate": 'Basic realm="freshvec, any user and the API key"'}
                return PlainTextResponse("the API key is missing or wrong\n", 401, _HEADERS | challenge)
            # A browser says where a request comes from; a person may follow a link to the page itself.
            if request.url.path != "/" and request.headers.get("sec-fetch-site", "none") not in _OWN:
                return PlainTextResponse("another site may not ask\n", 403, _HEADERS)
            try:
                response = await answer(request)
            except Refused as refused:
                response = JSONResponse(refused.body, refused.status, refused.headers)
            response.headers.update(_HEADERS)
            return response

        return guarded

    async def _seen(self) -> Seen:
        return await asyncio.to_thread(self._watch.latest)

    async def _alive(self, request: Request) -> Response:
        is_alive = self._process().is_alive
        return PlainTextResponse("alive\n" if is_alive else "stuck\n", 200 if is_alive else 503)

    async def _ready(self, request: Request) -> Response:
        """What is wrong is said to those who may see the page."""
        reasons = unready(self._process(), await self._seen())
        if not self._guard.knows(request):
            reasons = ["not ready"] if reasons else []
        text = "".join(f"{logs.redact(reason)}\n" for reason in reasons) or "ready\n"
        return PlainTextResponse(text, 503 if reasons else 200)

    async def _scrape(self, request: Request) -> Response:
        accept = request.headers.get("accept", "")
        text, content_type = await asyncio.to_thread(self._metrics.exposed, accept)
        return Response(text, headers={"Content-Type": content_type})

    async def _state(self, request: Request) -> Response:
        given = request.query_params.get("since", "0")
        since = int(given) if given.isascii() and given.isdecimal() and len(given) < 16 else 0
        seen = await self._seen()
        return JSONResponse(
            view.state(self._process(), seen, self._history, since, rows=self._rows),
        )

    async def _found(self, request: Request) -> Response:
        if not self._rows:
            raise Refused(403, "write `rows = true` under [web] to let the page show rows")
        asked = request.query_params
        return JSONResponse(await self._search.find(asked.get("sync", ""), asked.get("text", "")))


_OWN = ("same-origin", "none")  # what sec-fetch-site says of the page itself, and of a person


def _static(name: str, kind: str) -> Answer:
    """A file of the page, read once; a browser that has it is told so."""
    content = files("freshvec.web").joinpath("page", name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"Content-Type": f"{kind}; charset=utf-8", "ETag": tag}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(content, headers=headers)

    return answer
