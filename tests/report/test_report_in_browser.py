"""The report in Chromium without a window, driven through the pipe of its DevTools: no other package, no network."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecg_shock.data.windows import Excluded
from ecg_shock.evaluation.confidence import Proportion
from ecg_shock.evaluation.metrics import evaluate
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.stress import StressPoint
from ecg_shock.report.gallery import Strip
from ecg_shock.report.html import ReportContent, write_report

ANSWER_WITHIN_S = 60.0
KEYS = {"Tab": 9, "ArrowDown": 40}  # their Windows codes, by which Chromium knows them
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
# Chromium reads commands from descriptor 3 and writes to 4; a process of its own puts the pipes there.
LAUNCHER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, place in zip(ends, (3, 4)):
    os.dup2(end, place)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """Return the browser's path, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One page, and every event that its DevTools report.

    Use it in a ``with`` statement; the browser ends with it.
    """

    def __init__(self, browser: str, profile: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._sent = 0
        self._rest = b""
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        command = [sys.executable, "-c", LAUNCHER, str(to_browser), str(from_browser), browser]
        self._process = subprocess.Popen(
            [*command, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        try:
            self.send("Browser.close")
            self._process.wait(ANSWER_WITHIN_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            os.close(self._read)
            os.close(self._write)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return what it answers."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._sent:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        """Show a file in a window of so many pixels, and wait until it is loaded."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not self.seen("Page.loadEventFired"):
            self.events.append(self._receive())

    def seen(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of every event of a kind since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], ANSWER_WITHIN_S)[0]:
                raise TimeoutError(f"Chromium said nothing for {ANSWER_WITHIN_S:g} s")
            read = os.read(self._read, 1 << 20)
            if not read:
                raise RuntimeError("Chromium ended")
            self._rest += read
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)


PX_PER_MM = 96 / 25.4
PHONE = (400, 800)
HOSTILE = (
    "<script>window.taken = 1</script>",
    '"><img src=x onerror="window.taken = 1">',
    "</script></style></svg></select><script>window.taken = 1</script>",
    "LongerThanAnyTelephoneIsWide" * 6,
    "b\u202etxet",
    "patient/10",
    "patient/9",
)
RATE = Proportion(windows=10, patients=3, count=9, observed=0.9, lower_limit=0.6, patient_limit=0.5, macro_average=0.9)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Start one browser for all tests."""
    path = find_chromium()
    if path is None:
        pytest.skip("Chromium is missing: on Debian, apt-get install chromium")
    with Page(path, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def content(make_predictions: Callable[..., Predictions]) -> ReportContent:
    """Make up a report with every section and with names that would do harm."""
    predictions = Predictions.concatenate([make_predictions(100, 3.0), make_predictions(300, 5.0)])
    n = len(predictions)
    names = np.array([HOSTILE[i % len(HOSTILE)] for i in range(n)], dtype=str)
    predictions = replace(
        predictions,
        database=np.array([HOSTILE[(i - 1) % len(HOSTILE)] for i in range(n)], dtype=str),
        record=np.array([f"record {11 - i % 5}" for i in range(n)], dtype=str),
        patient=names,
        lead=names,
        fold=np.zeros(n, dtype=int),
    )
    validation = evaluate(predictions)
    name = HOSTILE[3]
    return ReportContent(
        validation,
        predictions,
        baselines={HOSTILE[1]: validation, name: validation},
        stress=[StressPoint(name, HOSTILE[0], value, RATE, RATE, 0) for value in (1.0, 2.0)],
        strips=lambda row: Strip(np.sin(np.arange(1750) / 20), 250.0, float(predictions.start_s[row]) - 1),
        excluded=[Excluded(HOSTILE[2], name, HOSTILE[0], 10.0)],
        provenance={name: {name: name}, HOSTILE[2]: HOSTILE[1]},
    )


@pytest.fixture
def page(browser: Page, content: ReportContent, tmp_path: Path) -> Page:
    """Open the report."""
    write_report(tmp_path / "report.html", content)
    browser.open(tmp_path / "report.html")
    return browser


def shown(page: Page) -> list[dict[str, str]]:
    """Return what the entries of the gallery that can be seen are, in their order."""
    return page.evaluate(
        "[...document.querySelectorAll('#strips > li')].filter(e => e.offsetHeight > 0).map(e => ({...e.dataset}))"
    )


def press(page: Page, key: str) -> None:
    """Press and release a key."""
    for kind in ("keyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])


def natural(name: str) -> list[tuple[int, str]]:
    """Order names as people do: 9 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def test_page_is_quiet_and_loads_nothing(page: Page, tmp_path: Path) -> None:
    """There is no message, no exception, and no request but for the file itself; others are refused."""
    assert (
        page.seen("Log.entryAdded")
        == page.seen("Runtime.consoleAPICalled")
        == page.seen("Runtime.exceptionThrown")
        == []
    )
    urls = [event["request"]["url"] for event in page.seen("Network.requestWillBeSent")]
    assert [url for url in urls if not url.startswith("data:")] == [(tmp_path / "report.html").as_uri()]
    refused = page.evaluate(
        """new Promise(done => {
            document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
            document.body.append(Object.assign(new Image(), {src: "http://127.0.0.1:9/x.png"}));
        })"""
    )
    assert refused == "img-src"


