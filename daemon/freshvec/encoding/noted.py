"""Small files of what was found out, which several processes may write at once."""

import contextlib
import json
import secrets
import threading
from pathlib import Path
from typing import Any

_TURN = threading.Lock()  # of this process's threads; of two processes the later one writes what it has read


def read(path: Path) -> dict[str, Any]:
    """What is noted there; nothing where that cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def note(path: Path, name: str, entry: dict[str, Any]) -> None:
    """Write it beside what others have noted since, as a whole. Where nothing can be written, it is found out
    again."""
    # A name of its own: processes of two containers, which share a folder, may have the same number.
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        with _TURN:
            scratch.write_text(json.dumps(read(path) | {name: entry}, indent=2))
            scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
