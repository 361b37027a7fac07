"""The card compared with the model's own folder: an export by a wrong card would still pass its gate."""

import json
from pathlib import Path
from typing import Any

from freshvec.errors import ModelError
from freshvec.models.catalogue import ModelCard

# What sentence-transformers keeps beside the weights: the steps, how tokens are pooled, how many the model
# reads.
FILES = ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json")
_KNOWN = {"Transformer", "Pooling", "Normalize"}
_AFTER_PADDING = {
    "xlm-roberta",
    "roberta",
    "camembert",
    "mpnet",
}  # they count positions from after the pad id


def check(card: ModelCard, folder: Path) -> None:
    """Raises ModelError with every point in which the card disagrees with the folder."""
    config = table(folder / "config.json")
    faults = [*_shape(card, config), *_steps(card, folder)]
    if faults:
        raise ModelError(
            "export",
            f"model {card.name!r}",
            f"its card does not fit {folder}: {'; '.join(faults)}",
            "Correct the card, or choose another model.",
        )


def _shape(card: ModelCard, config: dict[str, Any]) -> list[str]:
    """What the model's `config.json` has against the card."""
    faults = []
    if "AutoModel" in (config.get("auto_map") or {}):  # what is loaded without it is another model
        faults.append("its repository asks to run code of its own, which freshvec never does")
    hidden = config.get("hidden_size")
    if hidden is not None and hidden != card.dimension:
        faults.append(f"dimension is {card.dimension}, config.json says {hidden}")
    most = positions(config)
    if most is not None and card.max_tokens > most:
        faults.append(f"max_tokens is {card.max_tokens}, the model has positions for {most}")
    return faults


def positions(config: dict[str, Any]) -> int | None:
    """How many tokens the model has positions for, by its `config.json`; None where it does not say."""
    told = config.get("max_position_embeddings")
    is_after = config.get("model_type") in _AFTER_PADDING
    return None if told is None else told - (int(config.get("pad_token_id") or 0) + 1 if is_after else 0)


def steps(folder: Path) -> list[str]:
    """What a vector goes through, in the words of sentence-transformers; empty where nothing is said."""
    listed = read(folder / "modules.json")
    modules = [module for module in listed if isinstance(module, dict)] if isinstance(listed, list) else []
    return [str(module.get("type")).rsplit(".", 1)[-1] for module in modules]


def _steps(card: ModelCard, folder: Path) -> list[str]:
    """What sentence-transformers' description has against the card; nothing where there is none."""
    faults = []
    kinds = steps(folder)
    unknown = [kind for kind in kinds if kind not in _KNOWN]
    if unknown:
        faults.append(f"its vectors go through {', '.join(unknown)} as well, which freshvec cannot export")
    if "Normalize" in kinds and not card.normalize:
        faults.append("normalize is false, its own vectors are normalised")
    own = pooling_of(table(folder / "1_Pooling/config.json"))
    if own and own != {card.pooling}:
        faults.append(f"pooling is {card.pooling}, its own is {' and '.join(sorted(own))}")
    limit = table(folder / "sentence_bert_config.json").get("max_seq_length")
    if limit is not None and card.max_tokens > limit:
        faults.append(f"max_tokens is {card.max_tokens}, it reads {limit}")
    return faults


def pooling_of(config: dict[str, Any]) -> set[str]:
    """How the folder pools tokens (cls, mean, or other modes): by name, or by one flag per mode."""
    if isinstance(config.get("pooling_mode"), str):
        return {config["pooling_mode"]}
    modes = {
        key.removeprefix("pooling_mode_")
        for key, on in config.items()
        if on is True and key.startswith("pooling_mode_")
    }
    return {{"cls_token": "cls", "mean_tokens": "mean"}.get(mode, mode) for mode in modes}


def table(path: Path) -> dict[str, Any]:
    """A JSON file's table; empty where there is no such file, or it holds something else."""
    content = read(path)
    return content if isinstance(content, dict) else {}


def read(path: Path) -> Any:
    """A JSON file's content, None where there is no such file. Raises ModelError when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ModelError(
            "read", str(path), f"it is not JSON: {error}", "Get the file from its source again."
        ) from error
