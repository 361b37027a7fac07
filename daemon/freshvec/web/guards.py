"""Who may ask: the key, and the names by which the server may be called."""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response

from freshvec import logs
from freshvec.environment import Keys
from freshvec.errors import UnservableError

Answer = Callable[[Request], Awaitable[Response]]


class Guard:
    """The key of one server, where one is set. It must be set where others can reach the address."""

    def __init__(self, what: str, host: str) -> None:
        """`what` is served on `host`. Raises UnservableError when others can reach it and no key is set."""
        self.host = host
        self._key = _api_key()
        self._is_local = is_loopback(host)
        if not self._is_local and self._key is None:
            raise UnservableError(
                f"serve {what} on",
                host,
                "others could reach it, and no key is set",
                "Set FRESHVEC_API_KEY (or the unit's credential api_key), or write 127.0.0.1.",
            )

    def knows(self, request: Request) -> bool:
        """Whether the request has the key, as a bearer's token or as the password of any user."""
        if self._key is None:
            return True
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        # Headers are read as Latin-1, so a key in UTF-8 has one letter for each of its bytes.
        token = _password(given) if kind.lower() == "basic" else given.encode("latin-1")
        return hmac.compare_digest(token.strip(), self._key.encode())

    def middleware(self) -> Middleware:
        """Refuses other names: a web page may point a name of its own at 127.0.0.1, but its requests carry
        that name."""
        hosts = ["localhost", "127.0.0.1", "[::1]", "::1", self.host] if self._is_local else ["*"]
        return Middleware(TrustedHostMiddleware, allowed_hosts=hosts)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _password(basic: str) -> bytes:
    """The password of HTTP's basic authentication; empty where it cannot be read."""
    try:
        return base64.b64decode(basic, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):  # it is not ASCII
        return b""


def _api_key() -> str | None:
    """The key from the environment or the unit's credential, None where there is none; no log shows it."""
    key = Keys().api_key.get_secret_value().strip()
    if key:
        logs.hide(key)
    return key or None
