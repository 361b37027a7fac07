"""The units of systemd, written for where the program is."""

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from freshvec import data
from freshvec.errors import FreshvecError

UNITS = ("freshvec.service", "freshvec@.service", "freshvec-folder@.service", "freshvec-backfill.service")
PROGRAM = "/opt/freshvec/bin/freshvec"  # as the shipped units have it
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))  # what ProtectHome=yes hides


@dataclass(frozen=True)
class Installation:
    """A program, and the folders without which it does not run."""

    program: Path
    folders: tuple[Path, ...]

    @property
    def at_home(self) -> list[Path]:
        """Those of the folders that a unit must be shown, since it sees no home; none within another."""
        hidden = sorted({folder for folder in self.folders if any(map(folder.is_relative_to, _HOMES))})
        return [
            folder
            for folder in hidden
            if not any(folder != other and folder.is_relative_to(other) for other in hidden)
        ]


def installation() -> Installation:
    """This very program. Raises FreshvecError where there is none that a service could run."""
    program = next((path for path in _programs() if path.is_file()), None)
    if program is None:
        raise FreshvecError(
            "write",
            "the units",
            f"there is no program freshvec in {Path(sys.prefix) / 'bin'}",
            "Install it into a virtual environment, or by pipx or uv, and run the one that is installed.",
        )
    package = Path(data.__file__).resolve().parent
    for path in (program, package / "__init__.py"):
        if not path.stat().st_mode & stat.S_IROTH:
            remedy = f"As root: chmod -R a+rX {sys.prefix}"
            raise FreshvecError("write", "the units", f"only its owner may read {path}", remedy)
    shipped = data.folder("migrations").resolve().parent
    return Installation(
        program, (Path(sys.prefix), Path(sys.base_prefix), *_interpreters(), package, shipped)
    )


def files(installed: Installation, *, gpu: bool = False, endpoint: bool = False) -> dict[str, str]:
    """The texts of units and drop-ins by their paths below /etc/systemd/system."""
    shipped = data.folder("systemd")
    made = {}
    for unit in UNITS:
        text = (shipped / unit).read_text(encoding="utf-8")
        made[unit] = text.replace(PROGRAM, _word(installed.program))
        if installed.at_home:
            made[f"{unit}.d/program.conf"] = _shown(installed.at_home)
        if gpu:
            made[f"{unit}.d/gpu.conf"] = (shipped / "gpu.conf").read_text(encoding="utf-8")
    if endpoint:
        made["freshvec.service.d/serve.conf"] = (shipped / "serve.conf").read_text(encoding="utf-8")
    return made


def write(folder: Path, texts: dict[str, str], *, force: bool = False) -> list[Path]:
    """Write the files; those that are there and the same are left alone. Returns those written.

    Raises FreshvecError where one that is there says something else, unless `force` is given.
    """
    new = {folder / name: text for name, text in texts.items() if _text(folder / name) != text}
    taken = [path for path in new if os.access(path, os.F_OK)]
    if taken and not force:
        remedy = "Keep your own lines in a drop-in (systemctl edit), then add --force."
        raise FreshvecError("write", str(taken[0]), "it is there already, and says something else", remedy)
    for path, text in new.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".{path.name}.new")
            scratch.write_text(text, encoding="utf-8")
            scratch.chmod(0o644)
            scratch.replace(path)
        except OSError as error:
            remedy = "Do it as root, or name another folder with --to."
            raise FreshvecError("write", str(path), error.strerror or str(error), remedy) from error
    return list(new)


def _programs() -> Iterator[Path]:
    yield Path(sys.prefix) / "bin/freshvec"
    if Path(sys.argv[0]).name == "freshvec":  # installed with --user, or by another tool
        yield Path(sys.argv[0]).resolve()


def _interpreters() -> Iterator[Path]:
    """The prefixes on the way from this environment's python to the real one, which links lead through."""
    python = Path(sys.prefix) / "bin/python"
    while python.is_symlink():
        python = python.parent / python.readlink()
        if python.parent.name == "bin":
            yield Path(os.path.normpath(python.parent.parent))


def _shown(folders: list[Path]) -> str:
    shown = "\n".join(f"BindReadOnlyPaths={_word(folder)}" for folder in folders)
    return (
        "# The program is below a home directory: the unit sees of it what it runs, and nothing else.\n"
        f"[Service]\nProtectHome=tmpfs\n{shown}\n"
    )


def _word(path: Path) -> str:
    """A path as one word of a unit."""
    text = str(path).replace("%", "%%")
    if text.isascii() and not set(text) & set(" \t\n\"'\\;"):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # it is none of ours; whether it is there is seen elsewhere
        return None
