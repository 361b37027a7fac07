"""Write models/NAME.vectors.json: what torch makes of some texts, by which `freshvec fetch` knows a model.

scripts/reference_vectors.py NAME
"""

import json
import sys

from freshvec import data
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.export import gate
from freshvec.export.export import load_torch, locate, verify
from freshvec.models import catalogue
from freshvec.models.reference import Reference

_SHORT = (
    "a",
    "How do I return an order?",
    "Zürich, 北京 и Москва 🙂",
    "SELECT 1;",
    "  blanks\tand\n\nlines  ",
)
_LONG = "A text that is longer than the model reads, so that the place of the cut shows. " * 40


def main(name: str) -> None:
    """Make the file for the catalogue's model of that name. Raises ModelError."""
    card = catalogue.find(name)
    folder = locate(card)
    weights = verify(card, folder, print)
    texts = [*_SHORT, _LONG, *gate.texts(18)]
    tokenizer = Tokenizer(folder / "tokenizer.json", card.max_tokens, card.document_prefix)
    pad_id = int(json.loads((folder / "config.json").read_text()).get("pad_token_id") or 0)
    vectors = gate.reference(load_torch(folder), card, tokenizer.encode(texts), pad_id)
    path = data.folder("models") / f"{name}.vectors.json"
    path.write_text(Reference.of(weights, texts, vectors).model_dump_json(indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}, {len(texts)} texts")


if __name__ == "__main__":
    main(sys.argv[1])
