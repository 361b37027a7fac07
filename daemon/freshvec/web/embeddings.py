"""The embeddings request: read, checked, and answered by the model that embeds the rows.

A search must be embedded by the model that embedded its rows, in the same precision and with the prefix that
the model wants for queries. Requests go through the model's dispatcher ahead of everything else: somebody is
waiting.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from freshvec.encoding.dispatch import Dispatcher
from freshvec.records import Vector, shortened
from freshvec.web.encode import encode
from freshvec.web.refusals import Refused

MAX_BYTES = 8 * 2**20  # of a request's body
MAX_TEXTS = 2048  # per request, as OpenAI's
MAX_TOKENS = 65_536  # per request, each text cut at the model's limit
MAX_REQUESTS = 32  # under way at once
_BODY_SECONDS = 20.0
_INPUT = (
    f"'input' must be a text or a list of 1 to {MAX_TEXTS:,} texts, none of them empty. "
    "Token ids are refused: those of another model's tokenizer would give vectors that mean nothing "
    "(LangChain sends texts with check_embedding_ctx_length=False)."
)

Text = Annotated[str, StringConstraints(min_length=1)]


class EmbeddingsRequest(BaseModel):
    """The body of `POST /v1/embeddings`; what else OpenAI's has is ignored. `input_type` is ours.

    Some clients send null for what they leave open.
    """

    model_config = ConfigDict(extra="ignore")

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    model: str
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, gt=0)
    input_type: Literal["query", "document"] | None = None


@dataclass(frozen=True)
class Served:
    """A model that is served. `dimensions` are the lengths to which its card lets vectors be cut."""

    dispatcher: Dispatcher
    dimensions: tuple[int, ...]


class Embeddings:
    """Answers requests with these models; at most MAX_REQUESTS at once."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self._models = models
        self.busy = 0  # requests under way

    async def list_models(self, request: Request) -> Response:
        """`GET /v1/models`, as OpenAI answers it."""
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "freshvec"} for name in self._models
        ]
        return JSONResponse({"object": "list", "data": models})

    async def health(self, request: Request) -> Response:
        """200 when every model encodes. It takes its turn among the requests, so that it is no burden."""
        try:
            async with self._turn():
                for name in self._models:
                    if (served := self._models.get(name)) is not None:  # a swap may take it meanwhile
                        tokens = served.dispatcher.encoder.tokenize_queries(["health"])
                        await encode(served.dispatcher, tokens)
        except Refused as refused:
            return JSONResponse(refused.body, 503)
        return JSONResponse({"status": "ok"})

    async def embeddings(self, request: Request) -> Response:
        """`POST /v1/embeddings`. Raises Refused."""
        async with self._turn():
            return await self._answer(await _parsed(request))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of a bounded number of requests under way. Raises Refused when there are too many."""
        if self.busy >= MAX_REQUESTS:
            raise Refused(
                429, f"{MAX_REQUESTS} requests are under way; try again", code="rate_limit_exceeded"
            )
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    async def _answer(self, asked: EmbeddingsRequest) -> Response:
        """The answer to a checked request. Raises Refused."""
        served = self._models.get(asked.model)
        if served is None:
            known = ", ".join(self._models)
            raise Refused(
                404,
                f"there is no model {asked.model!r} here, but {known}",
                param="model",
                code="model_not_found",
            )
        encoder = served.dispatcher.encoder
        width = asked.dimensions or encoder.dimension
        if width not in (encoder.dimension, *served.dimensions):
            possible = ", ".join(map(str, (encoder.dimension, *served.dimensions)))
            raise Refused(400, f"{asked.model} has no {width} dimensions, but {possible}", param="dimensions")
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        tokenize = encoder.tokenize if asked.input_type == "document" else encoder.tokenize_queries
        tokens = await asyncio.to_thread(tokenize, texts)
        total = sum(map(len, tokens))
        if total > MAX_TOKENS and len(tokens) > 1:
            problem = f"{total:,} tokens are more than {MAX_TOKENS:,}; send fewer texts per request"
            raise Refused(400, problem, param="input")
        vectors = [shortened(vector, width) for vector in await encode(served.dispatcher, tokens)]
        shown = [
            _base64(vector) if asked.encoding_format == "base64" else vector.tolist() for vector in vectors
        ]
        data = [
            {"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(shown)
        ]
        usage = {"prompt_tokens": total, "total_tokens": total}
        truncated = sum(text.truncated for text in tokens)
        return JSONResponse(
            {"object": "list", "data": data, "model": asked.model, "usage": usage},
            headers={"X-Freshvec-Truncated": str(truncated)} if truncated else {},
        )


async def _parsed(request: Request) -> EmbeddingsRequest:
    """The request's body. Raises Refused."""
    # A page of another origin may send a body as text without asking; for JSON the browser must ask first.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "write Content-Type: application/json")
    try:
        body = await asyncio.wait_for(_body(request), _BODY_SECONDS)
    except (TimeoutError, ClientDisconnect):
        raise Refused(408, "the body did not arrive") from None
    try:
        return EmbeddingsRequest.model_validate_json(body)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        param = str(detail["loc"][0]) if detail["loc"] else None
        message = _INPUT if param == "input" else f"{param or 'the body'}: {detail['msg']}"
        raise Refused(400, message, param=param) from None


async def _body(request: Request) -> bytes:
    """The body, of which at most MAX_BYTES are read. Raises Refused for a larger one."""
    refused = Refused(413, f"the body has more than {MAX_BYTES // 2**20} MiB; send fewer texts per request")
    if int(request.headers.get("content-length") or 0) > MAX_BYTES:
        raise refused
    read = bytearray()
    async for part in request.stream():
        read += part
        if len(read) > MAX_BYTES:
            raise refused
    return bytes(read)


def _base64(vector: Vector) -> str:
    """float32, little-endian, as OpenAI codes it."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
