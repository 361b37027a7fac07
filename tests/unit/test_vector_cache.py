"""The cache of vectors is bounded."""

import numpy as np

from freshvec.encoding.vector_cache import RecentVectors


def test_recent_vectors_are_bounded() -> None:
    recent = RecentVectors(4, capacity_bytes=10 * (16 + 400))
    for number in range(100):
        recent.put(bytes([number]), np.full(4, number, dtype=np.float32))
    assert recent.get(bytes([89])) is None
    kept = recent.get(bytes([99]))
    assert kept is not None
    assert kept[0] == 99
