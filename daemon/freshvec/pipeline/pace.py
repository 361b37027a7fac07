"""How many rows go into one transaction, so that none keeps others waiting for long."""

_SECONDS = 0.2  # that a transaction should take, whatever the target costs: a vector index makes it dear
_SECONDS_AS_GUEST = 0.05  # where it holds rows of the application's meanwhile
_FIRST_ROWS = 64
MOST_ROWS = 4000
_MOST_AS_GUEST = 500


class Pace:
    """The bound on vectors in one transaction, by what the last ones took. `is_guest`: they are written to
    rows of the application's."""

    def __init__(self, *, is_guest: bool = False) -> None:
        self.rows = _FIRST_ROWS
        self.most = _MOST_AS_GUEST if is_guest else MOST_ROWS
        self._seconds = _SECONDS_AS_GUEST if is_guest else _SECONDS

    def took(self, rows: int, seconds: float) -> None:
        """A transaction wrote so many vectors in so long."""
        fitting = int(rows * self._seconds / max(seconds, 1e-6))
        if seconds > self._seconds:
            self.rows = max(1, fitting)
        elif 2 * rows >= self.rows:  # a small transaction says little of a large one
            self.rows = min(2 * self.rows, fitting, self.most)
