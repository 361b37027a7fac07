"""Configuration files of tests, loaded or refused."""

import os
from pathlib import Path
from unittest.mock import patch

import pytest

from freshvec import config
from freshvec.errors import ConfigError

GOOD = """
[database]
url = "postgresql://u:geheimnis@h/d"
[[sync]]
name = "articles"
table = "public.articles"
columns = ["title", "body"]
model = "all-MiniLM-L6-v2"
"""


def load(tmp_path: Path, text: str, **environ: str) -> config.Settings:
    path = tmp_path / "freshvec.toml"
    path.write_text(text)
    with patch.dict(os.environ, environ):
        return config.load(path)


def faults(tmp_path: Path, text: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    return caught.value.faults
