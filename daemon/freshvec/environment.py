"""Settings of the environment and of systemd's credentials, put over those of the file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from freshvec.errors import nearest

PREFIX = "FRESHVEC_"


def overlay(
    document: dict[str, Any],
    environ: Mapping[str, str],
    sections: Mapping[str, type[BaseModel]],
    credentials: Path,
) -> list[str]:
    """Put FRESHVEC_DATABASE_URL, FRESHVEC_DAEMON_DEVICE and their like over the file's values.

    `credentials` is the folder that systemd takes the service's credential from; without systemd it is read
    there, by who may. Returns what is wrong with them: names of no setting.
    """
    faults = []
    known = {
        f"{PREFIX}{section.upper()}_{key.upper()}": (section, key)
        for section, model in sections.items()
        for key in model.model_fields
    }
    url = _credential(Path(environ.get("CREDENTIALS_DIRECTORY") or credentials, "database_url"))
    values = {"FRESHVEC_DATABASE_URL": url} if url else {}
    values |= {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    for name, value in values.items():
        if name in known and isinstance(document.setdefault(known[name][0], {}), dict):
            section, key = known[name]
            document[section][key] = value.split(os.pathsep) if key == "catalogue_dirs" else value
        elif name.startswith(tuple(f"{PREFIX}{section.upper()}_" for section in sections)):
            faults.append(f"{name} (environment): there is no such setting{nearest(name, known)}")
    return faults


def _credential(file: Path) -> str:
    """What is in it; empty where there is none, or others than this user may read it."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
