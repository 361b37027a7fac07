"""Settings from TOML and environment, and every fault said at once."""

from pathlib import Path

import pytest

from embedsync import config
from embedsync.errors import ConfigError

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
    path = tmp_path / "embedsync.toml"
    path.write_text(text)
    return config.load(path, environ)


def faults(tmp_path: Path, text: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    return caught.value.faults


def test_a_good_file(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert settings.sync[0].columns == ("title", "body")
    assert settings.sync[0].target_name == ("public", "articles_embedding")
    assert settings.daemon.commit_every_batches == 5


def test_the_environment_wins(tmp_path: Path) -> None:
    settings = load(
        tmp_path, GOOD, EMBEDSYNC_DATABASE_URL="postgresql://other", EMBEDSYNC_DAEMON_DEVICE="cpu", EMBEDSYNC_DAEMON_PAGE_ROWS="7"
    )
    assert settings.database.url.get_secret_value() == "postgresql://other"
    assert (settings.daemon.device, settings.daemon.page_rows) == ("cpu", 7)


def test_a_credential_of_the_service_manager(tmp_path: Path) -> None:
    (tmp_path / "database_url").write_text("postgresql://from-credential\n")
    settings = load(tmp_path, GOOD, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert settings.database.url.get_secret_value() == "postgresql://from-credential"


def test_without_a_url_libpq_decides(tmp_path: Path) -> None:
    assert load(tmp_path, "").database.url.get_secret_value() == ""


def test_no_secret_in_a_repr(tmp_path: Path) -> None:
    assert "geheimnis" not in repr(load(tmp_path, GOOD))


def test_five_faults_at_once_each_with_key_problem_and_remedy(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
        [daemon]
        device = "gpu"
        commit_every_batchs = 3
        page_rows = 0
        [[sync]]
        name = "Articles!"
        table = "public.articles"
        model = "all-MiniLM-L6-v2"
        target = { type = "vektor" }
        columns = ["a"]
        """,
    )
    assert len(found) == 5
    text = "\n".join(found)
    for part in (
        "daemon.device: there is no device 'gpu'; write auto, cpu",
        "daemon.commit_every_batchs: there is no such key; did you mean commit_every_batches?",
        "daemon.page_rows: input should be greater than or equal to 1, but it says 0",
        "sync[0].name: 'Articles!' is not a name; write lower-case letters",
        "sync[0].target.type: 'vektor' is not possible; write one of 'vector', 'halfvec' or 'real[]'",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[sync]]\nname="a"\ntable="t"\nmodel="m"', "sync[0]: it needs a text"),
        ('[[sync]]\nname="a"\ntable="t"\nmodel="m"\ncolumns=["x"]\nexpression="y"', "sync[0]: it needs a text"),
        ('[[sync]]\nname="a"\ntable="t; DROP"\nmodel="m"\ncolumns=["x"]', "is not a table name; write schema.table"),
        ('[[sync]]\nname="a"\nmodel="m"\ncolumns=["x"]', "sync[0].table: it is missing"),
        ('[[sync]]\nname="a"\ntable="t"\nmodel="m"\nexpression="x; y"', "must not contain ';'"),
        ("[databse]\n", "databse: there is no such key; did you mean database?"),
        ("[database\n", "not valid TOML"),
    ],
)
def test_a_fault(tmp_path: Path, text: str, said: str) -> None:
    assert said in "\n".join(faults(tmp_path, text))


def test_two_syncs_with_one_target(tmp_path: Path) -> None:
    again = GOOD.split("[[sync]]")[1].replace('"articles"', '"more"')
    assert (
        "syncs 'articles' and 'more' both write to 'articles_embedding'; give 'more' its own"
        in faults(tmp_path, f"{GOOD}[[sync]]{again}")[0]
    )


def test_an_unknown_variable_is_named(tmp_path: Path) -> None:
    assert "EMBEDSYNC_DAEMON_DEVISE (environment)" in faults(tmp_path, GOOD, EMBEDSYNC_DAEMON_DEVISE="cpu")[0]


def test_no_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="--config"):
        config.load(None, {})


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
    assert config.split_name(name) == parts
