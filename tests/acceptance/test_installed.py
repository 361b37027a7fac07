"""Installed on a machine where nothing of it was: by the README's own lines, by each tool, and away again.

Two of the README's lines are done otherwise, since the machine has no network: `freshvec fetch` by a copy of
the model (what it does is in tests/integration/test_fetch.py), and the database's URL is the test's.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.acceptance.conftest import give_model, give_uv
from tests.acceptance.reader import blocks, commands
from tests.machine import Machine, tree, wheels
from tests.support import DOCS_SYNC, MODEL, REPOSITORY, Connection, count, exists, until

URL = "postgresql://freshvec@localhost/shop"
PAGE = "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:8378/{}').read().decode())"


@pytest.fixture
def articles(application: Connection) -> Connection:
    """A table of somebody's own."""
    application.execute(
        "CREATE TABLE articles (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, body text)"
    )
    application.execute(
        "INSERT INTO articles (title, body) VALUES"
        " ('How to return an order', 'Print the label, put it on the parcel, and hand it in.'),"
        " ('Baking bread', 'Flour, water, salt, and a night of patience.')"
    )
    return application


@pytest.fixture(scope="session")
def package(built: Path) -> Path:
    """The Debian package, built on a machine of the system that it is for, beside the wheel."""
    binds = {wheels(): "/wheels", built: "/root/dist", REPOSITORY: "/root/freshvec"}
    with Machine(tree(), binds) as machine:
        lines = "mkdir out && freshvec/packaging/deb/build dist/freshvec-*.whl out"
        machine.run(lines, PIP_NO_INDEX="1", PIP_FIND_LINKS="/wheels")
        (made,) = (machine.root / "root/out").glob("freshvec_*.deb")
        return Path(shutil.copy(made, built))


def way_in(way: str) -> list[str]:
    """What root types by the README, if the program comes from the wheel or as a package."""
    every = [commands(block, "#") for block in blocks("README.md")]
    by = {"wheel": "pip install", "deb": "apt install"}
    others = [word for name, word in by.items() if name != way]
    return [
        line
        for lines in every
        if not any(word in line for line in lines for word in others)
        for line in lines
    ]


@pytest.mark.parametrize("way", ["wheel", "deb"])
def test_from_nothing_to_a_service_by_the_readme(
    machine: Machine, articles: Connection, url_there: str, request: pytest.FixtureRequest, way: str
) -> None:
    if way == "deb":
        request.getfixturevalue("package")
    shown = {}
    for line in way_in(way):
        if line.startswith("freshvec fetch"):
            assert line.split()[2] == MODEL
            give_model(machine)
        else:
            shown[line] = machine.run(line.replace(URL, url_there), DEBIAN_FRONTEND="noninteractive")
    assert "active (running)" in shown["systemctl status freshvec"]
    check_service(machine, articles)
    if way == "deb":
        installed = next(text for line, text in shown.items() if line.startswith("apt install"))
        for command in ("freshvec fetch", "freshvec init", "systemctl enable --now freshvec"):
            assert command in installed
        check_removal(machine)


def check_service(machine: Machine, articles: Connection) -> None:
    """Every step, read back."""
    until("all is fresh", lambda: json.loads(machine.run("freshvec status --json"))[0]["coverage"] == 1)
    assert "return an order" in machine.run("freshvec search 'send a parcel back' -n 1")
    articles.execute("UPDATE articles SET title = 'Tuning a guitar', body = NULL WHERE id = 2")
    machine.run("freshvec wait")
    assert "guitar" in machine.run("freshvec search 'a musical instrument' -n 1")
    assert "every one fresh" in machine.run("freshvec verify")
    until("systemd shows it", lambda: "articles 100%" in machine.run("systemctl status freshvec"))
    assert "ready" in machine.run(f'python3 -c "{PAGE.format("readyz")}"')
    assert machine.show("freshvec", "UnitFileState", "NRestarts") == ["enabled", "0"]
    assert machine.run("stat --format=%a /etc/freshvec/database_url").strip() == "600"
    theirs = "su --shell=/bin/bash nobody --command 'freshvec models --json " + MODEL + "'"
    assert json.loads(machine.run(theirs))[0]["exported"], "every user finds the models"
    assert "model files" in machine.run("freshvec doctor || true")


def check_removal(machine: Machine) -> None:
    machine.run("systemctl enable freshvec@1 freshvec-folder@shop")
    machine.run("apt-get remove -y freshvec")
    assert not [*(machine.root / "etc/systemd/system").glob("*.wants/freshvec*")], "nothing leads nowhere"
    assert machine.show("freshvec", "LoadState", "ActiveState") == ["not-found", "inactive"]
    assert not (machine.root / "opt/freshvec").exists()
    assert (machine.root / "etc/freshvec/freshvec.toml").exists(), "a purge takes it"
    machine.run("apt-get purge -y freshvec")
    for path in ("etc/freshvec", "var/lib/freshvec", "var/lib/private/freshvec"):
        assert not (machine.root / path).exists()


WAYS = {
    "pipx, wheel": "python3 -m venv pipx && pipx/bin/pip install -q pipx"
    ' && pipx/bin/pipx install "$(ls /root/dist/*.whl)[cpu,serve]"'
    " && ln -s /root/.local/bin/freshvec /usr/local/bin/freshvec",
    "uv, sdist": 'uv tool install -q --python /usr/bin/python3 "freshvec[cpu,serve] @ $(ls dist/*.tar.gz)"'
    " && ln -s /root/.local/bin/freshvec /usr/local/bin/freshvec",
}


@pytest.mark.parametrize("way", WAYS)
def test_each_tool_installs_a_service(machine: Machine, docs: Connection, url_there: str, way: str) -> None:
    """In root's own home, which the service sees nothing else of."""
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    if way.startswith("uv"):
        give_uv(machine)
    machine.run("ln -s freshvec/dist dist")
    machine.run(WAYS[way])
    give_model(machine)
    machine.write("/etc/freshvec/freshvec.toml", DOCS_SYNC)
    machine.write("/etc/freshvec/database_url", url_there, 0o600)
    said = machine.run("freshvec install-units")
    assert "freshvec.service.d/program.conf" in said
    assert "freshvec init" not in said, "there is a file already"
    machine.run("systemctl daemon-reload && systemctl start freshvec")
    until("it works", lambda: exists(docs, "docs_embedding") and count(docs, "docs_embedding") == 1)
    (pid,) = machine.show("freshvec", "MainPID")
    seen = machine.run(f"nsenter --target={pid} --mount ls -A /root")
    assert seen.split() == [".local"]
    units = "freshvec.service freshvec@0.service freshvec-folder@x.service"
    assert machine.run(f"systemd-analyze verify {units} 2>&1") == ""
