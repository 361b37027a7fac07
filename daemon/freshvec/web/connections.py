"""The connections of an HTTP server: there is a bound to them, and one ends with its client, or where that
does not read, so that no answer is kept."""

import asyncio
import socket
import struct
from typing import Any

from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import TCPServer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SEND_SECONDS = 60.0  # in which a client takes an answer, or at least a part of what is left of it
MOST = 512  # connections at once: each takes memory and a file, whoever has opened it
_AT_ONCE = struct.pack("ii", 1, 0)  # a socket that lingers so drops at its end what was not sent


class Listening(socket.socket):
    """Accepts as a socket does, and knows its connections."""

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._open: dict[Any, _Connection] = {}  # by the client's address

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises ConnectionAbortedError where there are too many, which asyncio takes for a client that has
        hung up."""
        accepted, address = super().accept()
        if len(self._open) >= MOST:
            accepted.close()
            raise ConnectionAbortedError
        # Linux ends the connection where nothing can be sent for so long.
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SEND_SECONDS * 1000))
        connection = self._open[address[:2]] = _Connection(accepted.detach(), self._open, address[:2])
        return connection, address

    def hang_up(self, address: Any) -> None:
        """Whatever is still to be sent there."""
        if address in self._open:
            self._open[address].hang_up()


class _Connection(socket.socket):
    """In `known` until it is closed."""

    def __init__(self, fileno: int, known: "dict[Any, _Connection]", address: Any) -> None:
        super().__init__(fileno=fileno)
        self._known = known
        self._address = address

    def close(self) -> None:
        if self._known.get(self._address) is self:
            del self._known[self._address]
        super().close()

    def hang_up(self) -> None:
        """The server finds at its next attempt to send that nobody is there."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.shutdown(socket.SHUT_RDWR)


class EndingWithClient(TCPServer):
    """hypercorn's own connection stays until no request has come for HEAD_SECONDS, though its client has hung
    up: whoever opens one for each request would have thousands of them."""

    async def _read_data(self) -> None:
        await super()._read_data()  # to the client's end
        await self.idle_task.stop()


run.TCPServer = EndingWithClient  # type: ignore[attr-defined]


class InTime:
    """An application whose answers are taken in time, or not at all."""

    def __init__(self, app: ASGIApp, listening: Listening) -> None:
        self._app = app
        self._listening = listening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                self._listening.hang_up(tuple(scope["client"][:2]))

        await self._app(scope, receive, send_in_time if scope["type"] == "http" else send)
