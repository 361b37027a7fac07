"""The place that is examined: the settings, their models, and a connection."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from freshvec.config import Settings
from freshvec.db import Connection
from freshvec.doctor.finding import Finding
from freshvec.encoding.loading import Models
from freshvec.models import catalogue
from freshvec.models.catalogue import ModelCard

Check = Callable[["Place"], Iterator[Finding]]


@dataclass
class Place:
    """What the checks look at. `file` is None where the configuration came from no file."""

    settings: Settings
    file: Path | None
    database: Connection | None = None
    notes: dict[str, str] = field(default_factory=dict)  # by sync: what its file should say

    @property
    def connection(self) -> Connection:
        """The connection; the checks that need one run only where there is one."""
        assert self.database is not None
        return self.database

    @cached_property
    def models(self) -> Models:
        return Models(self.settings)

    @property
    def model_names(self) -> list[str]:
        """The models that are declared, each once."""
        return sorted({sync.model for sync in self.settings.sync})

    @property
    def cards(self) -> list[ModelCard]:
        """Those of the declared models that are in the catalogue."""
        known = catalogue.load(Models(self.settings).catalogue_dirs)
        return [known[name] for name in self.model_names if name in known]
