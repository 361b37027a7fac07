"""The site of the documents: built without a network, whole, and good to look at on a phone, too."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, browser
from tests.support import REPOSITORY, until

LOADED = r"""<(?:script|img|iframe|source)[^>]* src="([^"]+)"|<link[^>]* href="([^"]+)"|url\(["']?([^"')]+)"""


WHOLE = "return [...document.images].every((image) => image.complete && image.naturalWidth > 0)"
SCHEME = "return document.body.getAttribute('data-md-color-scheme')"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", f"--site-dir={folder}"],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def pages(site: Path) -> list[str]:
    return sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css", ".svg")]
    loaded = [
        (path.name, found)
        for path in files
        for match in re.findall(LOADED, path.read_text(encoding="utf-8"))
        for found in match
        if re.match(r"(https?:)?//", found)
    ]
    assert loaded == []
    assert len(pages(site)) > 15


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_and_is_whole(chromium: Browser, site: Path, address: str, width: int) -> None:
    chromium.look(width, 900, dark=width < 600)
    for page in pages(site):
        if page == "404.html":
            continue
        chromium.open(f"{address}/{page}")
        until("it is there", lambda: chromium.text("h1") != "")
        assert chromium.run("return document.documentElement.scrollWidth <= innerWidth"), page
        until(f"{page} has its pictures", lambda: chromium.run(WHOLE))
        assert chromium.complaints() == [], page


def test_it_looks_as_the_system_does_and_is_searched(chromium: Browser, address: str) -> None:
    chromium.look(1280, 900, dark=True)
    chromium.open(f"{address}/index.html")
    until("it is dark", lambda: chromium.run(SCHEME) == "slate")
    chromium.look(1280, 900, dark=False)
    until("it is light", lambda: chromium.run(SCHEME) == "default")
    chromium.click(".md-search__input")
    chromium.type(".md-search__input", "reciprocal")
    until("it finds", lambda: "Hybrid search" in chromium.text(".md-search-result__list"), seconds=20)
