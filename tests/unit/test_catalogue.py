"""The model catalogue: what comes with freshvec, what a user adds, and how a faulty file is reported."""

import re
from pathlib import Path

import pytest

from freshvec import data
from freshvec.errors import ModelError
from freshvec.models import catalogue

SHIPPED = sorted(data.folder("models").glob("*.toml"))
OWN = 'name = "{name}"\nsource = "mine/{name}"\ndimension = 3\nmax_tokens = 9\npooling = "cls"\n'


def test_there_are_shipped_models() -> None:
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_model_loads_and_is_whole(path: Path) -> None:
    card = catalogue.load()[path.stem]
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in card.sha256.values())
    assert card.revision == "" or re.fullmatch(r"[0-9a-f]{40}", card.revision)
    assert all(0 < size < card.dimension for size in card.matryoshka)
    assert card.licence
    assert catalogue.find(path.stem) == card


def test_a_user_adds_a_model_and_replaces_one(tmp_path: Path) -> None:
    for name in ("mine", "all-MiniLM-L6-v2"):
        (tmp_path / f"{name}.toml").write_text(OWN.format(name=name))
    cards = catalogue.load([tmp_path])
    assert cards["mine"].dimension == 3
    assert cards["all-MiniLM-L6-v2"].source == "mine/all-MiniLM-L6-v2"
    assert set(cards) == {path.stem for path in SHIPPED} | {"mine"}


def test_of_two_folders_the_later_counts(tmp_path: Path) -> None:
    for folder, dimension in (("first", "3"), ("second", "5")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.toml").write_text(OWN.format(name="mine").replace("3", dimension))
    assert catalogue.find("mine", [tmp_path / "first", tmp_path / "second"]).dimension == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'name = "bad"\n', "source"),
        (OWN.format(name="bad").replace('"cls"', '"max"').encode(), "pooling"),
        (
            OWN.format(name="bad").encode() + b"maximum = 3\n",
            "maximum: there is no such key; possible are name, source",
        ),
        (
            OWN.format(name="bad").encode() + b"normalise = true\n",
            "normalise: there is no such key; did you mean normalize",
        ),
        (
            OWN.format(name="bad").replace("= 3", "= -3").encode(),
            "dimension: input should be greater than 0, but it says -3",
        ),
        (b"name = \n", "line 1"),
        (b'name = "\xff"\n', "utf-8"),
    ],
    ids=[
        "missing key",
        "bad value",
        "unknown key",
        "mistyped key",
        "impossible number",
        "not TOML",
        "not UTF-8",
    ],
)
def test_a_faulty_file_is_named_with_its_fault(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        catalogue.load([tmp_path])
    assert f"cannot read model description {path}" in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.remedy == "Correct the file."


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ModelError, match=r"folder\.toml"):
        catalogue.load([tmp_path])


def test_an_unknown_model_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OWN.format(name="mine"))
    with pytest.raises(ModelError, match=r"'nothing'.*Known are: .*L6-v2.*mine.*freshvec describe"):
        catalogue.find("nothing", [tmp_path])


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("all-minilm-l6-v2", "all-MiniLM-L6-v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("bge-m4", "bge-m3"),
    ],
)
def test_the_model_that_was_probably_meant_is_named(name: str, meant: str) -> None:
    with pytest.raises(ModelError, match=rf"Did you mean {meant}\? `freshvec models` lists all"):
        catalogue.find(name)
