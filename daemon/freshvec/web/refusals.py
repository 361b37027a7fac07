"""Refusals: a request that is not answered, said as OpenAI's clients expect it."""


class Refused(Exception):
    """The request gets an error as OpenAI's clients know it."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        super().__init__(message)

    @property
    def headers(self) -> dict[str, str]:
        """What the answer's head says beside its status."""
        return {"Retry-After": "1"} if self.status in (429, 503) else {}
