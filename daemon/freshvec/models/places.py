"""Where exported models lie: one folder for the whole machine, and one for each user."""

import os
from pathlib import Path

MACHINE = Path("/var/lib/freshvec/models")
"""Root's exports go there; the service and every user find them."""
_STATE = MACHINE.parent / "state"  # the service's own, by the unit's StateDirectory


def folders() -> tuple[Path, ...]:
    """Where models are looked for, in this order, unless the settings say it. Exports go to the first."""
    try:
        own = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "freshvec/models"
    except RuntimeError:  # the service's user has no home
        return (MACHINE,)
    return (MACHINE, own) if os.geteuid() == 0 else (own, MACHINE)


def card_folders(models: Path | None, catalogue: tuple[Path, ...]) -> tuple[Path, ...]:
    """Where the user's own cards are looked for: beside the exports, where `describe` writes them, and in the
    settings' `catalogue_dirs`, which win."""
    return (*reversed((models,) if models else folders()), *catalogue)


def learnt(models: Path) -> Path:
    """The folder in which a worker keeps what it found out: the unit's state directory, else that of the
    models.

    Root's commands use the service's as well, where there is one.
    """
    if "STATE_DIRECTORY" in os.environ:
        return Path(os.environ["STATE_DIRECTORY"].split(":")[0])
    return _STATE if models == MACHINE and os.access(_STATE, os.W_OK) else models
