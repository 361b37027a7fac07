"""Vectors of texts that were encoded lately: a text that comes again is not encoded again."""

import threading
from collections import OrderedDict

from freshvec.records import Vector

_BYTES = 6 * 2**20
_OVERHEAD = 400  # bytes per entry beside its numbers: key, array header, map


class RecentVectors:
    """A bounded least-recently-used map from content hash to vector `[dimension]`. Thread-safe."""

    def __init__(self, dimension: int, capacity_bytes: int = _BYTES) -> None:
        self._capacity = max(1, capacity_bytes // (dimension * 4 + _OVERHEAD))
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0

    def get(self, content_hash: bytes) -> Vector | None:
        """The vector, None where it is not kept."""
        with self._lock:
            vector = self._vectors.get(content_hash)
            if vector is not None:
                self._vectors.move_to_end(content_hash)
                self.hits += 1
            return vector

    def put(self, content_hash: bytes, vector: Vector) -> None:
        """Keep a copy of the vector, in place of the one not used for longest."""
        with self._lock:
            # A copy: a row of a batch's matrix would keep the whole matrix alive.
            self._vectors[content_hash] = vector.copy()
            self._vectors.move_to_end(content_hash)
            if len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)
