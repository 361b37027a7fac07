"""Settings from TOML and environment, and every fault reported at once."""

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest

from freshvec import config, storage
from freshvec.errors import ConfigError
from tests.unit.settings_files import GOOD, faults, load

NUMBERS = [name for name, field in config.Daemon.model_fields.items() if "float" in str(field.annotation)]


def test_a_home_may_be_written_as_a_shell_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("FRESHVEC_DAEMON_CATALOGUE_DIRS", "~/cards:/cards")
    daemon = load(tmp_path, '[daemon]\nmodels_dir = "~/models"\n').daemon
    assert daemon.models_dir == tmp_path / "me/models"
    assert daemon.catalogue_dirs == (tmp_path / "me/cards", Path("/cards"))
    assert "no home" in "\n".join(faults(tmp_path, '[daemon]\nmodels_dir = "~nobody-at-all/models"\n'))


def test_a_good_file(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert settings.sync[0].columns == ("title", "body")
    assert settings.sync[0].target_name == ("public", "articles_embedding")
    assert settings.daemon.commit_every_batches == 5


def test_an_editor_s_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + GOOD) == load(tmp_path, GOOD)


def test_settings_do_not_show_their_secrets(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    for shown in (
        repr(settings),
        str(settings),
        f"{settings.database!r}",
        json.dumps(settings.model_dump(mode="json")),
    ):
        assert "geheimnis" not in shown


@pytest.mark.parametrize(
    "text",
    [
        '[database]\nurl = ["geheimnis"]',
        'database = "host=h password=geheimnis"',
        '[database]\npassword = "geheimnis"',
        '[database]\nworker_role = ["geheimnis"]',
        'url = "geheimnis"',
    ],
)
def test_a_fault_does_not_show_a_secret(tmp_path: Path, text: str) -> None:
    found = faults(tmp_path, text)
    assert len(found) == 1
    assert "geheimnis" not in found[0]


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
        "daemon.page_rows: it must be 1 or more, but it says 0",
        "sync[0].name: 'Articles!' is not a name; write lower-case letters",
        "sync[0].target.type: 'vektor' is not possible; write one of 'vector', 'halfvec' or 'real[]'",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[sync]]\nname="a"\ntable="t"\nmodel="m"', "sync[0]: it needs a text"),
        (
            '[[sync]]\nname="a"\ntable="t"\nmodel="m"\ncolumns=["x"]\nexpression="y"',
            "sync[0]: it needs a text",
        ),
        (
            '[[sync]]\nname="a"\ntable="t; DROP"\nmodel="m"\ncolumns=["x"]',
            "is not a table name; write schema.table",
        ),
        ('[[sync]]\nname="a"\nmodel="m"\ncolumns=["x"]', "sync[0].table: it is missing"),
        ('[[sync]]\nname="a"\ntable="t"\nmodel="m"\nexpression="x; y"', "must not contain ';'"),
        (f'{GOOD}target = {{ type = "real[]" }}\nindex = {{}}', "real[] can have no index"),
        (f'{GOOD}target = {{ column = "body" }}', "cannot be text and vector at once"),
        (f'{GOOD}target = {{ column = "" }}', "target.column"),
        (f"{GOOD}index = {{ lists = 10 }}", 'take it out, or write type = "ivfflat"'),
        (f'{GOOD}index = {{ type = "ivfflat", m = 8 }}', 'write type = "hnsw"'),
        (f"{GOOD}index = {{ m = 40 }}", "at least twice m, 80 or more"),
        (f'{GOOD}index = {{ binary = true, distance = "l2" }}', "take distance out"),
        (f"{GOOD}index = {{ typ = 1 }}", "index.typ"),
        (f"{GOOD}index = {{ memory_mb = 0 }}", "index.memory_mb"),
        ("[databse]\n", "databse: there is no such key; did you mean database?"),
        ("[database\n", "not valid TOML"),
        ('[sync]\nname="a"', "sync: each sync is a table of its own; write [[sync]], in double brackets"),
        ('sync = ["articles"]', "sync[0]: a sync is a table; write [[sync]]"),
        ('database = "postgresql://localhost/shop"', "database: it is a table of settings, not a text"),
        (
            '[[sync]]\nname="a"\ntable="t"\nmodel="m"\ncolumns="body"',
            'sync[0].columns: it is a list, not a text; write columns = ["…"]',
        ),
        (
            '[[sync]]\nname="a"\ntable="t"\nmodel="m"\ncolumns=["x"]\ntarget="t"',
            'sync[0].target: it is a table of settings, not a text; write target = { type = "halfvec" }',
        ),
        ("[[sync]]\nname=1\n", 'sync[0].name: it is a text, not a number; write name = "…", in quotes'),
        ('[daemon]\nthreads="all"', "daemon.threads: it is a whole number, not a text; write threads = 1"),
        ("[daemon]\nsweep_seconds=[1]", "daemon.sweep_seconds: it is a number, not a list; write"),
        *((f"[daemon]\n{key}=inf", f"daemon.{key}: it must be a finite number") for key in NUMBERS),
        *((f"[daemon]\n{key}=nan", f"daemon.{key}: it must be a finite number") for key in NUMBERS),
        *((f"[daemon]\n{key}=1e12", f"daemon.{key}: it must be 1") for key in NUMBERS),
        ("[daemon]\nsweep_seconds=0", "daemon.sweep_seconds: it must be more than 0, but it says 0"),
        (
            '[[sync]]\nname="a"\ntable="t"\nmodel="m"\ncolumns=["x"]\nindex={ m = 200 }',
            "sync[0].index.m: it must be 100 or less, but it says 200",
        ),
        (
            "[daemon]\nthreads=1.5",
            "daemon.threads: it is a whole number, not a number with a fraction; write",
        ),
        ("[web]\nrows='maybe'", "web.rows: it is true or false, not a text; write rows = true"),
        ("[[sync]]\ncolumns=[]", "sync[0].columns: the list is empty; write one entry at least"),
        ("[[sync]]\ncolumns=[1]", 'sync[0].columns[0]: it is a text, not a number; write "…", in quotes'),
        ("[[sync]]\nexpression=''", "sync[0].expression: it is empty; write something"),
        ("[[sync]]\nname=2026-01-01", 'sync[0].name: it is a text, not a date; write name = "…", in quotes'),
    ],
)
def test_a_fault(tmp_path: Path, text: str, message: str) -> None:
    assert message in "\n".join(faults(tmp_path, text))


