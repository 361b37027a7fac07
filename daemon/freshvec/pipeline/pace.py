"""How many rows go into one transaction, so that none keeps others waiting for long."""

_SECONDS = 0.2  # that a transaction should take, whatever the target costs: a vector index makes it dear
_FIRST_ROWS = 64
MOST_ROWS = 4000


class Pace:
    """The bound on vectors in one transaction, by what the last ones took."""

    def __init__(self) -> None:
        self.rows = _FIRST_ROWS

    def took(self, rows: int, seconds: float) -> None:
        """A transaction wrote so many vectors in so long."""
        fitting = int(rows * _SECONDS / max(seconds, 1e-6))
        if seconds > _SECONDS:
            self.rows = max(1, fitting)
        elif 2 * rows >= self.rows:  # a small transaction says little of a large one
            self.rows = min(2 * self.rows, fitting, MOST_ROWS)
