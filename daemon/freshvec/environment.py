"""Settings of the environment and of systemd's credentials, put over those of the file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from freshvec.errors import nearest

PREFIX = "FRESHVEC_"


def overlay(
    document: dict[str, Any], environ: Mapping[str, str], sections: Mapping[str, type[BaseModel]]
) -> list[str]:
    """Put FRESHVEC_DATABASE_URL, FRESHVEC_DAEMON_DEVICE and their like over the file's values.

    Returns what is wrong with them: names of no setting.
    """
    faults = []
    known = {
        f"{PREFIX}{section.upper()}_{key.upper()}": (section, key)
        for section, model in sections.items()
        for key in model.model_fields
    }
    credential = Path(environ.get("CREDENTIALS_DIRECTORY", ""), "database_url")
    values = {"FRESHVEC_DATABASE_URL": credential.read_text().strip()} if credential.is_file() else {}
    values |= {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    for name, value in values.items():
        if name in known and isinstance(document.setdefault(known[name][0], {}), dict):
            section, key = known[name]
            document[section][key] = value.split(os.pathsep) if key == "catalogue_dirs" else value
        elif name.startswith(tuple(f"{PREFIX}{section.upper()}_" for section in sections)):
            faults.append(f"{name} (environment): there is no such setting{nearest(name, known)}")
    return faults
