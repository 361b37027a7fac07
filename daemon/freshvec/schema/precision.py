"""Where the precision is left open, it is that of the vectors there: no processor has all made anew."""

import json

from freshvec.errors import SchemaError
from freshvec.source.bound import BoundSync


def check(bound: BoundSync, applied: str | None) -> None:
    """Raises SchemaError where the applied definition has vectors of the same model in another precision than
    this process makes, and the settings leave it open."""
    model = bound.model
    others = {f"{model.name} {other.hex()}" for other in model.kin if other != model.fingerprint}
    if json.loads(applied or "{}").get("model") in others:
        raise SchemaError(
            "keep",
            f"sync {bound.name!r}",
            "its vectors are of another precision than this process makes, and the settings leave it open",
            "Restart freshvec; or write `precision`, with which every row is encoded anew.",
        )
