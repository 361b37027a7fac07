"""No secret ever reaches the log; every form of it is what its reader expects."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from freshvec import logs
from loguru import logger
import logging
logs.configure("DEBUG", sys.argv[1])
logs.hide("geheim nis!")
def connect(password):
    url = "postgresql://app:ge%20heim@host/db"
    raise RuntimeError(f"could not connect to {url} with password='{password}' ({password})")
try:
    connect("geheim nis!")
except RuntimeError as error:
    logger.exception("failed: {}", error)
logger.warning("{}", "a text with {braces} from postgresql://app:s3cr3t@h/d")
logger.bind(origin="postgresql://app:bound-secret@h/d").info("{}", "bound <red>{0}</red> {")
logging.getLogger("lib").error("the library says password=hunter22 %s", "{x}")
"""
SECRETS = ("geheim nis!", "ge%20heim", "s3cr3t", "hunter22", "bound-secret")

SETTINGS = """
import os, sys
from freshvec import config, db, logs
from loguru import logger
logs.configure("DEBUG", sys.argv[1])
os.environ |= {"FRESHVEC_CONFIG": "/dev/null", "FRESHVEC_DATABASE_URL": sys.argv[2]}
settings = config.load()
url = settings.database.url.get_secret_value()
try:
    db.connect(settings.database.url, "test")
except Exception as error:
    logger.exception("failed: {}", error)
logger.error("{}", f"asked for {url!r}")
passwords = sys.argv[3:]
logger.info("{}", f"the passwords: {passwords}, {' and '.join(passwords)}; quoted: password={passwords[0]}")
try:
    raise KeyError(*passwords)
except KeyError:
    logger.exception("with its arguments")
"""


def run(form: str, *arguments: str, script: str = SCRIPT, **environ: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
    done = subprocess.run(
        [sys.executable, "-c", script, form, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment | environ,
    )
    assert done.stdout == ""
    return done.stderr


def test_text_shows_no_secret_and_keeps_the_traceback() -> None:
    text = run("text")
    assert not [secret for secret in SECRETS if secret in text]
    assert "Traceback" in text
    assert "a text with {braces}" in text
    assert "the library says password=*** {x}" in text


def test_the_last_messages_are_kept_without_a_secret_and_not_without_end() -> None:
    script = (
        SCRIPT
        + """
for number in range(500):
    logger.info("message {}", number)
print([line.text for line in logs.tail()][-1], len(logs.tail()), file=sys.stderr)
"""
    )
    assert run("text", script=script).splitlines()[-1] == "message 499 200"
    script = SCRIPT + "sys.stderr.write('KEPT' + repr(logs.tail()))\n"
    kept = run("text", script=script).rpartition("KEPT")[2]
    assert "a text with {braces}" in kept
    assert not [secret for secret in SECRETS if secret in kept]


def test_json_is_one_object_per_line_without_a_secret() -> None:
    lines = [json.loads(line) for line in run("json").splitlines()]
    assert [line["level"] for line in lines] == ["ERROR", "WARNING", "INFO", "ERROR"]
    assert lines[2]["message"] == "bound <red>{0}</red> {"
    assert lines[2]["origin"] == "postgresql://app:***@h/d"
    assert "Traceback" in lines[0]["exception"]
    assert not [secret for secret in SECRETS if secret in json.dumps(lines)]


def test_journald_gets_a_priority_on_every_line(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as journal:
        stat = os.fstat(journal.fileno())
        env = {**os.environ, "JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        subprocess.run([sys.executable, "-c", SCRIPT, "text"], stderr=journal, env=env, check=True)
    lines = (tmp_path / "journal").read_text().splitlines()
    assert len(lines) > 5
    assert all(line.startswith(("<3>", "<4>", "<6>")) for line in lines)
    assert not any(re.search(r"\d{4}-\d\d-\d\d", line) for line in lines), "the journal has the time itself"


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("url", "passwords"),
    [
        ("postgresql://u:abcd%20efgh%40ij@127.0.0.1:1/d", ["abcd efgh@ij", "abcd%20efgh%40ij"]),
        ("postgresql://u:quo%22te%5Cback@127.0.0.1:1/d", ['quo"te\\back', "quo%22te%5Cback"]),
        ("postgresql://u:unescaped%zzpercent@127.0.0.1:1/d", ["unescaped%zzpercent"]),
        ("postgresql://u:unescaped space@127.0.0.1:1/d", ["unescaped space"]),
        ("postgresql://u:first@second@127.0.0.1:1/d", ["first@second", "second"]),
        ("postgresql://u@127.0.0.1:1/d?password=asked%zzfor", ["asked%zzfor"]),
        ("host=127.0.0.1 port=1 password='with blank' user=u", ["with blank"]),
        ("host=127.0.0.1 port=1 password=my s3cretword user=u", ["s3cretword"]),
        ("host=127.0.0.1 port=1 password=my first=second user=u", ["first", "second"]),
        ("host=127.0.0.1 port=1 password='quoted'afterwards", ["quoted", "afterwards"]),
    ],
)
def test_a_password_of_the_configuration_is_hidden_in_every_form(
    form: str, url: str, passwords: list[str]
) -> None:
    text = run(form, url, *passwords, script=SETTINGS)
    forms = {
        shown
        for password in passwords
        for shown in (password, repr(password)[1:-1], json.dumps(password)[1:-1])
    }
    assert [shown for shown in forms if shown in text] == []
    assert "cannot connect to the database" in text
    if form == "json":
        assert [json.loads(line)["level"] for line in text.splitlines()] == [
            "ERROR",
            "ERROR",
            "INFO",
            "ERROR",
        ]


def test_what_a_row_says_has_no_power_over_the_terminal() -> None:
    script = SCRIPT + "logger.error('{}', 'row \\x1b]0;x\\x07 says')\n"
    assert "row \\x1b]0;x\\x07 says" in run("text", script=script)
    assert json.loads(run("json", script=script).splitlines()[-1])["message"] == "row \\x1b]0;x\\x07 says"


def test_of_a_string_that_cannot_be_read_other_words_are_shown_and_the_remedy_fits() -> None:
    dsn = "password=my s3cretword host=127.0.0.1 port=1 user=somebody"
    text = run("text", dsn, "s3cretword", script=SETTINGS + "logger.info('somebody at 127.0.0.1, a host')\n")
    assert "somebody at 127.0.0.1, a host" in text
    assert 'missing "=" after "***"' in text
    assert "put a value with spaces in single quotes" in text
    assert "%40" not in text
