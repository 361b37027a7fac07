"""The command line as a shell sees it: Ctrl-C, colours, completion, names that were almost right."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from freshvec.models import catalogue
from tests.support import (
    DOCS_SYNC,
    Connection,
    WorkerProcess,
    config_toml,
    freshvec,
    until,
    write_config,
)

# Ctrl-C while a module is being imported.
INTERRUPTED = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
from freshvec.cli.entry import main
sys.argv = ["freshvec", "models"]
main()
"""


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        check=False,
    )


@pytest.mark.parametrize("module", ["freshvec.cli.main", "typer", "pydantic", "freshvec.cli.catalogue_view"])
def test_ctrl_c_while_it_starts_says_nothing(module: str) -> None:
    done = run(INTERRUPTED.format(module=module))
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def on_a_terminal(*arguments: str, **environ: str) -> str:
    """What the program writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "freshvec", *arguments]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", **environ}
    ):
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # it has ended
            pass
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["models", "bge-m3"], ["run", "-c", "/no"]])
def test_no_color_leaves_no_style_at_all(arguments: list[str]) -> None:
    styled = r"\x1b\[[0-9;]*m"
    assert re.search(styled, on_a_terminal(*arguments, COLUMNS="130", NO_COLOR=""))
    assert not re.search(styled, on_a_terminal(*arguments, COLUMNS="130", NO_COLOR="1"))


@pytest.mark.parametrize("columns", ["60", "80", "130"])
def test_no_model_s_name_or_licence_is_cut(columns: str) -> None:
    wanted = {value for card in catalogue.load().values() for value in (card.name, card.licence)}
    for shown in (on_a_terminal("models", COLUMNS=columns), freshvec("models").stdout):
        assert "…" not in shown
        assert {value for value in wanted if value not in shown} == set()


def completed(words: str, folder: Path) -> list[str]:
    """What bash is told that the last word may become."""
    code = "import sys; sys.argv = ['freshvec']; from freshvec.cli.entry import main; main()"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - (not words.endswith(" ")))}
    config = {"FRESHVEC_CONFIG": str(folder / "freshvec.toml")}
    return run(code, _FRESHVEC_COMPLETE="complete_bash", **asked, **config).stdout.split()


def test_a_shell_completes_commands_options_and_names_of_syncs(tmp_path: Path) -> None:
    more = DOCS_SYNC.replace('"docs"', '"dogs"')
    write_config(tmp_path / "freshvec.toml", config_toml("postgresql:///x", tmp_path, DOCS_SYNC + more))
    assert completed("freshvec sta", tmp_path) == ["status"]
    assert "--min-coverage" in completed("freshvec status --", tmp_path)
    assert completed("freshvec run do", tmp_path) == ["docs", "dogs"]
    assert completed("freshvec search --sync dog", tmp_path) == ["dogs"]
    (tmp_path / "freshvec.toml").write_text("[")
    assert completed("freshvec run do", tmp_path) == []
    assert "_FRESHVEC_COMPLETE=complete_bash" in freshvec("--show-completion", "bash").stdout


def test_names_that_were_almost_right(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    config = ["--config", str(path)]
    for arguments in (["plan", "doc"], ["search", "x", "--sync", "doc"]):
        assert "there is no sync 'doc'; declared are: docs; did you mean docs?" in (
            freshvec(*arguments, *config).stderr
        )
    assert freshvec("apply", *config).returncode == 0
    misspelt = freshvec("remove", "doc", "--yes", *config)
    assert misspelt.returncode == 2
    assert "knows no such sync; did you mean docs?" in misspelt.stderr
    wrong = write_config(tmp_path / "wrong.toml", path.read_text().replace("MiniLM-L6-v2", "minilm-l6"))
    assert "Did you mean all-MiniLM-L6-v2?" in freshvec("plan", "--config", str(wrong)).stderr


def test_run_and_serve_take_the_address_by_the_same_name(tmp_path: Path) -> None:
    config = write_config(tmp_path / "freshvec.toml", config_toml("postgresql:///x", tmp_path, DOCS_SYNC))
    for command in ("run", "serve"):
        for name in ("--serve", "--address"):
            done = freshvec(command, name, "nonsense", "--config", str(config))
            assert (done.returncode, "'nonsense' is not an address" in done.stderr) == (2, True)


def test_a_log_line_has_a_date(tmp_path: Path) -> None:
    done = freshvec("plan", "--config", str(tmp_path / "none.toml"))
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ERROR ", done.stderr), done.stderr
    assert f"`freshvec init --output {tmp_path / 'none.toml'}` writes one" in done.stderr


def test_the_status_is_watched_until_ctrl_c(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    assert freshvec("apply", "--config", str(config)).returncode == 0
    watching = workers(config, "status", "--watch")
    until("it is shown", lambda: "docs: no worker" in watching.output)
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    until("it is shown anew", lambda: "backlog   2" in watching.output)  # the entry, and the row not walked
    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(30) == 130
    assert "Traceback" not in watching.output


# The model's runtime would abort a process that ends tidily while it computes: exit 134.
ENCODING = """
import atexit, os, signal, sys, threading
from freshvec.cli import main

threading.Thread(target=threading.Event().wait, name="encoder 0", daemon=True).start()
atexit.register(print, "a tidy end")

@main.app.command()
def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(60)

@main.app.command()
def unforeseen():
    raise RuntimeError("unforeseen")

@main.app.command()
def piped():
    raise BrokenPipeError

sys.argv = ["freshvec", {argument!r}]
main.main()
"""


@pytest.mark.parametrize(
    ("argument", "code"),
    [("--version", 0), ("interrupted", 130), ("piped", 0), ("--no-such-option", 2), ("unforeseen", 1)],
)
def test_no_end_waits_for_the_model_s_runtime(argument: str, code: int) -> None:
    done = run(ENCODING.format(argument=argument))
    assert done.returncode == code, done.stderr
    assert "a tidy end" not in done.stdout


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("--version 2>&-", 0, "freshvec "),
        ("--version <&-", 0, "freshvec "),
        ("--version >&-", 0, ""),
        ("init --output new.toml <&-", 2, "add --yes"),
        ("remove docs </dev/null", 2, "add --yes"),
        ("models bge-m3 >/dev/full", 1, "No space left on device"),
        ("--version >/dev/full", 1, "No space left on device"),
    ],
)
def test_streams_that_cron_or_a_full_disk_left(tmp_path: Path, command: str, code: int, told: str) -> None:
    (tmp_path / "freshvec.toml").write_text(DOCS_SYNC)
    line = f"cd {tmp_path}; exec {sys.executable} -m freshvec {command}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (done.stderr == "") == (code == 0)


def test_an_output_without_dashes_and_quotes_shows_what_it_can() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    code = "from freshvec.cli import streams; streams.ready(); print('1 \u2013 2')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=False)
    assert done.stdout == b"1 ? 2\n", done.stderr
