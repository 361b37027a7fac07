"""Names of tables as a configuration writes them: quoted as in SQL, folded where they are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshvec import storage


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("docs", (None, "docs")),
        ("Public.Docs", ("public", "docs")),
        ('"Order"."User"', ("Order", "User")),
        ('a."with ""quotes"" and . dot"', ("a", 'with "quotes" and . dot')),
        ("ünï.tab$1", ("ünï", "tab$1")),
    ],
)
def test_split_name(name: str, parts: tuple[str | None, str]) -> None:
    assert storage.split_name(name) == parts


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_name_can_be_quoted(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    assert storage.split_name(quoted) == (None, name)
    assert storage.split_name(f"{quoted}.{quoted}") == (name, name)


@pytest.mark.parametrize("name", ["", "a.b.c", "a b", "1a", '"a', 'a"b', "a.", ".a", '""', "a;b", "a-b"])
def test_what_is_not_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="is not a table name"):
        storage.split_name(name)
