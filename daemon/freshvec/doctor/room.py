"""Room on disks: where the models are, and where the server's files are if that is this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from freshvec.db import queries
from freshvec.doctor.finding import Finding, fault, ok, warning
from freshvec.doctor.place import Place

_SQL = queries("doctor/room")
_LITTLE, _NONE = 2e9, 2e8  # bytes


def here(place: Place) -> Iterator[Finding]:
    """The models' folder, or the one that it will be made in."""
    folder = place.models.folder
    while not folder.exists():
        folder = folder.parent
    yield _judged("disk", folder, "a model cannot be exported, nor the batch size be kept")


def of_the_server(place: Place) -> Iterator[Finding]:
    """The server's data folder, where it is on this machine and its name may be known."""
    folder = place.connection.execute(_SQL["data_directory"]).fetchone()
    is_here = not place.connection.info.host or place.connection.info.host.startswith("/")
    if folder is None or folder[0] is None or not is_here or not Path(folder[0]).parent.exists():
        size = place.connection.execute(_SQL["database_size"]).fetchone()
        yield ok("disk of the server", f"not to be seen from here; the database has {size and size[0]}")
        return
    yield _judged("disk of the server", Path(folder[0]).parent, "Postgres stops when its disk is full")


def _judged(subject: str, folder: Path, why: str) -> Finding:
    usage = shutil.disk_usage(folder)
    what = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB are free at {folder}"
    if usage.free < _NONE:
        return fault(subject, what, why, f"free some; du -xh {folder} | sort -h | tail shows what is large")
    if usage.free < _LITTLE:
        return warning(subject, what, why, f"free some; du -xh {folder} | sort -h | tail shows what is large")
    return ok(subject, what)
