"""A second model for tests of swaps: the real one under another card, whose vectors are others since it puts
words before each text."""

from pathlib import Path

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.models.artefact import MANIFEST
from tests.exports import exported
from tests.support import MODEL, models_in

SECOND = "mini-two"
_CARD = """
name = "mini-two"
source = "none/mini-two"
dimension = 384
max_tokens = 128
pooling = "mean"
document_prefix = "a note about "
"""


def two_models(folder: Path) -> Path:
    """A folder with both models and the second one's card."""
    there = exported()
    (folder / SECOND).mkdir(parents=True)
    (folder / MODEL).symlink_to(there / MODEL)
    (folder / f"{SECOND}.toml").write_text(_CARD, encoding="utf-8")
    models = models_in(folder)
    for path in (there / MODEL).iterdir():
        if path.name != MANIFEST:
            (folder / SECOND / path.name).symlink_to(path)
    manifest = models.artefact(MODEL).model_copy(update={"card": models.card(SECOND)})
    text = manifest.model_dump_json(exclude={"folder"})
    (folder / SECOND / MANIFEST).write_text(text, encoding="utf-8")
    return folder


def encoder_of(folder: Path, name: str) -> OnnxEncoder:
    """One of them on the CPU."""
    return models_in(folder, device="cpu").encoder(name)
