"""Which model to propose: one that is exported here, else the smallest that suits the texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from freshvec.encoding.loading import Models
from freshvec.encoding.rate import Rates
from freshvec.models import catalogue
from freshvec.models.catalogue import ModelCard

SMALL, LONGER, MULTILINGUAL = "all-MiniLM-L6-v2", "bge-small-en-v1.5", "multilingual-e5-small"
_CHARACTERS_PER_TOKEN = 4.2  # of English, as a guess where no tokenizer is at hand
_MUCH_CUT = 0.1  # share of texts that a model cuts
_ENGLISH = 0.97  # share of ASCII characters at least


@dataclass(frozen=True)
class Choice:
    """The model to propose, whether it is exported here, and what else to think of."""

    card: ModelCard
    is_exported: bool
    advice: str = ""

    def lengths(self, rates: Rates) -> Callable[[Sequence[str]], list[int]]:
        """How to count tokens: by its tokenizer where it is exported, else by characters."""
        if self.is_exported:
            return lambda texts: rates.lengths(self.card.name, texts)
        return lambda texts: [2 + round(len(text) / _CHARACTERS_PER_TOKEN) for text in texts]


def choose(models: Models, wanted: str | None, texts: Sequence[str], rates: Rates) -> Choice:
    """The model of that name, or one that suits the texts. Raises ModelError for a name that is none."""
    cards = catalogue.load(models.catalogue_dirs)
    exported = list(models.exported(cards.values()))
    if wanted is not None:
        return Choice(models.card(wanted), wanted in exported)
    ideal = _ideal(texts)
    if not exported or ideal in exported:
        return Choice(cards[ideal], ideal in exported)
    best = Choice(cards[SMALL if SMALL in exported else exported[0]], is_exported=True)
    return replace(best, advice=_advice(best, cards[ideal], texts, rates))


def _ideal(texts: Sequence[str]) -> str:
    """The smallest model of the catalogue that suits the texts, whether exported or not."""
    letters = max(sum(map(len, texts)), 1)
    if sum(sum(letter < "\x80" for letter in text) for text in texts) < _ENGLISH * letters:
        return MULTILINGUAL
    long = sum(len(text) > 256 * _CHARACTERS_PER_TOKEN for text in texts)
    return LONGER if long > _MUCH_CUT * len(texts) else SMALL


def _advice(choice: Choice, ideal: ModelCard, texts: Sequence[str], rates: Rates) -> str:
    """What another model would do better, if it would."""
    other = f"{ideal.command}, then freshvec init --model {ideal.name}"
    if ideal.name == MULTILINGUAL:
        return f"{choice.card.name} is for English, and these texts seem to be in other languages: {other}"
    cut = sum(length > choice.card.max_tokens for length in choice.lengths(rates)(texts)) / max(len(texts), 1)
    if cut <= _MUCH_CUT or choice.card.max_tokens >= ideal.max_tokens:
        return ""
    return (
        f"{cut:.0%} of the texts are cut at {choice.card.max_tokens} tokens; "
        f"{ideal.name} reads {ideal.max_tokens}: {other}"
    )
