"""Other libraries that encode with the same model, measured beside ours with their default settings."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, get_args

from freshvec.errors import ModelError
from freshvec.export.export import locate
from freshvec.models.catalogue import ModelCard

Baseline = Literal["sentence-transformers", "fastembed"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
EncodeAll = Callable[[list[str]], object]  # tokenises and encodes all of them


def open_baseline(name: Baseline, card: ModelCard, device: str) -> EncodeAll:
    """The baseline's encoder on `device` (cpu, cuda, cuda:1), reading as many tokens as ours.

    Nothing is downloaded. Raises ModelError that says why it cannot be measured.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        encode = (
            _sentence_transformers(card, device)
            if name == "sentence-transformers"
            else _fastembed(card, device)
        )
        encode(["one text, so that the first pass finds everything loaded"])
    except ImportError as error:
        missing = error.name or name
        raise ModelError(
            "measure", name, f"package {missing} is not installed", f"Run: pip install {missing}"
        ) from error
    except ModelError:
        raise
    except Exception as error:  # these libraries raise whatever their own libraries raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError("measure", name, f"it cannot load {card.source}: {reason}") from error
    return encode


def _sentence_transformers(card: ModelCard, device: str) -> EncodeAll:
    module = import_module("sentence_transformers")
    model: Any = module.SentenceTransformer(str(locate(card)), device=device, local_files_only=True)
    model.max_seq_length = card.max_tokens
    return lambda texts: model.encode(
        [card.document_prefix + text for text in texts], show_progress_bar=False
    )


def _fastembed(card: ModelCard, device: str) -> EncodeAll:
    module = import_module("fastembed")
    known = {model["model"].lower(): model["model"] for model in module.TextEmbedding.list_supported_models()}
    if card.source.lower() not in known:
        raise ModelError("measure", "fastembed", f"it does not know {card.source}")
    where: dict[str, Any] = {"cuda": device != "cpu"}
    if device != "cpu":
        where["device_ids"] = [int(device.partition(":")[2] or 0)]
    model: Any = module.TextEmbedding(known[card.source.lower()], local_files_only=True, **where)
    return lambda texts: list(model.embed([card.document_prefix + text for text in texts]))
