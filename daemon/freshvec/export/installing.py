"""A model's folder put in its place: as a whole, and readable by the service, whoever made it."""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from freshvec.errors import ModelError

_FROM_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)


@contextmanager
def installing(models_dir: Path, name: str) -> Iterator[Path]:
    """A folder to be filled. When the block ends well it takes the place of the model that was there.

    Raises ModelError where nothing may be written to `models_dir`.
    """
    try:
        _make(models_dir)
        made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=models_dir))
    except OSError as error:
        raise ModelError(
            "install",
            f"model {name!r}",
            f"{models_dir} cannot be written: {error.strerror}",
            "Do it as root, or name another folder with --models-dir.",
        ) from error
    try:
        yield made
        _let_all_read(made)
        _put(made, models_dir / name)
    finally:
        if made.is_symlink():
            made.unlink()
        shutil.rmtree(made, ignore_errors=True)  # what was there before, or what came to nothing


def _make(folder: Path) -> None:
    """The folder, and those above it that are lacking; everybody may look into the new ones."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def _let_all_read(folder: Path) -> None:
    """The service's user is another one than who exports, and neither's umask decides."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _put(made: Path, final: Path) -> None:
    """Rename, or exchange the two at one moment, so that a worker which starts finds the one or the other."""
    if not os.path.lexists(final):
        os.rename(made, final)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_FROM_HERE, bytes(made), _FROM_HERE, bytes(final), _EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):  # a file system that cannot: a moment without a model
        raise OSError(number, os.strerror(number), str(final))
    aside = made.with_name(f"{made.name}-old")
    os.rename(final, aside)
    os.rename(made, final)
    os.rename(aside, made)
