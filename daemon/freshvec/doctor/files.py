"""Files on this machine: the configuration and the models, and who may read and write them."""

import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

from psycopg import conninfo

from freshvec.doctor.finding import Finding, fault, ok, warning
from freshvec.doctor.place import Place
from freshvec.errors import FreshvecError
from freshvec.models.artefact import Artefact


def configuration(place: Place) -> Iterator[Finding]:
    """A password in a file that everybody reads, or a file that the service cannot read."""
    if place.file is None:
        return
    is_open = _is_open(place.file)
    if is_open and _has_password(place.file):
        yield warning(
            "configuration",
            f"{place.file} has a password in it, and every user of this machine may read it",
            "the password is no secret",
            f"chmod o-r {place.file}; or take it out: ~/.pgpass, or the service's credential database_url",
        )
        return
    closed = [path for path in (place.file.absolute().parent, place.file) if not _is_reached(path)]
    if closed and os.geteuid() == 0 and not place.file.absolute().is_relative_to(Path.home()):
        yield warning(
            "configuration",
            f"{closed[0]} may be read by its owner and group alone",
            "the service runs as a user of its own, who then cannot begin",
            f"chmod a+rX {place.file.absolute().parent} {place.file}, once no password is in it",
        )
        return
    count = len(place.settings.sync)
    yield ok("configuration", f"{place.file}: {count} sync{'' if count == 1 else 's'}")


def models(place: Place) -> Iterator[Finding]:
    """Each declared model: exported, whole, readable by the service, and writable by its owner alone."""
    folder = place.models.folder
    for name in place.model_names:
        try:
            artefact = place.models.artefact(name)
            paths = [artefact.tokenizer_path, *(artefact.path(precision) for precision in artefact.graphs)]
        except FreshvecError as error:
            yield fault("model files", error.problem, f"{name} cannot be loaded", error.remedy)
            continue
        except PermissionError as error:
            yield fault(
                "model files",
                f"{error.filename} may not be read by this user",
                f"{name} cannot be loaded",
                f"As its owner or root: chmod -R a+rX {folder}",
            )
            continue
        found = list(_rights(artefact))
        yield from found
        if not found:
            megabytes = sum(path.stat().st_size for path in paths) / 1e6
            yield ok(
                "model files", f"{name}: {len(paths)} files in {artefact.folder}, {megabytes:,.0f} MB, whole"
            )


def _rights(artefact: Artefact) -> Iterator[Finding]:
    """Files that the service's own user could not read, or that others could replace."""
    paths = [artefact.folder.parent, artefact.folder, *artefact.folder.iterdir()]
    closed = [path for path in paths if not _is_open(path)]
    loose = [path for path in paths if path.stat().st_mode & stat.S_IWOTH]
    is_at_home = artefact.folder.is_relative_to(Path.home())  # where the service does not look
    if closed and os.geteuid() == 0 and not is_at_home:
        yield warning(
            "model files",
            f"{closed[0]} may be read by its owner and group alone",
            "the service runs as a user of its own, who then finds no model",
            f"chmod -R a+rX {artefact.folder.parent}",
        )
    if loose:
        yield warning(
            "model files",
            f"every user may write {loose[0]}",
            "whoever does so decides what is run and what your rows' vectors are",
            f"chmod -R o-w {artefact.folder.parent}",
        )


def _is_open(path: Path) -> bool:
    """Whether every user may read a file, or look into a folder."""
    mode = path.stat().st_mode
    return bool(mode & stat.S_IROTH) and (not path.is_dir() or bool(mode & stat.S_IXOTH))


def _is_reached(path: Path) -> bool:
    """Whether every user may read a file, or go through a folder."""
    return bool(path.stat().st_mode & (stat.S_IXOTH if path.is_dir() else stat.S_IROTH))


def _has_password(file: Path) -> bool:
    """Whether the file itself, not the environment, has a password in one of its URLs."""
    database = tomllib.loads(file.read_text(encoding="utf-8")).get("database", {})
    urls = [database.get(key, "") for key in ("url", "replica")]
    return any(conninfo.conninfo_to_dict(url).get("password") for url in urls)
