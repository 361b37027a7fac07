"""Whether vectors are their texts': each against a fresh encoding, in every layout."""

from typing import LiteralString

import numpy as np

from freshvec.records import Encoder, Vector
from tests.support import Connection

EVERY_ROW = """
SELECT d.id, t.id, CASE WHEN btrim(d.body, E' \\t\\r\\n\\f') <> '' THEN d.body END, t.embedding::text
  FROM docs d FULL JOIN docs_embedding t USING (id)
"""
EVERY_ROW_SHOWN = EVERY_ROW.replace("docs_embedding", "docs_embedded")

# The same of texts that are cut, each short enough for one passage.
EVERY_ROW_CUT = EVERY_ROW.replace("t.embedding", "c.embedding").replace(
    "USING (id)", "USING (id) LEFT JOIN docs_chunk c ON c.id = t.id"
)

# The same of vectors in the table itself; one that its companion does not tell of counts as none.
EVERY_ROW_IN_COLUMN = """
SELECT d.id, t.id, CASE WHEN btrim(d.body, E' \\t\\r\\n\\f') <> '' THEN d.body END,
       CASE WHEN btrim(d.body, E' \\t\\r\\n\\f') <> ''
             AND t.vector_hash IS DISTINCT FROM substring(sha256(vector_send(d.embedding)) FROM 1 FOR 16)
            THEN NULL ELSE d.embedding::text END
  FROM docs d FULL JOIN docs_embedding t USING (id)
"""


def stale(connection: Connection, encoder: Encoder, every_row: LiteralString = EVERY_ROW) -> list[str]:
    """What is wrong at rest with `docs`: every vector against a fresh encoding of its row's current text."""
    wrong, have = [], []
    for source, copy, text, vector in connection.execute(every_row):
        if source is None:
            wrong.append(f"{copy}: orphaned")
        elif text is not None and vector is None:
            wrong.append(f"{source}: missing")
        elif text is None and vector is not None:
            wrong.append(f"{source}: kept the vector of a text that is gone")
        elif text is not None:
            have.append((source, text, as_vector(vector)))
    if not have:
        return wrong
    fresh = np.asarray(encoder.encode(encoder.tokenize([text for _, text, _ in have])))
    kept = np.stack([vector for *_, vector in have])
    lengths = np.linalg.norm(kept, axis=1) * np.linalg.norm(fresh, axis=1)
    cosines = (kept * fresh).sum(axis=1) / lengths
    judged = zip(have, cosines, strict=True)
    return wrong + [f"{row}: cosine {cosine:.4f}" for (row, *_), cosine in judged if cosine <= 0.9999]


def as_vector(text: str) -> Vector:
    """A vector as Postgres prints it, of pgvector's types or as an array."""
    return np.array(text.strip("[]{}").split(","), dtype=np.float32)