@pytest.mark.parametrize(
    "value", ["1", "-1", "1.5", "''", "'x'", "true", "2026-01-01", "12:00:00", "[]", "[1]", "{}", "nan"]
)
def test_no_fault_speaks_of_what_a_user_does_not_know(tmp_path: Path, value: str) -> None:
    """Every key with every kind of value, in the file's own words alone."""
    own_words = r"tuple|string|boolean|integer|dict|pydantic|input|after validation|parse"
    tables = {"Sync": "[[sync]]", "Target": "[[sync]]\n[sync.target]", "Index": "[[sync]]\n[sync.index]"}
    for model in (config.Database, config.Daemon, config.Web, config.Sync, storage.Target, storage.Index):
        head = tables.get(model.__name__, f"[{model.__name__.lower()}]")
        for key in model.model_fields:
            with suppress(ConfigError):
                load(tmp_path, f"{head}\n{key} = {value}")
                continue
            for fault in faults(tmp_path, f"{head}\n{key} = {value}"):
                assert not re.search(own_words, fault), fault


def test_an_entry_that_is_wrong_is_one_fault(tmp_path: Path) -> None:
    text = '[[sync]]\nname="a"\ntable="t"\nmodel="m"\ncolumns=[1]'
    assert len(faults(tmp_path, text)) == 1


