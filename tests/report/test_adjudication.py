"""The page of a queue in Chromium: an expert reads, answers by keys, and saves what `read_corrections` reads."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecg_shock.data.corrections import Corrections, Reading, read_corrections
from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.data.windows import WindowLabel
from ecg_shock.evaluation.adjudication import QueueEntry, QueueRule
from ecg_shock.evaluation.committee import Committee, find_committee
from ecg_shock.report.adjudication import KEYS, write_queue

Page = Any  # the browser of conftest.py
FOLDS = Path(__file__).parents[2] / "tuning/results/headline/bundles"
PX_PER_MM = 96 / 25.4
DOWNLOAD_WITHIN_S = 30.0
HOSTILE = (
    "<script>window.taken = 1</script>",
    '"><img src=x onerror="window.taken = 1">',
    "</script></style></svg><script>window.taken = 1</script>",
    "<!--<script>",
    "b\u202etxet",
)


def entry_of(
    record: str = "db/r",
    start_s: float = 100.0,
    *,
    aha_class: str = "normal_sinus",
    rhythm: str = "normal_sinus",
    span: tuple[float, float] = (97.0, 200.0),
    ecg: np.ndarray | None = None,
    leads: Sequence[str] = ("II", "V5"),
    name: str = "(N",
) -> QueueEntry:
    """Make an entry whose context is 10 s of ECG at 250 Hz on both sides."""
    first_s = max(0.0, start_s - 10)
    samples = round((start_s + 15 - first_s) * 250)
    wave = 0.8 * np.sin(2 * np.pi * 3 * np.arange(samples) / 250) if ecg is None else ecg
    context = Recording(np.stack([wave] * len(leads), axis=1).astype(float), 250.0, tuple(leads), name="r")
    return QueueEntry(
        record=record, patient=f"patient of {record}", start_s=start_s, end_s=start_s + 5,
        label=WindowLabel(Episode(*span, rhythm, name), rhythm, aha_class, "" if aha_class else "too <odd>"),
        context=context, context_start_s=first_s, opinions=(0.25, 0.875), seen=True, score=0.75, disagreement=0.625,
        contradiction=0.5625, closeness=0.375,
    )  # fmt: skip


@pytest.fixture(scope="module")
def committee() -> Committee:
    """Load the networks of all folds."""
    return find_committee([FOLDS])


@pytest.fixture
def open_queue(browser: Page, committee: Committee, tmp_path: Path) -> Callable[[Sequence[QueueEntry]], Page]:
    """Write the page of a queue, and open it with an empty storage."""

    def open_queue(entries: Sequence[QueueEntry]) -> Page:
        write_queue(tmp_path / "queue.html", entries, committee, QueueRule())
        browser.open(tmp_path / "queue.html")
        browser.evaluate("localStorage.clear()")
        browser.open(tmp_path / "queue.html")
        return browser

    return open_queue


def save(page: Page, folder: Path) -> Corrections:
    """Press the button, and read the file that the browser saves."""
    file = folder / "corrections.toml"
    file.unlink(missing_ok=True)
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.evaluate("document.getElementById('save').click()")
    waited_until = time.monotonic() + DOWNLOAD_WITHIN_S
    while not file.is_file() and time.monotonic() < waited_until:
        page.evaluate("new Promise(done => setTimeout(done, 50))")
    return read_corrections(file)


def text_of(page: Page, name: str) -> str:
    """Return the text of an element."""
    return page.evaluate(f"document.getElementById({name!r}).textContent")


def type_in(page: Page, name: str, text: str) -> None:
    """Type into a field."""
    page.evaluate(f"document.getElementById({name!r}).focus()")
    page.send("Input.insertText", text=text)
    page.press("Escape")


def test_answers_become_corrections(open_queue: Callable[..., Page], tmp_path: Path) -> None:
    """Each key gives its answer; the file says what was read, by whom, and whether the opinion was seen before."""
    keys = list(KEYS)
    entries = [entry_of(f"db/r{i}", 100.0 + i) for i in range(len(keys) + 1)]
    page = open_queue(entries)
    page.evaluate("document.getElementById('save').click()")
    assert "Write your name first" in text_of(page, "message")
    reader, reason = 'Dr "Ö\\" O\'Neil', 'not <b>VF</b>: "x"\\n = 1 [[corrections]] 💓'
    type_in(page, "reader", reader)
    for number, key in enumerate(keys):
        assert text_of(page, "title").startswith(f"{number + 1} of {len(entries)}: record db/r{number}, 0:01:4")
        if number == 2:  # looks before the answer, not after it
            page.press("o")
        page.press(key)
        if number == 0:
            page.press("c")
            page.send("Input.insertText", text=reason)
            page.press("Escape")
        if number == 1:
            assert page.evaluate("document.getElementById('opinion').hidden")
            page.press("o")
            assert "1 of 2 networks advise a shock (opinions 0.25, 0.875" in text_of(page, "opinion")
        page.press("ArrowRight")
    assert text_of(page, "progress") == f"{len(keys)} of {len(entries)} answered"
    found = save(page, tmp_path)
    names = [name for name, _ in KEYS.values()]
    expected = [
        Reading(
            f"db/r{number}", 100.0 + number, 105.0 + number, "normal_sinus", name, reader,
            reason if number == 0 else "", number == 2,
        )
        for number, name in enumerate(names)
    ]  # fmt: skip
    same = ("normal_sinus", "cannot_say")
    assert found.entries == tuple(one for one in expected if one.new not in same)
    assert found.unchanged == tuple(one for one in expected if one.new in same)
    page.press("ArrowLeft")
    page.press("x")
    assert text_of(page, "progress") == f"{len(keys) - 1} of {len(entries)} answered"


def test_progress_is_kept_for_the_queue(open_queue: Callable[..., Page], browser: Page, tmp_path: Path) -> None:
    """After the page is opened again, answers, place and reader are there; another queue has none of them."""
    page = open_queue([entry_of("db/a"), entry_of("db/b"), entry_of("db/c")])
    type_in(page, "reader", "A")
    page.press("2")
    page.press("u")
    page.press("6")
    page.press("ArrowRight")
    page.open(tmp_path / "queue.html")
    assert text_of(page, "progress") == "2 of 3 answered"
    assert text_of(page, "title").startswith("3 of 3")
    assert [one.new for one in save(page, tmp_path).entries] == ["rapid_vt", "fine_vf"]
    page.press("u")
    assert text_of(page, "title").startswith("3 of 3")
    page.evaluate("localStorage.setItem(KEPT, '{broken')")
    page.open(tmp_path / "queue.html")
    assert text_of(page, "progress") == "0 of 3 answered"
    assert page.evaluate("document.getElementById('message').hidden")
    assert text_of(open_queue([entry_of("db/other")]), "progress") == "0 of 1 answered"


def test_segment_stays_within_label_and_picture(open_queue: Callable[..., Page], tmp_path: Path) -> None:
    """Keys and fields move its ends, but not beyond the annotated rhythm, the ECG that is shown, or each other."""
    page = open_queue([entry_of(start_s=100.0, span=(98.5, 300.0))])
    type_in(page, "reader", "A")
    page.press("1")

    def segment() -> tuple[float, float]:
        (one,) = save(page, tmp_path).entries
        return one.start_s, one.end_s

    page.press("[")
    assert segment() == (99.0, 105.0)
    page.press("[")
    assert segment() == (98.5, 105.0)  # where the annotated rhythm begins
    for _ in range(12):
        page.press("]")
    assert segment() == (98.5, 115.0)  # where the picture ends
    page.press("{")
    page.press("}")
    assert segment() == (99.5, 114.0)
    page.evaluate("(e => { e.value = '99'; e.dispatchEvent(new Event('change')); })(document.getElementById('end'))")
    assert segment() == (99.5, 114.0)
    page.press("r")
    assert segment() == (100.0, 105.0)


def test_strips_are_drawn_to_scale(open_queue: Callable[..., Page]) -> None:
    """10 s are 250 mm, 1 mV is 10 mm; gaps are gaps, a wandering baseline is removed, and what is too high is said."""
    times = np.arange(6250) / 250
    ecg = 0.5 * np.sin(2 * np.pi * 5 * times) + 3 * np.sin(2 * np.pi * 0.05 * times) + 7
    ecg[2500:5000] = np.nan
    high = np.where((times > 22) & (times < 23), 5.0, 1.0) * ecg
    page = open_queue([entry_of(ecg=ecg, leads=("II", "<V5>", "V6")), entry_of(ecg=high)])
    rows = page.evaluate("[...document.querySelectorAll('#ecg svg')].map(e => e.getBoundingClientRect().width)")
    assert rows == pytest.approx([250 * PX_PER_MM, 250 * PX_PER_MM, 125 * PX_PER_MM], abs=1)
    names = page.evaluate("[...document.querySelectorAll('#ecg svg:first-child .lead')].map(e => e.textContent)")
    assert names == ["II", "<V5>"]
    paths = page.evaluate("[...document.querySelectorAll('#ecg path.trace')].map(e => e.getAttribute('d'))")
    first = re.match(r"M(\d+) (\d+)", paths[0])
    assert first is not None
    x, y = map(int, first.groups())
    at = {}
    for step in re.findall(r"l(-?\d+ -?\d+)", paths[0]):
        dx, dy = map(int, step.split())
        x, y = x + dx, y + dy
        at[x] = y
    assert x == pytest.approx(2500, abs=2)
    settled = {place: height for place, height in at.items() if place > 500}
    assert max(settled.values()) - min(settled.values()) == pytest.approx(100, abs=5)  # 1 mV
    peaks = [place for place in settled if all(settled[place] <= at.get(place + k, 0) for k in (-2, 2))]
    assert np.diff(peaks).mean() == pytest.approx(50, rel=0.1)  # 0.2 s
    assert all(re.fullmatch(r"(M2500 \d+)?", path) for path in paths[2:4])  # at most the first sample of the next row
    assert page.evaluate("document.querySelector('#ecg svg:nth-child(2) .shade').getAttribute('width')") == "1250"
    page.press("ArrowRight")
    names = page.evaluate("[...document.querySelectorAll('#ecg svg:first-child .lead')].map(e => e.textContent)")
    assert names == ["II, drawn up to ±2 mV", "V5, drawn up to ±2 mV"]


def test_hostile_names_stay_text(open_queue: Callable[..., Page], tmp_path: Path) -> None:
    """They run nothing and load nothing; what is saved is the name itself."""
    entries = [entry_of(f"db/{name}", leads=(name, "x"), name=name, aha_class="") for name in HOSTILE]
    page = open_queue(entries)
    type_in(page, "reader", HOSTILE[0])
    for name in HOSTILE:
        shown = name.replace("\u202e", "\\u202e")
        assert shown in text_of(page, "title")
        assert f"code {shown}; no AHA class: too <odd>" in text_of(page, "label")
        page.press("1")
        page.press("o")
        page.press("ArrowRight")
    assert page.evaluate("[window.taken === undefined, document.images.length]") == [True, 0]
    assert page.seen("Runtime.exceptionThrown") == page.seen("Log.entryAdded") == []
    urls = [event["request"]["url"] for event in page.seen("Network.requestWillBeSent")]
    assert [url for url in urls if not url.startswith("data:")] == [(tmp_path / "queue.html").as_uri()]
    assert [one.record for one in save(page, tmp_path).entries] == [f"db/{name}" for name in HOSTILE]


def test_all_strips_are_printed(open_queue: Callable[..., Page]) -> None:
    """There is one page in A4 landscape for each strip, with the answer."""
    page = open_queue([entry_of(f"db/{number}") for number in range(3)])
    page.press("5")
    printed = page.evaluate(
        "(() => { dispatchEvent(new Event('beforeprint'));"
        "const text = document.getElementById('print').textContent;"
        "dispatchEvent(new Event('afterprint')); return [text, document.getElementById('print').children.length]; })()"
    )
    assert "record db/0" in printed[0]
    assert printed[0].count("Answer: Asystole") == 1
    assert printed[0].count("Answer: ____") == 2
    assert printed[1] == 0
    pdf = base64.b64decode(page.send("Page.printToPDF", preferCSSPageSize=True)["data"])
    sizes = re.findall(rb"/MediaBox \[([^\]]*)\]", pdf)
    assert len(sizes) == 3
    assert [float(number) for number in sizes[0].split()] == pytest.approx([0, 0, 842, 595], abs=1)


def test_empty_queue_says_so(open_queue: Callable[..., Page]) -> None:
    """There is nothing to answer, and no error."""
    page = open_queue([])
    assert "The queue is empty" in page.evaluate("document.body.innerText")
    page.press("1")
    assert page.seen("Runtime.exceptionThrown") == []


@pytest.mark.slow
def test_two_thousand_strips(open_queue: Callable[..., Page], rng: np.random.Generator) -> None:
    """The page opens, draws only the strip that is shown, and goes to the last strip that has no answer."""
    entries = [entry_of(f"db/{number}", ecg=rng.normal(0, 0.3, 6250)) for number in range(2000)]
    page = open_queue(entries)
    assert page.evaluate("document.querySelectorAll('svg.paper').length") == 3
    page.evaluate("for (let i = 0; i < 1999; i++) state.answers[i] = { ...blank(strips[i]), answer: 'noise' }; keep()")
    page.press("u")
    assert text_of(page, "title").startswith("2000 of 2000: record db/1999")
    page.press("3")
    assert text_of(page, "progress") == "2000 of 2000 answered"
    assert page.seen("Runtime.exceptionThrown") == []
