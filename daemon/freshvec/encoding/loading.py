"""From the settings to loaded encoders, each with the batch size that was found for it."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from freshvec.config import Settings, Sync
from freshvec.encoding.budget import BatchBudget, BudgetMemory, first_guess
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.machine import gpu_memory, machine
from freshvec.encoding.precision import Precisions
from freshvec.encoding.trial import Trials
from freshvec.errors import ModelError, UnusableModelError
from freshvec.models import catalogue, places
from freshvec.models.artefact import Artefact, of_cut
from freshvec.models.catalogue import ModelCard
from freshvec.records import Encoder, Model


class Models:
    """The models of one configuration: their cards, their exported files, and encoders of them.

    `folder` is where exports go.
    """

    def __init__(self, settings: Settings) -> None:
        given = settings.daemon.models_dir
        self._folders = (given,) if given else places.folders()
        self.folder = self._folders[0]
        self.catalogue_dirs = places.card_folders(given, settings.daemon.catalogue_dirs)
        learnt = places.learnt(self.folder)
        self.budgets = BudgetMemory(learnt)
        self.trials = Trials(learnt)
        self.precisions = Precisions(settings, self.trials)
        self._daemon = settings.daemon

    def card(self, name: str) -> ModelCard:
        """The card called `name`. Raises ModelError that lists what there is."""
        return catalogue.find(name, self.catalogue_dirs)

    def artefact(self, name: str) -> Artefact:
        """Its exported files. Raises ModelError when there are none or its card has changed."""
        return self._open(self.card(name))

    def exported(self, cards: Iterable[ModelCard]) -> dict[str, Artefact]:
        """The exported files of those of the cards that have some which can be used, by name."""
        found = {}
        for card in cards:
            with suppress(ModelError):
                found[card.name] = self._open(card)
        return found

    def _open(self, card: ModelCard) -> Artefact:
        there = [folder for folder in self._folders if _may_have(folder / card.name)]
        if not there:
            raise UnusableModelError(
                "load",
                f"model {card.name!r}",
                f"it is not exported to {' or '.join(map(str, self._folders))}",
                f"Run `{card.command}`.",
            )
        return Artefact.open(there[0], card)

    def describe(self, sync: Sync) -> Model:
        """What the database side needs to know of a sync's model, without loading its graph.

        Raises ModelError; also where the model's vectors cannot be cut as the sync declares.
        """
        artefact = self.artefact(sync.model)
        dimension = _dimension(artefact.card, sync)
        fingerprint = artefact.fingerprint(self.precisions.chosen(artefact) or "fp32", dimension)
        kin = self.precisions.kin(artefact, dimension)
        return Model(sync.model, dimension, artefact.card.max_tokens, fingerprint, kin)

    def describe_loaded(self, sync: Sync, loaded: Encoder) -> Model:
        """The same of a model that is loaded."""
        dimension, fingerprint = loaded.dimension, loaded.fingerprint
        if sync.target.dimensions not in (None, dimension):
            dimension = _dimension(self.card(sync.model), sync)
            fingerprint = of_cut(fingerprint, dimension)
        kin: tuple[bytes, ...] = ()
        with suppress(ModelError):  # it may be no model of the catalogue's
            kin = self.precisions.kin(self.artefact(sync.model), dimension)
        return Model(sync.model, dimension, loaded.max_tokens, fingerprint, kin)

    def encoder(self, name: str) -> OnnxEncoder:
        """The model, loaded on the configured device. Raises ModelError, DeviceError."""
        artefact = self.artefact(name)
        precision = self.precisions.chosen(artefact)
        self.precisions.check(artefact, precision)
        is_quick = self.trials.is_quick(artefact)
        device, threads = self._daemon.device, self._daemon.threads
        return OnnxEncoder(artefact, device, threads, precision=precision, is_quick=is_quick)

    def is_mistaken(self, name: str, loaded: Encoder) -> bool:
        """Whether it was loaded while the database could not be asked for its precision, which is another."""
        if name not in self.precisions.unasked:
            return False
        try:
            artefact = self.artefact(name)
        except ModelError:  # what is loaded goes on
            return False
        return artefact.fingerprint(self.precisions.chosen(artefact) or "fp32") != loaded.fingerprint

    def dispatcher(self, name: str, loaded: Encoder) -> Dispatcher:
        """Its dispatcher; the batch size is configured, found before a restart, or a first guess."""
        if self._daemon.batch_tokens:
            return Dispatcher(loaded, BatchBudget(self._daemon.batch_tokens, fixed=True))
        known = self.budgets.recall(name, where(loaded))
        first = self.first_batch_tokens(name, loaded)
        return Dispatcher(loaded, BatchBudget(first, known=known))

    def first_batch_tokens(self, name: str, loaded: Encoder) -> int:
        """Padded tokens of a first batch: configured, found before a restart, or a first guess."""
        if self._daemon.batch_tokens:
            return self._daemon.batch_tokens
        memory = gpu_memory(loaded.device)
        guess = first_guess(memory.free if memory else None, loaded.precision)
        return self.budgets.recall(name, where(loaded)).size or guess

    def keep_budget(self, name: str, dispatcher: Dispatcher) -> None:
        """Note where the search for its batch size stands."""
        self.budgets.keep(name, where(dispatcher.encoder), dispatcher.budget)


def _dimension(card: ModelCard, sync: Sync) -> int:
    """The dimension of a sync's vectors. Raises UnusableModelError where the model cannot be cut to it."""
    wanted = sync.target.dimensions
    if wanted in (None, card.dimension):
        return card.dimension
    if wanted in card.matryoshka:
        return wanted
    possible = ", ".join(map(str, sorted((*card.matryoshka, card.dimension))))
    problem = "its card lists no dimension to which its vectors may be cut"
    if card.matryoshka:
        problem = f"its vectors may be cut to {possible}, and to nothing else"
    raise UnusableModelError(
        "use",
        f"model {card.name!r} with {wanted} dimensions for sync {sync.name!r}",
        problem,
        f"Write one of {possible}, or leave dimensions out.",
    )


def where(loaded: Encoder) -> str:
    """What a batch size was found for: the device, the precision and the machine."""
    return f"{loaded.device} in {loaded.precision}, {machine()}"


def _may_have(folder: Path) -> bool:
    """Whether it is there, or hidden from this user, who is then told so."""
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        pass
    return True