def test_names_stay_text(page: Page) -> None:
    """Hostile names run nothing and make nothing, in the page and in the choices that the script adds."""
    assert page.evaluate("[window.taken === undefined, document.scripts.length, document.images.length]") == [
        True,
        1,
        0,
    ]
    options = page.evaluate("[...document.forms.filters.elements.database.options].map(o => o.value)")
    assert sorted(options[1:]) == sorted(name.replace("\u202e", "\\u202e") for name in HOSTILE)
    text = page.evaluate("document.body.innerText")
    assert HOSTILE[0] in text
    assert r"b\u202etxet" in text
    assert "\u202e" not in text


def test_gallery_filters_and_sorts_by_keyboard(page: Page) -> None:
    """What can be seen is what was asked for, in the order that was asked for, and the page says how many."""
    everything = shown(page)
    assert len(everything) > 20
    page.evaluate("document.forms.filters.elements.patient.focus()")
    page.send("Input.insertText", text="PATIENT/")
    wanted = [entry for entry in everything if "patient/" in entry["patient"]]
    assert 0 < len(wanted) < len(everything)
    assert shown(page) == wanted
    assert page.evaluate("document.querySelector('output').textContent") == f"{len(wanted)} of {len(everything)} shown"
    press(page, "Tab")
    keys: dict[str, Callable[[dict[str, str]], Any]] = {
        "probability": lambda entry: float(entry["probability"]),
        "patient": lambda entry: natural(entry["patient"]),
        "record": lambda entry: (entry["database"], natural(entry["record"]), float(entry["start"])),
    }
    for sort, key in keys.items():
        press(page, "ArrowDown")
        assert page.evaluate("document.activeElement.value") == sort
        if sort == "record":  # databases with hostile names have an order of their own
            page.evaluate("document.forms.filters.elements.database.value = 'patient/10'")
            wanted = [entry for entry in wanted if entry["database"] == "patient/10"]
            page.evaluate("document.forms.filters.dispatchEvent(new Event('input'))")
        found = [key(entry) for entry in shown(page)]
        assert len(set(map(str, found))) > 1
        assert found == sorted(map(key, wanted))
    page.evaluate("document.forms.filters.elements.kind.focus()")
    press(page, "ArrowDown")
    kind = page.evaluate("document.activeElement.value")
    assert kind == "false shock"
    assert {entry["kind"] for entry in shown(page)} == {kind}
    assert len(shown(page)) == sum(entry["kind"] == kind for entry in wanted)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_telephone_needs_no_sideways_scrolling(page: Page, tmp_path: Path, scheme: str) -> None:
    """At 400 pixels, with names longer than that, the page does not move sideways, in light and dark."""
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.open(tmp_path / "report.html", *PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    width, inner = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner == PHONE[0]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    page.send("Emulation.setEmulatedMedia", features=[])


def test_print_is_to_scale_and_unfolded(page: Page) -> None:
    """A strip of 7 s is 175 mm wide, what is folded is printed, and the pages are A4."""
    width = page.evaluate("document.querySelector('svg.paper').getBoundingClientRect().width")
    assert width == pytest.approx(175 * PX_PER_MM, abs=1)
    opened = page.evaluate(
        """["beforeprint", "afterprint"].map(name => {
            dispatchEvent(new Event(name));
            return document.querySelectorAll("details[open]").length;
        }).concat(document.querySelectorAll("details").length)"""
    )
    assert opened[0] == opened[2] > 0
    assert opened[1] == 0
    pdf = base64.b64decode(page.send("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pdf.startswith(b"%PDF")
    sizes = re.findall(rb"/MediaBox \[([^\]]*)\]", pdf)
    assert len(sizes) > 5
    for size in sizes:
        assert [float(number) for number in size.split()] == pytest.approx([0, 0, 595, 842], abs=1)
