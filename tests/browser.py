"""A headless Chromium, driven over WebDriver by the standard library alone.

Debian has both programs: `apt-get install chromium chromium-driver`.
"""

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import until

_SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
_PORT = re.compile(r"started successfully on port (\d+)")


class Browser:
    """One window. Script errors and refusals by the page's policy are kept in `complaints`."""

    def __init__(self, driver: str, folder: Path) -> None:
        self._driver = driver
        options = {
            "binary": shutil.which("chromium"),
            "args": [*_SWITCHES, f"--user-data-dir={folder}"],
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"

    def _send(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._driver + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def _post(self, path: str, **body: object) -> Any:
        return self._send("POST", self._session + path, body)

    def open(self, url: str) -> None:
        self._post("/url", url=url)

    def run(self, script: str, *arguments: object) -> Any:
        """The value that the body of a function returns in the page."""
        return self._post("/execute/sync", script=script, args=list(arguments))

    def text(self, selector: str) -> str:
        """The text of the first element, as a person sees it; empty when there is none."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def click(self, selector: str) -> None:
        found = self._post("/element", using="css selector", value=selector)
        self._post(f"/element/{next(iter(found.values()))}/click")

    def type(self, selector: str, text: str) -> None:
        found = self._post("/element", using="css selector", value=selector)
        self._post(f"/element/{next(iter(found.values()))}/value", text=text)

    def look(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        """Have a window of that size, with that many device pixels per pixel."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self._command("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._command("Emulation.setEmulatedMedia", {"features": [scheme]})

    def _command(self, name: str, parameters: Mapping[str, object]) -> None:
        self._post("/goog/cdp/execute", cmd=name, params=parameters)

    def picture(self) -> bytes:
        """The window as a PNG."""
        return base64.b64decode(self._send("GET", f"{self._session}/screenshot"))

    def complaints(self) -> list[str]:
        """What the console has said since the last time."""
        return [entry["message"] for entry in self._post("/se/log", type="browser")]

    def close(self) -> None:
        self._send("DELETE", self._session)


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in `folder`."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("the page is looked at in Chromium: `apt-get install chromium chromium-driver`")
    log = folder / "chromedriver.log"
    with log.open("wb") as out:
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=out, stderr=subprocess.STDOUT)
    try:
        until("chromedriver listens", lambda: _PORT.search(log.read_text()))
        (port,) = _PORT.findall(log.read_text())
        opened = Browser(f"http://127.0.0.1:{port}", folder / "profile")
        try:
            yield opened
        finally:
            opened.close()
    finally:
        driver.terminate()
        driver.wait(30)
