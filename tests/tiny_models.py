"""Tiny models of the catalogue's architectures: random weights, and tokenizers of their kind."""

from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel, XLMRobertaConfig, XLMRobertaModel

from freshvec.models.catalogue import ModelCard
from freshvec.stdlib_texts import docstrings

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 600,
}
CARD = ModelCard(name="tiny", source="none/tiny", dimension=64, max_tokens=48, pooling="mean")


@cache
def wordpiece() -> HuggingFaceTokenizer:
    """BERT's: lower case, words split at white space and punctuation, [CLS] and [SEP]."""
    made = HuggingFaceTokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    made.train_from_iterator(_texts(), trainer)
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


@cache
def unigram() -> HuggingFaceTokenizer:
    """XLM-RoBERTa's: pieces that carry the blank before them, <s> and </s>, padding is 1."""
    made = HuggingFaceTokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=specials, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(_texts(), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made


@cache
def byte_level() -> HuggingFaceTokenizer:
    """RoBERTa's: bytes, a blank belongs to the word behind it."""
    made = HuggingFaceTokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>", "<pad>", "</s>"], show_progress=False
    )
    made.train_from_iterator(_texts(), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made


@cache
def _texts() -> list[str]:
    return [text for _, text in islice(docstrings(), 600)]


def bert(folder: Path) -> None:
    """Save such a model to a folder."""
    torch.manual_seed(1)
    # Weights so large that rounding them to int8 shows in the cosines.
    config = BertConfig(**SHAPE, max_position_embeddings=64, initializer_range=0.2)
    BertModel(config).save_pretrained(folder)
    wordpiece().save(str(folder / "tokenizer.json"))


def xlm_roberta(folder: Path) -> None:
    """Save such a model to a folder."""
    torch.manual_seed(1)
    XLMRobertaModel(XLMRobertaConfig(**SHAPE, max_position_embeddings=66, pad_token_id=1)).save_pretrained(
        folder
    )
    unigram().save(str(folder / "tokenizer.json"))


def mpnet(folder: Path) -> None:
    """Save such a model to a folder."""
    torch.manual_seed(1)
    MPNetModel(MPNetConfig(**SHAPE, max_position_embeddings=66, pad_token_id=1)).save_pretrained(folder)
    wordpiece().save(str(folder / "tokenizer.json"))
