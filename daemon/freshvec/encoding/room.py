"""What memory held of one batch, while it was halved and encoded in parts, and what an error keeps of it."""

import math
from dataclasses import dataclass

from freshvec.errors import EncodingError
from freshvec.records import Tokens


@dataclass
class Room:
    """`before` is the ceiling of the batch budget before the batch, `ceiling` the same once memory had run
    out for the first time. `none_from` are the tokens of the shortest text that found none in a new session
    either, 0 where no text does; `problem` is what was said of that."""

    before: int | None
    ceiling: int | None = None
    none_from: float = math.inf
    problem: str = ""

    @property
    def is_full(self) -> bool:
        """Whether not even the shortest text finds room."""
        return not self.none_from

    def error(self, text: Tokens) -> EncodingError:
        """What is said of a text that found none: that others do, or that nothing does."""
        if self.is_full:
            remedy = "Free memory on the device, or choose another one."
            return EncodingError("encode", "a single text", self.problem, remedy, retryable=True)
        remedy = "Others find it: give it a device with more memory, or shorten it."
        return EncodingError("encode", f"a text of {len(text)} tokens", self.problem, remedy)


def bare(error: Exception) -> Exception:
    """Without what led to it: those frames would keep a session whose memory is wanted back."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
