"""Reference vectors of a model: what it makes of some texts, kept beside its card as `NAME.vectors.json`."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from freshvec import data
from freshvec.errors import ModelError
from freshvec.models.catalogue import ModelCard
from freshvec.records import Vector


class Reference(BaseModel):
    """Texts with their vectors by torch in fp32, made from the weights of that sha256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights_sha256: str
    texts: tuple[str, ...]
    vectors: tuple[str, ...]  # float16 in base64: that costs a cosine less than 1e-7

    @classmethod
    def of(cls, weights_sha256: str, texts: Iterable[str], vectors: Vector) -> Self:
        coded = (base64.b64encode(vector.astype("<f2").tobytes()).decode() for vector in vectors)
        return cls(weights_sha256=weights_sha256, texts=tuple(texts), vectors=tuple(coded))

    @classmethod
    def find(cls, card: ModelCard, folders: Iterable[Path] = ()) -> Self | None:
        """Those of that model, the last folder first; None where nobody keeps any. Raises ModelError."""
        for folder in reversed((data.folder("models"), *folders)):
            path = folder / f"{card.name}.vectors.json"
            if path.exists():
                try:
                    return cls.model_validate_json(path.read_text(encoding="utf-8"))
                except (OSError, ValidationError) as error:
                    problem = f"{path} is unusable: {error}"
                    raise ModelError("read", f"the vectors of model {card.name!r}", problem) from error
        return None

    def matrix(self) -> Vector:
        """float32 `[texts, dimension]`."""
        rows = [np.frombuffer(base64.b64decode(text), dtype="<f2") for text in self.vectors]
        return np.stack(rows).astype(np.float32)
