"""No secret ever reaches the log; every form of it is what its reader expects."""

import json
import os
import subprocess
import sys

SCRIPT = """
import sys
from embedsync import logs
from loguru import logger
import logging
logs.configure("DEBUG", sys.argv[1])
logs.hide("geheim nis!")
def connect(password):
    raise RuntimeError(f"could not connect to postgresql://app:ge%20heim@host/db with password='{password}' ({password})")
try:
    connect("geheim nis!")
except RuntimeError as error:
    logger.exception("failed: {}", error)
logger.warning("{}", "a text with {braces} from postgresql://app:s3cr3t@h/d")
logging.getLogger("lib").error("the library says password=hunter22 %s", "{x}")
"""
SECRETS = ("geheim nis!", "ge%20heim", "s3cr3t", "hunter22")


def run(form: str, **environ: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, form], capture_output=True, text=True, check=True, env=environment | environ
    )
    assert done.stdout == ""
    return done.stderr


def test_text_shows_no_secret_and_keeps_the_traceback() -> None:
    text = run("text")
    assert not [secret for secret in SECRETS if secret in text]
    assert "Traceback" in text
    assert "a text with {braces}" in text
    assert "the library says password=*** {x}" in text


def test_json_is_one_object_a_line_without_a_secret() -> None:
    lines = [json.loads(line) for line in run("json").splitlines()]
    assert [line["level"] for line in lines] == ["ERROR", "WARNING", "ERROR"]
    assert "Traceback" in lines[0]["exception"]
    assert not [secret for secret in SECRETS if secret in json.dumps(lines)]


def test_journald_gets_a_priority_on_every_line() -> None:
    lines = run("text", JOURNAL_STREAM="8:1").splitlines()
    assert len(lines) > 5
    assert all(line.startswith(("<3>", "<4>")) for line in lines)
