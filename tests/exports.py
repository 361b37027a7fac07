"""The real model as the tests have it: exported once, and kept between runs."""

from fcntl import LOCK_EX, flock
from importlib.util import find_spec
from pathlib import Path

import pytest

from freshvec.encoding.loading import Models
from freshvec.errors import ModelError
from freshvec.models.artefact import Precision
from tests.support import MODEL, REPOSITORY, models_in

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def exported() -> Path:
    """A folder with the real model in every precision, which stays between runs, checked by its sha256."""
    folder = REPOSITORY / ".cache" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "exporting").open("w") as lock:  # several processes of tests, one export
        flock(lock, LOCK_EX)
        return _exported(models_in(folder))


def _exported(models: Models) -> Path:
    """Where it must be made and what makes it is not installed, the test that asks for it is skipped."""
    for learnt in ("budgets.json", "trials.json"):  # no run depends on what the last one learnt
        (models.folder / learnt).unlink(missing_ok=True)
    try:
        kept = models.artefact(MODEL)
        for precision in PRECISIONS:
            kept.path(precision)
        if kept.graphs["fp32"].data_sha256 is None:
            raise ModelError("use", "the export", "it is of before weights lay beside their graph")
    except ModelError:
        if find_spec("torch") is None:
            pytest.skip(f"{MODEL} is not exported, and torch is not installed: `make test` does both")
        from freshvec.export.export import export

        export(models.card(MODEL), models.folder)
    return models.folder
