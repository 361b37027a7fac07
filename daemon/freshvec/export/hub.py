"""Files of a model's repository on the Hugging Face hub, or on a mirror of it that HF_ENDPOINT names."""

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from freshvec.errors import ModelError
from freshvec.models.catalogue import ModelCard

_PIECE = 1 << 20
_PATIENCE = 60.0  # seconds without a byte


def endpoint() -> str:
    """The hub's address. Raises ModelError for one that is none."""
    address = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not address.startswith(("https://", "http://")):
        remedy = "Write one as in https://huggingface.co."
        raise ModelError("reach", "the hub", f"HF_ENDPOINT is {address!r}, which is no address", remedy)
    return address


def download(card: ModelCard, name: str, to: Path) -> str:
    """Save a file of the card's revision; the sha256 of what came. Raises ModelError."""
    url = f"{endpoint()}/{card.source}/resolve/{card.revision or 'main'}/{name}"
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer, to.open("wb") as file:
            while piece := answer.read(_PIECE):
                digest.update(piece)
                file.write(piece)
    except (OSError, urllib.error.URLError) as error:
        raise ModelError(
            "download",
            f"model {card.name!r}",
            f"{url}: {error}",
            "HF_ENDPOINT names a mirror, https_proxy a proxy; --from a folder with the files.",
        ) from error
    return digest.hexdigest()
