"""A model's folder put in its place: as a whole, and readable by the service, whoever made it."""

import ctypes
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        _clear(models_dir, name)
        made, held = _begin(models_dir, name)
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
        os.close(held)


def _begin(models_dir: Path, name: str) -> tuple[Path, int]:
    """A new folder, and a file descriptor that holds its lock as long as this process lives."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=models_dir))
        with suppress(FileNotFoundError):  # somebody who clears was quicker, and has taken it away
            held = os.open(made, os.O_RDONLY)
            if _is_locked(held, made) is not False:
                return made, held
            os.close(held)  # or is about to


def _clear(models_dir: Path, name: str) -> None:
    """Take away the folders of those who were killed while they filled them, up to gigabytes each."""
    is_of_ours = re.compile(rf"\.{re.escape(name)}-[a-z0-9_]{{8}}").fullmatch
    for folder in filter(lambda path: is_of_ours(path.name), models_dir.iterdir()):
        with suppress(OSError):  # it is gone, no folder, or another user's
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            if _is_locked(held, folder):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def _is_locked(held: int, folder: Path) -> bool | None:
    """Whether the folder could be locked; not where another process has done so, or it is another one now.
    None on a file system without locks.
    """
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return folder.stat().st_ino == os.fstat(held).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:
        return None


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
