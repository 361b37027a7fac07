"""Small files of what was found out, which several processes may write at once."""

import contextlib
import json
import secrets
from pathlib import Path
from typing import Any


def note(path: Path, known: dict[str, Any]) -> None:
    """Write all that is known, as a whole. Where nothing can be written, it is found out again."""
    # A name of its own: processes of two containers, which share a folder, may have the same number.
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        scratch.write_text(json.dumps(dict(known), indent=2))  # another thread may note more meanwhile
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
