"""The model catalogue: one TOML file per model, those that come with freshvec and the user's own."""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from freshvec import data
from freshvec.errors import UnusableModelError


class Published(BaseModel):
    """The ONNX file that a model's own repository publishes: the encoder alone, without pooling."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = "onnx/model.onnx"
    sha256: str


class ModelCard(BaseModel):
    """What is needed to export and use a model. Prefixes go before each text; limits count tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str  # repository id on the Hugging Face hub, or a folder
    revision: str = ""
    package: str | None = None  # an installed Python package whose get_model_path() holds the same bytes
    licence: str = ""
    dimension: int = Field(gt=0)
    matryoshka: tuple[int, ...] = ()
    max_tokens: int = Field(gt=2)
    pooling: Literal["mean", "cls"]
    normalize: bool = True
    query_prefix: str = ""
    document_prefix: str = ""
    fp16: Literal["safe", "overflows", "unknown"] = "unknown"
    sha256: dict[str, str] = {}
    onnx: Published | None = None  # what `freshvec fetch` takes

    @property
    def command(self) -> str:
        """The command that makes an artefact of it."""
        return f"freshvec {'fetch' if self.onnx else 'export'} {self.name}"


def load(folders: Iterable[Path] = ()) -> dict[str, ModelCard]:
    """Every card by name; a card in `folders` replaces an earlier one of the same name.

    Raises UnusableModelError that names a faulty file and its faults.
    """
    cards = {}
    for folder in (data.folder("models"), *folders):
        for path in sorted(folder.glob("*.toml")):
            try:
                card = ModelCard.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
            except ValidationError as error:
                raise UnusableModelError(
                    "read", f"model description {path}", faults_of(error), "Correct the file."
                ) from error
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise UnusableModelError(
                    "read", f"model description {path}", str(error), "Correct the file."
                ) from error
            cards[card.name] = card
    return cards


def faults_of(error: ValidationError) -> str:
    """Every fault of a card: its key, and what is wrong with it."""
    faults = []
    for detail in error.errors(include_url=False):
        key = ".".join(map(str, detail["loc"]))
        if detail["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, list(ModelCard.model_fields), n=1)
            hint = f"did you mean {near[0]}" if near else f"possible are {', '.join(ModelCard.model_fields)}"
            faults.append(f"{key}: there is no such key; {hint}")
        elif detail["type"] == "missing":
            faults.append(f"{key}: it is missing")
        else:
            faults.append(f"{key}: {detail['msg'].lower()}, but it says {detail['input']!r}")
    return "; ".join(faults)


def find(name: str, folders: Iterable[Path] = ()) -> ModelCard:
    """The card called `name`. Raises UnusableModelError that lists what there is."""
    cards = load(folders)
    if name not in cards:
        raise UnusableModelError(
            "find",
            f"model {name!r}",
            "it is not in the catalogue",
            f"{_meant(name, cards)} `freshvec describe FOLDER` adds one of your own.",
        )
    return cards[name]


def _meant(name: str, known: Iterable[str]) -> str:
    """The model that was probably meant, by itself or without the repository's owner, else all there are."""
    by_lower = {card.lower(): card for card in known}
    near = difflib.get_close_matches(name.lower().rpartition("/")[2], list(by_lower), n=1)
    if near:
        return f"Did you mean {by_lower[near[0]]}? `freshvec models` lists all."
    return f"Known are: {', '.join(by_lower.values())}."
