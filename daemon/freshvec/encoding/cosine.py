"""How alike embeddings are."""

import numpy as np

from freshvec.records import Vector


def cosines(a: Vector, b: Vector) -> Vector:
    """Cosines `[rows]` of the rows of `a` with those of `b`, both `[rows, dimension]`.

    A row that is not finite has 0, so that no gate lets it pass.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine: Vector = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.nan_to_num(cosine, nan=0.0, posinf=0.0, neginf=0.0)
