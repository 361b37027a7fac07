"""A model's card, from its own files: its shape, and what sentence-transformers keeps beside the weights."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from freshvec.errors import ModelError
from freshvec.export import card_check
from freshvec.export.export import download
from freshvec.models import catalogue
from freshvec.models.artefact import checksum
from freshvec.models.catalogue import ModelCard, faults_of

_PINNED = ("model.safetensors", "tokenizer.json", "config.json")
_PROMPTS = "config_sentence_transformers.json"
FILES = (*card_check.FILES, _PROMPTS, "README.md")
_QUERY = ("query", "search_query", "web_search_query")
_DOCUMENT = ("document", "passage", "search_document", "corpus")


def describe(
    folder: Path, name: str, source: str, *, revision: str = "", given: dict[str, str] | None = None
) -> ModelCard:
    """The card of the model whose files are in `folder`; `given` are keys that its files do not tell.

    Raises ModelError that lists whatever is missing, and whatever cannot be exported.
    """
    lacking = [file for file in _PINNED if not (folder / file).exists()]
    if lacking:
        remedy = "freshvec reads safetensors and tokenizer.json alone, and no pickles."
        raise ModelError("describe", str(folder), f"it has no {' and no '.join(lacking)}", remedy)
    config = card_check.table(folder / "config.json")
    told = _pooled(folder) | _prompts(folder) | _licence(folder) | (given or {})
    if "pooling" not in told:
        problem = "its files do not say how tokens are pooled"
        raise ModelError("describe", str(folder), problem, "Say it: --pooling mean, or --pooling cls.")
    limit, dimension = _limit(folder, config), config.get("hidden_size")
    if limit is None or dimension is None:
        problem = "config.json does not say its hidden_size and max_position_embeddings"
        raise ModelError("describe", str(folder), problem, "Write its card by hand, like the catalogue's.")
    values = {
        "name": name,
        "source": source,
        "revision": revision,
        "dimension": dimension,
        "max_tokens": limit,
        "normalize": "Normalize" in card_check.steps(folder) or not card_check.steps(folder),
        "sha256": {file: checksum(folder / file) for file in _PINNED},
    }
    try:
        card = ModelCard.model_validate(values | told)
    except ValidationError as error:
        raise ModelError("describe", str(folder), faults_of(error), "Correct that, or say it.") from error
    card_check.check(card, folder)
    return card


@dataclass(frozen=True)
class Described:
    """A card, and the folder whose files it tells of."""

    card: ModelCard
    folder: Path


def described(source: str, name: str | None, given: dict[str, str]) -> Described:
    """The card of a folder's model, or of a repository's on the hub. Raises ModelError."""
    name = name or name_of(source)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is None:
        remedy = "Give --name, of letters, digits, dots, hyphens and underscores."
        raise ModelError("describe", source, f"a model cannot be called {name!r}", remedy)
    if name in catalogue.load():
        remedy = "Give --name, or export the catalogue's: its files are pinned."
        raise ModelError("describe", source, f"the catalogue has a model {name!r}", remedy)
    if Path(source).is_dir():
        folder = Path(source).resolve()
        return Described(describe(folder, name, str(folder), given=given), folder)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        remedy = "Give a folder with the model's files, or OWNER/NAME of a repository."
        raise ModelError("describe", source, "there is no such folder", remedy)
    folder = download(source, "", FILES)
    return Described(describe(folder, name, source, revision=folder.name, given=given), folder)


def keep(card: ModelCard, path: Path) -> None:
    """Write the card where it is looked for. Raises ModelError where that may not be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.new")
        scratch.write_text(written(card), encoding="utf-8")
        scratch.chmod(0o644)
        scratch.replace(path)
    except OSError as error:
        problem, remedy = error.strerror or str(error), "Do it as root, or name another folder: --models-dir."
        raise ModelError("write", str(path), problem, remedy) from error


def name_of(source: str) -> str:
    """What a model of that folder or repository is called: the last part, in letters that a name may have."""
    last = Path(source).resolve().name if source in (".", "..") else source.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "model"


def written(card: ModelCard) -> str:
    """The card as a TOML file."""
    values = card.model_dump(exclude_defaults=True, exclude={"sha256"})
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    sums = [f'"{file}" = "{checksum}"' for file, checksum in card.sha256.items()]
    return "\n".join(
        ["# Written by `freshvec describe` from the model's own files.", *lines, "", "[sha256]", *sums, ""]
    )


def _pooled(folder: Path) -> dict[str, str]:
    modes = card_check.pooling_of(card_check.table(folder / "1_Pooling/config.json"))
    if not modes:
        return {}
    if len(modes) > 1 or not modes <= {"mean", "cls"}:
        problem = f"it pools tokens by {' and '.join(sorted(modes))}"
        raise ModelError(
            "describe", str(folder), problem, "freshvec exports models that pool by mean or cls."
        )
    return {"pooling": modes.pop()}


def _prompts(folder: Path) -> dict[str, str]:
    told = card_check.table(folder / _PROMPTS).get("prompts")
    prompts = told if isinstance(told, dict) else {}
    query = next((prompts[key] for key in _QUERY if prompts.get(key)), "")
    document = next((prompts[key] for key in _DOCUMENT if prompts.get(key)), "")
    return {"query_prefix": query, "document_prefix": document}


def _licence(folder: Path) -> dict[str, str]:
    """As the first lines of the model's README have it."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    found = re.match(r"---\n(?:.*\n)*?license:[ \t]*([\w.+-]+)[ \t]*\n", text)
    return {"licence": found[1]} if found else {}


def _limit(folder: Path, config: dict[str, Any]) -> int | None:
    """The tokens of a text that the model reads: the least of what its files say."""
    described = card_check.table(folder / "sentence_bert_config.json")
    tokenizer = card_check.table(folder / "tokenizer_config.json")
    said = [card_check.positions(config), described.get("max_seq_length"), tokenizer.get("model_max_length")]
    limits = [limit for limit in said if isinstance(limit, int | float) and limit < 10**9]
    return math.floor(min(limits)) if limits else None
