"""What the tests of exports share; torch is imported only where a tiny model is asked for."""

from pathlib import Path

import pytest

from freshvec.export import gate


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT. Tests that change it work on a copy."""
    from tests.tiny_models import bert

    folder: Path = tmp_path_factory.mktemp("tiny-bert")
    bert(folder)
    return folder


@pytest.fixture(scope="session")
def gate_texts() -> list[str]:
    """Texts for the gate of an export: tiny models need no more than a few dozen."""
    return gate.texts(48)
