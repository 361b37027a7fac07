"""A reader of the documents: finds their blocks, and does what they say.

Lines of root (`# …`) are typed in `test_installed.py`, on a machine of its own.

Run as they stand: every `$ freshvec …` line but the export, the TOML file, SQL, Python. Replaced, as there is
no network here and no time to export:

- `git clone …` by a link to this checkout
- `make …` by `make --dry-run …`, so its target exists
- `pip install …` by a look into pyproject.toml: the extras exist, the wheel has this version, and what a
  recipe needs is among the packages of the tests
- `freshvec export NAME` and `fetch` by a look whether NAME is exported already
- ports 8377 and 8378 by free ones; the database's URL by that of the test
"""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from freshvec import __version__
from freshvec.cli import main  # noqa: F401  (it declares the commands)
from freshvec.cli.app import app
from tests.support import REPOSITORY, Connection, free_port, until


@dataclass(frozen=True)
class Block:
    """A fenced block; `title` is the file that it is, if it has one."""

    language: str
    title: str
    text: str


def blocks(document: str) -> list[Block]:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    found = re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found]


def commands(block: Block, prompt: str) -> list[str]:
    """The lines of a console block that are typed behind this prompt: `$` for anybody, `#` for root."""
    return [line[2:] for line in block.text.splitlines() if line.startswith(f"{prompt} ")]


def printed(block: Block) -> dict[str, str]:
    """What is shown below each line that is typed behind `$`, where anything is."""
    parts = re.split(r"^\$ (.+)\n", block.text, flags=re.MULTILINE)[1:]
    return {line: shown for line, shown in zip(parts[::2], parts[1::2]) if shown}


def check_install(words: list[str]) -> None:
    """What pip is asked to install is there, and has the extras asked for."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    if not words[0].startswith("./"):
        extras = project["optional-dependencies"]
        known = {re.split(r"[\[<>=]", each)[0] for each in (*project["dependencies"], *extras["dev"])}
        assert {word.partition("[")[0] for word in words} <= known
        return
    (wanted,) = words
    matched = re.fullmatch(r"\./freshvec(?:/dist/freshvec-(.+)-py3-none-any\.whl)?\[([\w,]+)\]", wanted)
    assert matched, wanted
    assert matched.group(1) in (None, __version__)
    assert set(matched.group(2).split(",")) <= project["optional-dependencies"].keys()


def check_make(line: str, cwd: Path) -> None:
    words = shlex.split(line)
    done = subprocess.run([*words, "--dry-run"], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in words:
        if word.startswith("T="):
            assert (REPOSITORY / word[2:].split("::")[0]).exists()


def check_usage(words: list[str]) -> None:
    """The command exists, and takes these arguments and options."""
    command: Any = typer.main.get_command(app)
    with typer.Context(command) as context:
        name, found, arguments = command.resolve_command(context, words)
        found.make_context(name, list(arguments), parent=context)


class Reader:
    """Somebody who types what the README says, in an empty folder, with a home of their own."""

    def __init__(self, folder: Path, url: str, models_dir: Path, application: Connection, rows: int) -> None:
        self.folder = folder
        self.application = application
        self.url = url
        self._models_dir = models_dir
        self._rows = rows  # that will be fresh
        self._daemon: subprocess.Popen[str] | None = None
        self._log = folder / "daemon.log"
        self.names: dict[str, Any] = {}  # of the Python block
        self._ports = {"8377": str(free_port()), "8378": str(free_port())}
        home = folder / "home"
        (home / ".local/share/freshvec").mkdir(parents=True)
        (home / ".local/share/freshvec/models").symlink_to(models_dir)
        self._install(folder / "bin")
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("FRESHVEC_", "XDG_"))
        }
        self.env = {
            **kept,
            "HOME": str(home),
            "PATH": f"{folder / 'bin'}:{kept['PATH']}",
            "FRESHVEC_DATABASE_URL": url,
            "FRESHVEC_WEB_ADDRESS": f"127.0.0.1:{self._ports['8378']}",
        }

    def _install(self, folder: Path) -> None:
        """A `freshvec` that is this checkout's, and its `python`."""
        folder.mkdir(parents=True)
        for name, started in (("freshvec", "-m freshvec"), ("python", "")):
            (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {started} "$@"\n')
            (folder / name).chmod(0o755)

    def type(self, line: str) -> str:
        """Do what the line says, or what stands for it; its output."""
        words = shlex.split(line, comments=True)
        if words[0] == "git":
            (self.folder / words[-1]).symlink_to(REPOSITORY)
        elif words[0] == "make":
            check_make(line, self.folder)
        elif words[:2] == ["pip", "install"]:
            check_install(words[2:])
        elif words[:2] in (["freshvec", "export"], ["freshvec", "fetch"]):
            check_usage(words[1:])
            shown = json.loads(self.run(f"freshvec models {words[2]} --json"))
            assert shown[0]["exported"], "it is exported already"
        elif words[:2] == ["freshvec", "init"]:
            return self.answer(line)
        elif words[:2] == ["freshvec", "run"]:
            self._start(line)
        else:
            if words[:2] == ["freshvec", "remove"]:
                self.interrupt()
            return self.run(line)
        return ""

    def run(self, line: str) -> str:
        """The line, run by a shell; whatever asks is answered with yes."""
        command = ["bash", "-c", self.here(line)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, input="y\n", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def answer(self, line: str) -> str:
        """The line, run on a terminal, where its question is answered with Enter."""
        ours, theirs = pty.openpty()
        os.write(ours, b"\n")
        command = ["bash", "-c", self.here(line)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, stdin=theirs, capture_output=True, text=True, check=False
        )
        os.close(ours)
        os.close(theirs)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def here(self, text: str) -> str:
        for port, free in self._ports.items():
            text = text.replace(port, free)
        return text.replace("://me@localhost/shop", self.url.removeprefix("postgresql"))

    def _start(self, line: str) -> None:
        """Something that runs on; it is waited for until every row is fresh and it answers."""
        with self._log.open("w") as log:
            self._daemon = subprocess.Popen(
                ["bash", "-c", f"exec {self.here(line)}"],
                cwd=self.folder,
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        view = "SELECT to_regclass('articles_embedded')"
        until("there is a view", lambda: self.application.execute(view).fetchone() != (None,))
        fresh = "SELECT count(*) FROM articles_embedded"
        until("rows are fresh", lambda: self.application.execute(fresh).fetchone() == (self._rows,))
        until("it answers", lambda: "serving embeddings on" in self._log.read_text())

    def interrupt(self) -> None:
        """Ctrl-C."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGINT)
            assert self._daemon.wait(30) == 0, self._log.read_text()
            self._daemon = None

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait(30)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """An SQL block; `$1` is the Python block's vector as text."""
        if "$1" not in text:
            self.application.execute(text)
            return []
        params = (str(self.names["vector"]),)
        return self.application.execute(text.replace("$1", "%s"), params).fetchall()
