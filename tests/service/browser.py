"""A real browser for tests of the page: headless Chromium, spoken to in its own protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.service.worker import eventually

PROGRAMS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_REPLY_S = 60


def find_chromium() -> str | None:
    """Where the browser is on this machine, if it is."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Session:
    """Commands to one end of the browser's protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send one command, and return its result; events that come meanwhile are looked at."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message: dict[str, Any] = json.loads(self._connection.recv(timeout=_REPLY_S))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result
            self.note(message["method"], message["params"])

    def note(self, event: str, parameters: dict[str, Any]) -> None:
        """Look at an event."""


class Tab(Session):
    """One page in a browser context of its own: no storage is shared with another tab's."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__(connection)
        self.faults: list[str] = []
        """Uncaught errors, refusals by the page's policy, and what else the console warns of."""
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def note(self, event: str, parameters: dict[str, Any]) -> None:
        """Keep what went wrong."""
        if event == "Runtime.exceptionThrown":
            self.faults.append(str(parameters["exceptionDetails"]))
        elif event == "Log.entryAdded" and parameters["entry"]["level"] in ("warning", "error"):
            entry = parameters["entry"]
            self.faults.append(f"{entry['text']} {entry.get('url', '')}")

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 (whatever the page says)
        """The value of a JavaScript expression in the page; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            allowUnsafeEvalBlockedByCSP=False,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:  # noqa: ANN401 (as of evaluate)
        """The value of the expression once it is truthy."""
        return eventually(lambda: self.evaluate(expression))

    def open(self, url: str) -> None:
        """Load a page, and wait until its script has run."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def text(self, selector: str) -> str:
        """What a reader sees of an element, nothing if it is hidden."""
        return str(self.evaluate(f"document.querySelector({selector!r}).innerText"))

    def sees(self, words: str) -> None:
        """Wait until the words can be read in the page."""
        self.until(f"document.body.innerText.includes({json.dumps(words)})")

    def middle(self, selector: str) -> dict[str, float]:
        """Where the element is, scrolled into sight."""
        box: dict[str, float] = self.until(
            f"(() => {{ const found = document.querySelector({selector!r});"
            " if (!found || !found.getClientRects().length) return null;"
            " found.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const box = found.getBoundingClientRect();"
            " return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        return box

    def click(self, selector: str) -> None:
        """Press the mouse on an element, once it is there and enabled."""
        self.until(f"document.querySelector({(selector + ':not(:disabled)')!r}) !== null")
        place = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def key(self, key: str, code: int, text: str = "") -> None:
        """Press a key on whatever has the focus."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def write(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.click(selector)
        self.call("Input.insertText", text=text)

    def drop(self, selector: str, path: Path) -> None:
        """Drop a file of this machine on an element."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        place = self.middle(selector)
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, data=data, **place)

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Give the page a window of that size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2,
            mobile=phone,
        )

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


class Browser:
    """A running Chromium."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextmanager
    def tab(self, downloads: Path | None = None) -> Iterator[Tab]:
        """A new tab; what it downloads goes to that folder."""
        with connect(self._url, proxy=None, max_size=None) as connection:
            browser = Session(connection)
            context = browser.call("Target.createBrowserContext")["browserContextId"]
            if downloads is not None:
                browser.call(
                    "Browser.setDownloadBehavior",
                    behavior="allow",
                    browserContextId=context,
                    downloadPath=str(downloads),
                )
            target = browser.call(
                "Target.createTarget", url="about:blank", browserContextId=context
            )["targetId"]
            page_url = f"{self._url.partition('/devtools')[0]}/devtools/page/{target}"
            with connect(page_url, proxy=None, max_size=None) as page:
                yield Tab(page)
            browser.call("Target.disposeBrowserContext", browserContextId=context)


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile and no window, ended afterwards."""
    program = find_chromium()
    assert program is not None
    command = [
        program,
        "--headless=new",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "--no-first-run",
        "--no-proxy-server",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--autoplay-policy=no-user-gesture-required",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # it refuses to run as root with one
        "about:blank",
    ]
    with (profile.with_suffix(".log")).open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        told = profile / "DevToolsActivePort"
        port, path = eventually(
            lambda: told.read_text().split() if told.exists() else [], lambda words: len(words) == 2
        )
        yield Browser(f"ws://127.0.0.1:{port}{path}")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
