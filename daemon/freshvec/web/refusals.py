"""A request that is refused, and the error that OpenAI's clients expect then."""


class Refused(Exception):
    """The request is answered with an error: `status` is HTTP's, `body` has the shape of OpenAI's errors."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        super().__init__(message)

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        return {"Retry-After": "1"} if self.status in (429, 503) else {}
