"""The page in a real browser: what a person sees, and what a hostile row cannot do."""

import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from freshvec.worker.worker import Worker
from tests.acceptance.page import HOSTILE, get, paged, state, tables, with_page
from tests.browser import Browser, browser
from tests.support import REPOSITORY, Connection, NullEncoder, sync_of, until

FILES = REPOSITORY / "daemon/freshvec/web/page"
POLL_SECONDS = 2.0
CURSED = "cursed: no vector for this"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def chromium(window: Browser) -> Iterator[Browser]:
    """The window, which looks at nothing before and after."""
    yield window
    window.open("about:blank")
    window.complaints()


@pytest.fixture
def page(url: str, application: Connection) -> Iterator[tuple[str, Worker]]:
    """Three syncs: one with a hostile text and one that cannot be encoded, one fresh, one without a table."""
    syncs = tables(application, 2)
    application.execute("INSERT INTO docs_00 VALUES (100, %s), (101, %s)", (HOSTILE, CURSED))
    with paged(with_page(url, *syncs, sync_of("nowhere", "lost")), NullEncoder(refuse="cursed")) as (
        address,
        worker,
    ):
        until(
            "all is known",
            lambda: (
                {s["name"]: s["state"] for s in state(address)["syncs"]}
                == {"docs_00": "trouble", "docs_01": "fresh", "lost": "trouble"}
            ),
        )
        yield address, worker


def opened(chromium: Browser, address: str, condition: Callable[[], object]) -> None:
    chromium.look(1360, 1000)
    chromium.open(f"http://{address}/")
    until("the page shows it", condition)


def test_what_is_wrong_comes_first_with_what_to_do(
    chromium: Browser, page: tuple[str, Worker], application: Connection
) -> None:
    address, _ = page
    opened(chromium, address, lambda: chromium.text("#headline") == "2 syncs need you")
    notices = chromium.text("#notices")
    assert "one text could not be encoded" in notices
    assert "freshvec retry docs_00" in notices
    assert "there is no such table" in notices
    names = chromium.run("return [...document.querySelectorAll('.name b')].map((b) => b.innerText)")
    assert names == ["docs_00", "lost", "docs_01"], "what needs somebody stands first"
    chromium.click("#list li:first-child .row")
    until("the row that failed is shown", lambda: "refuses this text" in chromium.text(".failed"))
    assert chromium.text("#live") == "live"
    application.execute("DELETE FROM docs_00 WHERE id = 101")
    until("it is told without a reload", lambda: chromium.text("#headline") == "One sync needs you")
    assert chromium.complaints() == []


def test_the_search_finds_a_hostile_row_and_shows_it_as_text(
    chromium: Browser, page: tuple[str, Worker]
) -> None:
    opened(chromium, page[0], lambda: chromium.text("#search-sync") != "")
    chromium.type("#search-text", HOSTILE)
    chromium.click("#search-form button")
    until("the row is found", lambda: HOSTILE in chromium.text("#hits"))
    assert chromium.run("return document.querySelectorAll('#hits img, #hits script').length") == 0
    assert chromium.run("return window.hacked ?? null") is None
    assert "nearest first" in chromium.text("#search-note")
    assert chromium.complaints() == []


def test_the_policy_lets_nothing_else_run(chromium: Browser, page: tuple[str, Worker]) -> None:
    opened(chromium, page[0], lambda: chromium.text("#live") == "live")
    chromium.complaints()
    tried = """
      const made = document.createElement("div");
      try { made.innerHTML = arguments[0]; document.body.append(made); } catch { return "refused"; }
      return "done";
    """
    assert chromium.run(tried, HOSTILE) == "refused", "no text becomes markup, even by mistake"
    policy = get(page[0])[2]["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy, "nothing is loaded from elsewhere"


def test_it_fits_a_phone_and_both_colour_schemes(chromium: Browser, page: tuple[str, Worker]) -> None:
    opened(chromium, page[0], lambda: chromium.text("#count") == "3")
    backs = set()
    for width, height, dark in ((1360, 1000, False), (1360, 1000, True), (390, 844, False), (360, 640, True)):
        chromium.look(width, height, dark=dark)
        assert chromium.run("return document.documentElement.scrollWidth") <= width
        backs.add(chromium.run("return getComputedStyle(document.body).backgroundColor"))
        assert len(chromium.picture()) > 10_000
    assert len(backs) == 2


def test_it_says_that_nobody_answers_and_comes_back(
    chromium: Browser, url: str, application: Connection
) -> None:
    settings = with_page(url, *tables(application, 1))
    with paged(settings, NullEncoder()) as (address, _):
        opened(chromium, address, lambda: chromium.text("#headline") == "Every row is fresh")
    until("it says that nobody answers", lambda: chromium.text("#live").startswith("no answer for"))
    with paged(settings, NullEncoder()):
        until("it is live again", lambda: chromium.text("#live") == "live")


def test_fifty_syncs_can_be_read_and_narrowed_down(
    chromium: Browser, url: str, application: Connection
) -> None:
    with paged(with_page(url, *tables(application, 50, rows=1)), NullEncoder()) as (address, _):
        until("all are fresh", lambda: all(s["state"] == "fresh" for s in state(address)["syncs"]))
        opened(chromium, address, lambda: chromium.text("#headline") == "Every row is fresh")
        assert chromium.text("#count") == "50"
        assert chromium.run("return document.querySelectorAll('#list > li').length") == 50
        chromium.type("#filter", "docs_17")
        shown = "return [...document.querySelectorAll('#list > li')].filter((li) => !li.hidden).length"
        assert chromium.run(shown) == 1
        assert chromium.complaints() == []
        chromium.open("about:blank")
        assert_light(address)


def assert_light(address: str) -> None:
    """The page's bars: 200 kB, 100 ms, and a hundredth of a core for who looks at it."""
    names = ("", *(path.name for path in FILES.iterdir() if path.suffix in (".js", ".css", ".svg")))
    weight = sum(len(get(address, f"/{name}")[1]) for name in names)
    assert weight + len(get(address, "/api/state")[1]) < 200_000
    times = []
    for name in names:
        began = time.perf_counter()
        assert get(address, f"/{name}")[0] == 200
        times.append(time.perf_counter() - began)
    assert statistics.median(times) < 0.1
    began = time.process_time()
    for _ in range(20):
        state(address, since=10**9)
    spent = (time.process_time() - began) / 20
    assert spent / POLL_SECONDS < 0.01, "this process asks itself, so that is more than the page costs"


def test_without_leave_nothing_of_a_row_is_shown(
    chromium: Browser, url: str, application: Connection
) -> None:
    settings = with_page(url, *tables(application, 1), rows=False)
    with paged(settings, NullEncoder(refuse="row 2")) as (address, _):
        until("one has failed", lambda: state(address)["syncs"][0]["rows_failed"] == 1)
        told = state(address)
        assert (told["log"], told["syncs"][0]["failures"]) == ([], [])
        assert get(address, "/api/search?sync=docs_00&text=row")[0] == 403
        opened(chromium, address, lambda: "rows = true" in chromium.text("#search-note"))
        assert not chromium.run("return document.getElementById('search-form').checkVisibility()")
        assert "one text could not be encoded" in chromium.text("#notices")
