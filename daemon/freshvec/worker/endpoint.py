"""What else a worker's process answers to, such as HTTP."""

from typing import Protocol


class Endpoint(Protocol):
    """The worker only starts and stops it."""

    def start(self) -> object: ...

    def stop(self) -> None: ...