def test_two_syncs_with_one_target(tmp_path: Path) -> None:
    again = GOOD.split("[[sync]]")[1].replace('"articles"', '"more"')
    assert (
        "syncs 'articles' and 'more' both write to 'articles_embedding'; give 'more' its own"
        in faults(tmp_path, f"{GOOD}[[sync]]{again}")[0]
    )


def test_two_syncs_with_one_column(tmp_path: Path) -> None:
    sync = '[[sync]]\nname = "{}"\nmodel = "m"\ncolumns = ["x"]\ntable = "{}"\ntarget = {}\n'
    one, other = '{ column = "v" }', '{ column = "v", table = "other" }'
    found = faults(tmp_path, sync.format("a", "docs", one) + sync.format("b", "public.docs", other))
    assert found[0].startswith(
        "syncs 'a' and 'b' both write into column 'v' of public.docs; give 'b' a column"
    )
    apart = other.replace('"v"', '"w"')
    assert len(load(tmp_path, sync.format("a", "docs", one) + sync.format("b", "docs", apart)).sync) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("table = 'docs'", "table = 'public.docs'"),
        ("table = 'Docs'", "table = 'docs'"),
        ("table = 'docs'", "table = '\"docs\"'"),
        ("table = 'docs'", "table = 'other'\ntarget = { table = 'docs_EMBEDDING' }"),
    ],
)
def test_one_target_written_in_two_ways(tmp_path: Path, first: str, second: str) -> None:
    sync = '[[sync]]\nname = "{}"\nmodel = "m"\ncolumns = ["x"]\n{}\n'
    assert "both write to" in faults(tmp_path, sync.format("a", first) + sync.format("b", second))[0]


def test_equal_names_in_two_schemas_are_two_targets(tmp_path: Path) -> None:
    sync = '[[sync]]\nname = "{}"\nmodel = "m"\ncolumns = ["x"]\ntable = "{}"\n'
    assert len(load(tmp_path, sync.format("a", "one.docs") + sync.format("b", "two.docs")).sync) == 2


def test_faults_between_syncs_are_all_said_at_once(tmp_path: Path) -> None:
    sync = '[[sync]]\nname = "{}"\nmodel = "m"\ncolumns = ["x"]\ntable = "{}"\n'
    text = (
        sync.format("a", "one")
        + sync.format("a", "two")
        + sync.format("b", "two")
        + sync.format("c", "x" * 60)
    )
    found = faults(tmp_path, text)
    assert len(found) == 3
    assert found[0] == "two syncs are called 'a'; give each a name of its own"
    assert found[1].startswith("syncs 'a' and 'b' both write to 'two_embedding'")
    assert "is too long for Postgres; write a shorter target" in found[2]


def test_no_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"`freshvec init` .* --config"):
        config.load()


def test_a_credential_beside_the_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "database_url").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="as database_url, cannot be read"):
        load(tmp_path, GOOD)


def test_a_file_that_may_not_be_read_says_what_lets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(ConfigError, match=rf"chmod a\+rX {tmp_path} {tmp_path}/freshvec.toml"):
        config.load(tmp_path / "freshvec.toml")


@pytest.mark.parametrize("text", ["[databse]\n", "[database\n"])
def test_a_faulty_file_says_where_every_key_stands_and_what_writes_a_sound_one(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert "docs/configuration.md" in str(caught.value).splitlines()[-1]
    assert "`freshvec init --output FILE`" in str(caught.value)


def test_no_sync_points_to_init(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`freshvec init` proposes"):
        load(tmp_path, "[daemon]\n").find(None)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("sparsevec", 'write "halfvec"'),
        ("bit", "binary = true"),
        ("nothing", "write one of 'vector', 'halfvec'"),
    ],
)
def test_a_type_that_no_vectors_are_kept_in_is_refused_with_another(
    tmp_path: Path, kind: str, said: str
) -> None:
    (fault,) = faults(tmp_path, f'{GOOD}target = {{ type = "{kind}" }}\n')
    assert fault.startswith(f"sync[0].target.type: '{kind}' is not possible")
    assert said in fault
