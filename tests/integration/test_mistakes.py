"""Every mistake at the command line ends in one message, with the remedy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import DOCS_SYNC, Connection, config_toml, freshvec, write_config


def one_message(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "should not have happened" not in done.stderr
    return done.stderr


def test_commands_before_apply(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    config = str(write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC)))
    assert "run `freshvec apply docs`" in freshvec("status", "--config", config).stderr
    for command in (["retry"], ["verify"], ["search", "words"]):
        message = one_message(freshvec(*command, "--config", config), 1)
        assert "freshvec apply" in message, (command, message)
    assert freshvec("apply", "--config", config).returncode == 0
    more = DOCS_SYNC + DOCS_SYNC.replace('name = "docs"', 'name = "later"') + 'target = { table = "later" }\n'
    config = str(write_config(tmp_path / "more.toml", config_toml(url, models_dir, more)))
    done = freshvec("status", "--check", "--config", config)
    assert "later: declared, but never applied: run `freshvec apply later`" in one_message(done, 3)
    done = freshvec("status", "--check", "--json", "--config", config)
    shown = {row["sync"]: row["state"] for row in json.loads(done.stdout)}
    assert shown == {"docs": "no worker", "later": "not applied"}


def test_plan_without_rights_on_the_schema(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    assert freshvec("apply", "--config", str(config)).returncode == 0
    docs.execute("CREATE ROLE freshvec_test_stranger LOGIN")
    stranger = config_toml(url.replace("postgres:@", "freshvec_test_stranger:@"), models_dir, DOCS_SYNC)
    try:
        write_config(config, stranger)
        for command in ("plan", "apply", "status", "verify", "retry"):
            message = one_message(freshvec(command, "--config", str(config)), 1)
            assert "permission denied" in message
            assert "Grant the right, or connect as the table's owner" in message
    finally:
        docs.execute("DROP ROLE freshvec_test_stranger")


def test_arguments_that_are_no_text(url: str, models_dir: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    for arguments in ([b"search", b"\xff"], [b"run", b"na\xc3me"], [b"status", b"--config", b"/\xff"]):
        command = [sys.executable.encode(), b"-m", b"freshvec", *arguments, b"--config", bytes(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "is not text in UTF-8" in one_message(done, 2)


def test_json_of_a_repair_is_json(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    config = str(write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC)))
    assert freshvec("apply", "--config", config).returncode == 0
    docs.execute("ALTER TABLE docs DISABLE TRIGGER USER; INSERT INTO docs VALUES (1, 'unseen')")
    done = freshvec("verify", "--repair", "--json", "--config", config)
    one_message(done, 3)
    (report,) = json.loads(done.stdout)
    assert report["problems"] == {"missing": 1}
    assert "queued for the worker" in done.stderr


@pytest.mark.parametrize(
    "password", ["gehe@imnis", "gehe/imnis", "gehe@im/nis@more", "gehe:im@nis", "gehe?im#nis@more"]
)
def test_a_password_that_should_have_been_quoted(models_dir: Path, tmp_path: Path, password: str) -> None:
    url = f"postgresql://app:{password}@127.0.0.1:1/base"
    config = str(write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC)))
    message = one_message(freshvec("status", "--config", config), 1)
    assert "gehe" not in message, message
    assert "imnis" not in message, message
    assert "cannot connect to the database" in message


LOGS = "from freshvec import logs; from loguru import logger; logs.configure(); logger.warning('a line')"


def test_priorities_are_for_the_journal_alone(tmp_path: Path) -> None:
    """systemd: a program should compare JOURNAL_STREAM with the device and inode of its stderr."""
    with (tmp_path / "stderr").open("w+") as file:
        stat = os.fstat(file.fileno())
        for stream, prefix in ((f"{stat.st_dev}:{stat.st_ino}", "<4>"), ("8:12345", ""), ("", ""), ("x", "")):
            file.seek(0)
            file.truncate()
            env = {**os.environ, "JOURNAL_STREAM": stream}
            subprocess.run([sys.executable, "-c", LOGS], stderr=file, env=env, check=True)
            file.seek(0)
            line = file.read()
            assert "a line" in line
            assert line.startswith("<") == bool(prefix), (stream, line)
            assert line.startswith(prefix)
