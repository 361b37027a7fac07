"""Whether Postgres bears so many workers: each has its sessions."""

from loguru import logger
from pydantic import SecretStr

from freshvec.db import connect, queries
from freshvec.errors import DatabaseError, FreshvecError

_SQL = queries("fleet/room")
SESSIONS = 9  # of a worker that shares: those of any other, and one for its shares
BESIDE = 2  # the page's, and that of who shows the progress


def bearable(url: SecretStr) -> tuple[int, int]:
    """How many workers the server has sessions left for, and how many sessions it may have in all.

    Raises DatabaseError.
    """
    with connect(url, "room") as connection:
        left, most = connection.execute(_SQL["left"]).fetchone() or (0, 0)
    left += 1  # the one that asked
    return max(0, (left - BESIDE) // SESSIONS), most


def check(url: SecretStr, workers: int) -> None:
    """Raises FreshvecError where the server has too few sessions left. A server that is away is waited for by
    the workers themselves."""
    try:
        fitting, most = bearable(url)
    except DatabaseError as error:
        if not error.retryable:
            raise
        logger.debug("{}", error)
        return
    if fitting >= workers:
        return
    start = f"Start {fitting} of them, or" if fitting else "Close idle sessions, or"
    raise FreshvecError(
        "start",
        f"{workers} workers",
        f"they need {workers * SESSIONS + BESIDE} sessions, and of the {most} that Postgres may have too few "
        f"are left",
        f"{start} raise the limit: max_connections, or CONNECTION LIMIT of the database or the role.",
    )
