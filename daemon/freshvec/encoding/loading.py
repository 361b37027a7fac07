"""From the settings to loaded encoders, each with the batch size that was found for it."""

from freshvec.config import Settings
from freshvec.encoding.budget import BatchBudget, BudgetMemory, first_guess
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.machine import gpu_memory
from freshvec.errors import ModelError
from freshvec.models import catalogue
from freshvec.models.artefact import Artefact, default_models_dir
from freshvec.models.catalogue import ModelCard
from freshvec.records import Encoder, Model


class Models:
    """The models of one configuration: their cards, their exported files, and encoders of them."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.daemon.models_dir or default_models_dir()
        self.catalogue_dirs = settings.daemon.catalogue_dirs
        self.budgets = BudgetMemory(self.folder)
        self._daemon = settings.daemon

    def card(self, name: str) -> ModelCard:
        """The card called `name`. Raises ModelError that lists what there is."""
        return catalogue.find(name, self.catalogue_dirs)

    def artefact(self, name: str) -> Artefact:
        """Its exported files. Raises ModelError when there are none or its card has changed."""
        return Artefact.open(self.folder, self.card(name))

    def if_exported(self, name: str) -> Artefact | None:
        """Its exported files, None where there are none that can be used, or no such model."""
        try:
            return self.artefact(name)
        except ModelError:
            return None

    def describe(self, name: str) -> Model:
        """What the database side needs to know of it, without loading its graph. Raises ModelError."""
        artefact = self.artefact(name)
        fingerprint = artefact.fingerprint(self._daemon.precision or "fp32")
        return Model(name, artefact.card.dimension, artefact.card.max_tokens, fingerprint)

    def encoder(self, name: str) -> OnnxEncoder:
        """The model, loaded on the configured device. Raises ModelError, DeviceError."""
        daemon = self._daemon
        return OnnxEncoder(self.artefact(name), daemon.device, daemon.threads, precision=daemon.precision)

    def dispatcher(self, name: str, loaded: Encoder) -> Dispatcher:
        """Its dispatcher; the batch size is configured, found before a restart, or a first guess."""
        if self._daemon.batch_tokens:
            return Dispatcher(loaded, BatchBudget(self._daemon.batch_tokens, fixed=True))
        ceiling = self.budgets.recall(name, loaded.device).ceiling
        return Dispatcher(loaded, BatchBudget(self.first_batch_tokens(name, loaded.device), ceiling=ceiling))

    def first_batch_tokens(self, name: str, device: str) -> int:
        """Padded tokens of a first batch: configured, found before a restart, or a first guess."""
        if self._daemon.batch_tokens:
            return self._daemon.batch_tokens
        memory = gpu_memory(device)
        return self.budgets.recall(name, device).size or first_guess(memory.free if memory else None)
