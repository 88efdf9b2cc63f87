"""The report in Chromium; conftest.py drives it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
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

Page = Any  # the browser of conftest.py
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
    page.press("Tab")
    keys: dict[str, Callable[[dict[str, str]], Any]] = {
        "probability": lambda entry: float(entry["probability"]),
        "patient": lambda entry: natural(entry["patient"]),
        "record": lambda entry: (entry["database"], natural(entry["record"]), float(entry["start"])),
    }
    for sort, key in keys.items():
        page.press("ArrowDown")
        assert page.evaluate("document.activeElement.value") == sort
        if sort == "record":  # databases with hostile names have an order of their own
            page.evaluate("document.forms.filters.elements.database.value = 'patient/10'")
            wanted = [entry for entry in wanted if entry["database"] == "patient/10"]
            page.evaluate("document.forms.filters.dispatchEvent(new Event('input'))")
        found = [key(entry) for entry in shown(page)]
        assert len(set(map(str, found))) > 1
        assert found == sorted(map(key, wanted))
    page.evaluate("document.forms.filters.elements.kind.focus()")
    page.press("ArrowDown")
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
