"""What of a file that was read again is not taken up: all but the syncs is as it was at the start."""

from loguru import logger

from freshvec.config import Settings


def tell_untaken(running: Settings, read: Settings) -> None:
    """Warn of settings that take a restart."""
    keys = changed(running, read)
    if keys:
        names = f"{', '.join(keys)} {'has' if len(keys) == 1 else 'have'} changed"
        logger.warning("{}: a restart takes it up, a reload the syncs alone", names)


def changed(running: Settings, read: Settings) -> list[str]:
    """Names as in `daemon.device`, and never a value: the URL has a password in it."""
    sections = [
        (name, getattr(running, name), getattr(read, name))
        for name in Settings.model_fields
        if name != "sync"
    ]
    return [
        f"{name}.{key}"
        for name, before, now in sections
        for key in type(now).model_fields
        if getattr(before, key) != getattr(now, key)
    ]
