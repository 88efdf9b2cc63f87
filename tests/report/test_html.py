"""The report describes what was evaluated, shows every error, and escapes names."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecg_shock.data.windows import Excluded
from ecg_shock.evaluation.comparison import compare_predictions
from ecg_shock.evaluation.confidence import Proportion
from ecg_shock.evaluation.metrics import AHA_GOALS, Model, evaluate
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.roc import reliability, roc
from ecg_shock.evaluation.stress import StressPoint
from ecg_shock.report import figures, tables
from ecg_shock.report import html as report
from ecg_shock.report.first_screen import find_weaknesses
from ecg_shock.report.gallery import Strip, draw_strip
from ecg_shock.report.html import ReportContent, write_report
from ecg_shock.rhythms import AHA_CLASSES, AHA_LABELS, NONSHOCKABLE, SHOCKABLE

VOID = {"meta", "link", "br", "input", "img"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script></style></svg><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "' onmouseover='alert(1)",
    r"$\frac{1}$ #0a559f",
    "a\x00b\u202egnp\u2066\ufeff\ud800",
)
RATE = Proportion(windows=10, patients=3, count=9, observed=0.9, lower_limit=0.6, patient_limit=0.5, macro_average=0.9)
MODEL = Model("a model", "fold-0/bundle", "public-v1", 0, "ab" * 32, "cd" * 20, 1234, 0.5, "Chosen by hand.")


class Page(HTMLParser):
    """Elements with their attributes and text; tags that do not match are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element without an end."""
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element."""
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        """Add text to all open elements."""
        for index in self._open:
            self.elements[index][2].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        """Return attributes and text of every element of a kind."""
        return [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]

    def table(self, caption: str) -> list[list[str]]:
        """Return the cells of the first table whose caption begins so, header first."""
        rows: list[list[str]] | None = None
        for name, _, text in self.elements:
            if name == "table" and rows is not None:
                break
            if name == "caption" and "".join(text).startswith(caption):
                rows = []
            elif name == "tr" and rows is not None:
                rows.append([])
            elif name in ("th", "td") and rows is not None:
                rows[-1].append("".join(text).strip())
        assert rows is not None, caption
        return rows

    @property
    def text(self) -> str:
        """Everything written in the page."""
        return self.all("body")[0][1]


def write(folder: Path, content: ReportContent) -> Page:
    """Write the report and take it apart."""
    path = folder / "report.html"
    write_report(path, content)
    return Page(path.read_text(encoding="utf-8"))


def sine(row: int) -> Strip:
    """Return 7 s of a sine with a gap."""
    ecg = np.sin(np.arange(1750) / 20)
    ecg[100:110] = np.nan
    return Strip(ecg, 250.0, 1.0, np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.5, 0.9]))


def errors_of(predictions: Predictions, duration_s: float) -> list[int]:
    """Find the windows with wrong advice, one at a time."""
    return [
        row
        for row in range(len(predictions))
        if predictions.duration_s[row] == duration_s
        and (
            (predictions.aha_class[row] in SHOCKABLE and not predictions.shock[row])
            or (predictions.aha_class[row] in NONSHOCKABLE and predictions.shock[row])
        )
    ]


def windows(rows: list[tuple[str, str, bool, float]]) -> Predictions:
    """Build predictions of 5 s from (patient, class, shock advised, probability)."""
    n = len(rows)
    rhythm = {"coarse_vf": "vf", "rapid_vt": "vt", "other_nonshockable": "paced", "fine_vf": "vf", "other_vt": "vt"}
    return Predictions(
        database=np.full(n, "db"),
        record=np.array([patient for patient, *_ in rows], dtype=str),
        lead=np.full(n, ""),
        patient=np.array([patient for patient, *_ in rows], dtype=str),
        start_s=np.arange(n) * 5.0,
        duration_s=np.full(n, 5.0),
        rhythm=np.array([rhythm.get(aha_class, aha_class) for _, aha_class, *_ in rows], dtype=str),
        aha_class=np.array([aha_class for _, aha_class, *_ in rows], dtype=str),
        probability=np.array([probability for *_, probability in rows]),
        shock=np.array([shock for _, _, shock, _ in rows]),
        fold=np.zeros(n, dtype=int),
    )


def test_first_table_is_what_was_counted(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """Windows, patients and shares of each class are those of a plain count; the verdict follows from its own row."""
    predictions = make_predictions(1500)
    page = write(tmp_path, ReportContent(evaluate(predictions), predictions))
    header, *rows = page.table("AHA classes, windows of 5 s")
    assert header[:2] == ["Class and measure", "Verdict"]
    for aha_class, cells in zip(AHA_CLASSES, rows, strict=True):
        assert cells[0].startswith(AHA_LABELS[aha_class])
        mine = predictions.aha_class == aha_class
        right = [bool(s) != (aha_class in NONSHOCKABLE) for s in predictions.shock[mine]]
        goal = AHA_GOALS[aha_class]
        assert cells[2] == str(len(set(predictions.patient[mine].tolist())))
        assert cells[3] == f"{sum(right)}/{len(right)}(n ≥ {goal.min_windows})"
        share = math.floor(1000 * sum(right) / len(right) + 1e-9) / 10
        assert cells[4].startswith(f"{share:.1f}")
        if goal.observed is None or goal.limit is None:
            assert cells[1] == "○ report only"
            continue
        enough = len(right) >= goal.min_windows
        reached = sum(right) / len(right) > goal.observed and float(cells[5].split("(")[0]) >= 100 * goal.limit
        assert cells[1] == ("? too few windows" if not enough else "✓ meets" if reached else "✗ does not meet")


def test_every_error_is_in_the_gallery(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """Entries are the wrong windows of the headline duration, worst first, each with the ECG of its own row."""
    predictions = Predictions.concatenate([make_predictions(150, 3.0), make_predictions(200, 5.0)])
    asked: list[int] = []

    def strips(row: int) -> Strip | None:
        asked.append(row)
        return sine(row) if row % 2 else None

    page = write(tmp_path, ReportContent(evaluate(predictions), predictions, strips=strips))
    wrong = errors_of(predictions, 5.0)
    assert sorted(asked) == wrong
    entries = [(attributes, text) for attributes, text in page.all("li") if "data-kind" in attributes]
    assert [float(attributes["data-start"] or "") for attributes, _ in entries] == [
        predictions.start_s[row] for row in asked
    ]
    distances = []
    for row, (attributes, text) in zip(asked, entries, strict=True):
        missed = predictions.aha_class[row] in SHOCKABLE
        assert attributes["data-kind"] == ("missed shock" if missed else "false shock")
        assert attributes["data-patient"] == predictions.patient[row]
        assert f"{predictions.probability[row]:.4f}" in text
        assert ("ECG is not available" in text) == (row % 2 == 0)
        distances.append(abs(predictions.probability[row] - missed))
    assert distances == sorted(distances, reverse=True)


def test_gallery_is_cut_and_says_so(
    tmp_path: Path, make_predictions: Callable[..., Predictions], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many errors the worst are shown, and the text says how many there are."""
    monkeypatch.setattr(report, "MAX_STRIPS", 7)
    predictions = make_predictions(300)
    page = write(tmp_path, ReportContent(evaluate(predictions), predictions, strips=sine))
    assert sum("data-kind" in attributes for attributes, _ in page.all("li")) == 7
    assert f"the 7 worst of {len(errors_of(predictions, 5.0))} are shown" in page.text


def test_full_gallery_is_small(
    tmp_path: Path, make_predictions: Callable[..., Predictions], rng: np.random.Generator
) -> None:
    """Five hundred strips of noise, which no path shortens, stay under 10 MB."""
    predictions = make_predictions(6000)
    assert len(errors_of(predictions, 5.0)) > 500
    ecg = rng.normal(0, 1, 7 * 360)
    page = write(
        tmp_path, ReportContent(evaluate(predictions), predictions, strips=lambda row: Strip(ecg, 360.0, float(row)))
    )
    assert sum("data-kind" in attributes for attributes, _ in page.all("li")) == 500
    assert (tmp_path / "report.html").stat().st_size < 10e6


def content_of_names(predictions: Predictions, names: tuple[str, ...]) -> ReportContent:
    """Put names wherever the content holds text that comes from files."""
    n = len(predictions)
    of_rows = np.array([names[i % len(names)] for i in range(n)], dtype=str)
    name = "".join(names)
    predictions = replace(
        predictions, database=of_rows, record=of_rows, lead=of_rows, patient=of_rows, fold=np.zeros(n, int)
    )
    model = replace(MODEL, name=name, folder=name, split=name, sha256=name, commit=name, selection=name)
    return ReportContent(
        evaluate(predictions, models=(model,)),
        predictions,
        baselines={name: evaluate(predictions), name + "!": evaluate(predictions.select(np.arange(n) < n // 2))},
        comparisons={name: compare_predictions(predictions, predictions)[0]},
        stress=[StressPoint(name, name, value, RATE, RATE, 0) for value in (1.0, 2.0)],
        stress_note=name,
        baselines_note=name,
        strips=sine,
        excluded=[Excluded(name, name, name, 10.0)],
        provenance={name: name, "more": {name: name}},
        notes=[name],
    )


def test_names_are_text(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """Names from files make no element, attribute or template, and hide no character."""
    predictions = make_predictions(400)
    innocent = write(tmp_path, content_of_names(predictions, tuple("abcdef")))
    page = write(tmp_path, content_of_names(predictions, HOSTILE))
    assert {name for name, *_ in page.elements} == {name for name, *_ in innocent.elements}
    attributes = [{key for _, found, _ in p.elements for key in found} for p in (page, innocent)]
    assert attributes[0] == attributes[1]
    assert len(page.all("script")) == len(page.all("style")) == 1
    for name in HOSTILE[:6]:
        assert name in page.text
        assert any(name in (value or "") for _, found, _ in page.elements for value in found.values())
    written = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert r"a\u0000b\u202egnp\u2066\ufeff\ud800" in written
    assert not [c for c in written if not c.isprintable() and c != "\n"]


def test_nothing_is_loaded(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """The policy forbids everything but the one script, whose digest is right, and nothing points outside."""
    predictions = make_predictions(300)
    page = write(tmp_path, ReportContent(evaluate(predictions), predictions, strips=sine))
    policy = next(a["content"] or "" for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    digest = base64.b64encode(hashlib.sha256(page.all("script")[0][1].encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    for _, attributes, _ in page.elements:
        for name in ("href", "src", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"url\(|@import", page.all("style")[0][1])


def test_what_is_empty_is_missing_and_said(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """Each optional field brings its section, and without it a sentence that it was not done."""
    predictions = make_predictions(300)
    validation = evaluate(predictions)
    fields: dict[str, tuple[str, Any, str]] = {
        "baselines": ("baselines", {"another": validation}, "No other algorithm"),
        "stress": ("stress", [StressPoint("noise", "6 dB", 6.0, RATE, RATE, 1)], "No stress test was done"),
        "strips": ("gallery", sine, "The ECG of the errors is not shown"),
        "excluded": (
            "excluded",
            [Excluded("db", "r", "labelled noise", 12.0)],
            "Excluded segments of the recordings are not listed",
        ),
        "provenance": (
            "provenance",
            {"Command": "ecg-shock validate"},
            "The origin of data, software",
        ),
    }
    for given in [None, *fields]:
        content = ReportContent(validation, predictions, **({given: fields[given][1]} if given else {}))
        page = write(tmp_path, content)
        sections = {attributes["id"] for attributes, _ in page.all("section")}
        links = {attributes["href"] for attributes, _ in page.all("a")}
        assert links == {f"#{section}" for section in sections}
        for name, (section, _, sentence) in fields.items():
            assert (section in sections) == (name == given)
            assert (sentence in page.text) == (name != given)


def test_excluded_seconds_are_summed(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """Reasons are rows, databases columns, the largest reason first, and sums are theirs."""
    predictions = make_predictions(50)
    excluded = [
        Excluded("a", "1", "noise", 10.0),
        Excluded("b", "1", "guard", 400.0),
        Excluded("a", "2", "noise", 20.0),
        Excluded("a", "2", "guard", 5.0),
    ]
    page = write(tmp_path, ReportContent(evaluate(predictions), predictions, excluded=excluded))
    assert page.table("Excluded seconds") == [
        ["Reason", "a", "b", "All"],
        ["guard", "5", "400", "405"],
        ["noise", "30", "0", "30"],
        ["all reasons", "35", "400", "435"],
    ]


def test_other_windows_are_no_comparison(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """The report warns about algorithms evaluated on other windows or durations."""
    predictions = make_predictions(300)
    half = predictions.select(np.arange(300) < 150)
    longer = replace(predictions, duration_s=np.full(300, 8.0))
    baselines = {"same": evaluate(predictions), "half": evaluate(half), "longer": evaluate(longer)}
    page = write(tmp_path, ReportContent(evaluate(predictions), predictions, baselines=baselines))
    assert "half was evaluated on other windows" in page.text
    assert "longer was not evaluated on windows of 5 s" in page.text
    assert "same was" not in page.text
    assert [row[0] for row in page.table("Observed, and lower limit")[1:]] == ["this algorithm", "same", "half"]


def test_weakest_points_are_the_gravest() -> None:
    """Failed classes come first, then those with too few windows, then the patient with most errors."""
    rows = [(f"p{i % 20}", "coarse_vf", i >= 60, 0.9) for i in range(220)]  # 73 %, of many patients
    rows += [(f"p{i % 20}", "normal_sinus", False, 0.1) for i in range(400)]
    rows += [("q", "other_nonshockable", True, 0.8)] * 3 + [("p1", "other_nonshockable", True, 0.8)]
    rows += [(f"p{i % 20}", "other_nonshockable", False, 0.1) for i in range(300)]
    predictions = windows(rows)
    (performance,) = evaluate(predictions).performances
    first, second, third = find_weaknesses(performance, predictions)
    assert first.startswith("Coarse VF does not meet its goal: 160 of 220 windows of 20 patients are advised a shock")
    assert "Observed 72.7 % (goal: above 90 %)" in first
    assert second.startswith("Too few windows")
    assert "Rapid VT: 0 of 50 windows" in second
    assert "Asystole: 0 of 100 windows" in second
    assert third == "3 of the 4 false shocks are from one patient, q (paced); all 4 are from 2 patients."


def test_verdict_that_hangs_on_independence_is_called_weak() -> None:
    """A class that meets its goal by windows, with all errors in a few of its patients, is named."""
    rows = [("bad", "coarse_vf", False, 0.1)] * 20
    rows += [(f"p{i % 3}", "coarse_vf", True, 0.9) for i in range(380)]
    rows += [(f"p{i % 3}", "normal_sinus", False, 0.1) for i in range(400)]
    (performance,) = evaluate(windows(rows)).performances
    assert performance.aha[0].verdict == "meets"
    found = " ".join(find_weaknesses(performance, windows(rows)))
    assert "Coarse VF meets its goal only if windows of one patient are treated as independent" in found
    assert "20 of the 20 missed shocks are from one patient, bad" in found


def test_curves_are_those_of_the_predictions(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """Area, limit and bins are what `roc` and `reliability` give for the headline windows, rounded down."""
    headline = make_predictions(400, 5.0)
    predictions = Predictions.concatenate([make_predictions(300, 3.0), headline])
    page = write(tmp_path, ReportContent(evaluate(predictions), predictions))
    found, bins = roc(headline), reliability(headline)
    area, limit = (f"{int(10000 * share) / 10000:.4f}" for share in (found.auc, found.auc_limit))
    assert f"Area under the ROC curve: {area}, lower limit {limit} (90 % one-sided)" in page.text
    full = [i for i in range(10) if bins.windows[i]]
    assert [row[1:4] for row in page.table("Reliability in 10 bins of the probability")[1:]] == [
        [str(bins.patients[i]), str(bins.windows[i]), f"{100 * bins.share[i]:.1f}"] for i in full
    ]


def drawn_points(markup: str) -> list[tuple[str, np.ndarray]]:
    """Return the style and the points of each line and band of a chart, in the units of its axes."""
    page = Page(markup)
    labels = [text.split()[0] for _, text in page.all("text") if re.fullmatch(r"[\d.]+( dB)?", text)]
    paths = []
    for attributes, _ in page.all("path"):
        points = np.reshape(re.findall(r"-?[\d.]+", attributes["d"] or ""), (-1, 2)).astype(float)
        if "clip-path" in attributes:
            paths.append((attributes["style"] or "", points))
        elif "style" not in attributes:  # a band, which is drawn from the lower edge of the chart
            paths.append(("band", points + (0, figures.HEIGHT)))
    grid = [points for style, points in paths if "var(--rule)" in style]
    ticks = [(line, float(label)) for line, label in zip(grid, labels, strict=True)]
    scales = [
        np.polyfit(*np.transpose([(line[0, i], value) for line, value in ticks if np.ptp(line[:, i]) == 0]), 1)
        for i in (0, 1)
    ]
    return [
        (style, np.stack([np.polyval(scale, points[:, i]) for i, scale in enumerate(scales)], axis=1))
        for style, points in paths
    ]


def test_roc_is_drawn_through_its_points(make_predictions: Callable[..., Predictions]) -> None:
    """The line begins at 0 and passes through every point of the curve, within a tenth of a pixel."""
    found = roc(make_predictions(300))
    lines = drawn_points(str(figures.roc_figure(found, 0.1, 0.9)))
    (curve,) = (points for style, points in lines if "stroke:var(--first)" in style and "fill:none" in style)
    assert curve[0] == pytest.approx((0, 0), abs=0.1)
    for point in zip(100 * found.false_positive_rate, 100 * found.sensitivity, strict=True):
        start, step = curve[:-1], np.diff(curve, axis=0)
        along = np.clip(((point - start) * step).sum(axis=1) / np.maximum((step**2).sum(axis=1), 1e-12), 0, 1)
        assert np.hypot(*(start + along[:, np.newaxis] * step - point).T).min() < 0.1


def test_decisions_alone_are_reported(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """Without probabilities there are no curves, which is said, and errors go by patient, record and time."""
    predictions = make_predictions(300)
    predictions = replace(predictions, probability=np.full(300, np.nan), start_s=predictions.start_s[::-1])
    validation = evaluate(predictions)
    rows = report.shown_errors(validation, predictions)
    page = write(tmp_path, ReportContent(validation, predictions, strips=sine))
    assert "curves" not in {attributes["id"] for attributes, _ in page.all("section")}
    assert "There are no ROC and reliability curves: the predictions have no probabilities" in page.text
    names = [(str(predictions.patient[row]), str(predictions.record[row]), predictions.start_s[row]) for row in rows]
    assert names == sorted(names)
    assert sorted(rows) == errors_of(predictions, 5.0)
    entries = [
        (a["data-patient"], a["data-record"], float(a["data-start"] or ""))
        for a, _ in page.all("li")
        if "data-kind" in a
    ]
    assert entries == names
    assert "nan" not in page.text.lower().replace("dominant", "")
    assert [a["value"] for a, _ in page.all("option")] == ["", "", "", "patient", "record"]


def test_differences_are_those_of_the_comparison(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """Positive differences favour this algorithm; limits and p-values are shown."""
    predictions = make_predictions(400)
    other = replace(predictions, shock=np.zeros(400, dtype=bool))
    (comparison,) = compare_predictions(other, predictions)
    content = ReportContent(
        evaluate(predictions), predictions, baselines={"never": evaluate(other)}, comparisons={"never": comparison}
    )
    page = write(tmp_path, content)
    ((name, se, se_p, sp, sp_p, accuracy),) = page.table("This algorithm minus the other")[1:]
    found = {difference.measure: difference for difference in comparison.differences}
    missed = np.isin(predictions.aha_class, SHOCKABLE)
    assert (name, se_p, sp_p) == ("never", "< 0.0001", "< 0.0001")
    assert se.startswith(f"+{100 * predictions.shock[missed].mean():.1f}(+")
    assert sp == "−{:.1f}(−{:.1f} to −{:.1f})".format(
        *(-100 * value for value in (found["Sp"].difference, found["Sp"].lower_limit, found["Sp"].upper_limit))
    )
    assert accuracy.startswith(f"+{100 * found['BAC'].difference:.1f}(")
    assert "90 % two-sided limits from 2000 resamples" in page.text
    assert "has the higher balanced accuracy" not in page.text
    right = replace(predictions, shock=missed)
    (comparison,) = compare_predictions(right, predictions)
    content = replace(content, baselines={"<b>": evaluate(right)}, comparisons={"<b>": comparison})
    verdict = next(text for a, text in write(tmp_path, content).all("section") if a["id"] == "verdict")
    mine = evaluate(predictions).performances[0].balanced_accuracy.observed
    assert mine is not None
    assert (
        "<b> has the higher balanced accuracy on the same windows: 100.0 %, this algorithm "
        f"{math.floor(1000 * mine) / 10:.1f} %. Limits by patient of the difference, this algorithm minus <b>: −"
    ) in verdict


@pytest.mark.parametrize("only", ["coarse_vf", "asystole", "fine_vf"])
def test_one_group_alone_has_no_curves(tmp_path: Path, only: str) -> None:
    """Where shockable or nonshockable windows are missing the report is written, without curves."""
    predictions = windows([(f"p{i % 5}", only, i % 4 == 0, (i % 10) / 10) for i in range(40)])
    page = write(tmp_path, ReportContent(evaluate(predictions), predictions, strips=sine))
    assert "curves" not in {attributes["id"] for attributes, _ in page.all("section")}


def decode(path: str) -> list[np.ndarray]:
    """Turn a path's steps back into points, one array for each piece."""
    pieces = []
    for piece in path.split("M")[1:]:
        numbers = [int(number) for number in re.findall(r"-?\d+", piece)]
        pieces.append(np.cumsum(np.reshape(numbers, (-1, 2)), axis=0))
    return pieces


def drawn(markup: str) -> list[np.ndarray]:
    """Return the pieces of a strip's trace."""
    return decode(next(a["d"] or "" for a, _ in Page(markup).all("path") if a.get("class") == "trace"))


@pytest.mark.parametrize("fs", [100.0, 125.0, 250.0, 360.0])
def test_strip_is_drawn_to_scale(fs: float) -> None:
    """A sine is found on the paper where 25 mm/s and 10 mm/mV put it, whatever its rate."""
    times = np.arange(round(5 * fs)) / fs
    (row,) = draw_strip(Strip(0.8 * np.sin(2 * np.pi * 2 * times) + 7.0, fs, 10.0), (10.0, 15.0))
    attributes = Page(row).all("svg")[0][0]
    assert (attributes["width"], attributes["height"], attributes["viewbox"]) == ("125mm", "20mm", "0 0 1250 200")
    (points,) = drawn(row)
    at_s, mv = points[:, 0] / 10 / 25, 1.0 - points[:, 1] / 10 / 10
    assert np.diff(points[:, 0]).min() >= 2  # no more than 125 points a second
    assert at_s[-1] == pytest.approx(5.0, abs=0.011)
    np.testing.assert_allclose(mv, 0.8 * np.sin(2 * np.pi * 2 * at_s), atol=0.03)


def test_gaps_and_infinities_are_not_drawn() -> None:
    """Where nothing was recorded the line breaks, and a strip of nothing is empty paper."""
    ecg = np.zeros(625)
    ecg[100:120], ecg[300], ecg[400:410] = np.nan, np.inf, -np.inf
    (row,) = draw_strip(Strip(ecg, 125.0, 0.0), (0.0, 5.0))
    assert [len(piece) for piece in drawn(row)] == [100, 180, 99, 215]
    (row,) = draw_strip(Strip(np.full(625, np.nan), 125.0, 0.0), (0.0, 5.0))
    assert drawn(row) == []
    (row,) = draw_strip(Strip(np.zeros(1), 250.0, 0.0), (0.0, 5.0))
    assert [len(piece) for piece in drawn(row)] == [1]


def test_long_and_large_strips_are_broken_and_cut() -> None:
    """A strip longer than 7 s has several rows; the trace ends at 3 mV, which the strip says."""
    rows = draw_strip(Strip(np.where(np.arange(4000) == 500, 9.0, 0.0), 250.0, 60.0), (61.0, 75.0))
    assert [Page(row).all("svg")[0][0]["width"] for row in rows] == ["175mm", "175mm", "50mm"]
    assert sum(len(piece) for row in rows for piece in drawn(row)) == 2000 + 2  # each break is in both rows
    assert all(piece[:, 1].min() >= 0 and piece[:, 1].max() <= 600 for row in rows for piece in drawn(row))
    assert "drawn up to ±3 mV" in rows[0]
    assert [Page(row).all("text")[0][1].split()[0] for row in rows] == ["0:01:00.0", "0:01:07.0", "0:01:14.0"]
    edges = [a["d"] for row in rows for a, _ in Page(row).all("path") if a.get("class") == "edge"]
    assert edges == ["M250 0V600", "M250 0V600"]


def test_every_patient_has_a_dot() -> None:
    """Dots stand at their proportions, each tells its patient, and the worst are named."""
    rows = [(f"p{i}", "coarse_vf", j >= i % 3, 0.9) for i in range(40) for j in range(100 if i else 25)]
    markup = figures.patients_figure(windows([*rows, ("$\\frac$", "asystole", False, 0.1)]))
    page = Page(str(markup))
    dots = page.all("use")
    tooltips = [text for _, text in page.all("title")]
    assert len(dots) == len(tooltips) == 41
    assert len({attributes["x"] for attributes, _ in dots}) == 3
    assert {"p0: right in 25 of 25 windows", "p11: right in 98 of 100 windows"} <= set(tooltips)
    assert "$\\frac$: right in 1 of 1 windows" in tooltips
    texts = [text for _, text in page.all("text")]
    assert f"shockable: {sum(i % 3 == 0 for i in range(40))} of 40 patients without an error" in texts
    assert "p11 2/100 wrong" in texts
    assert "nonshockable: no windows" in str(figures.patients_figure(windows(rows)))


def test_many_patients_are_small() -> None:
    """A thousand patients take no more than 250 bytes each."""
    rows = [(f"p{i}", "normal_sinus", j < i % 7, 0.1) for i in range(1000) for j in range(1 + i % 40)]
    assert len(figures.patients_figure(windows(rows))) < 250_000


def test_dots_cover_no_other() -> None:
    """Patients with equal proportions stand beside each other while there is room."""
    placed = np.empty((0, 3))
    for radius in np.linspace(6.5, 2.0, 9):
        placed = np.vstack([placed, (300.0, figures._free_y(300.0, radius, placed, 100.0, 60.0), radius)])
    for index, (_, y, radius) in enumerate(placed):
        assert (abs(placed[:index, 1] - y) >= placed[:index, 2] + radius - 1e-9).all()


def test_stress_is_drawn_down_to_the_limit(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """Points stand in the order of their values; the band ends at the limit by patient, and is none without one."""
    rates = [
        Proportion(100, 9, count, count / 100, (count - 5) / 100, None if count == 70 else (count - 20) / 100, 0.5)
        for count in (90, 70, 80)
    ]
    stress = [
        StressPoint("noise", f"{v:g} dB", v, rate, RATE, 4) for v, rate in zip((24.0, 0.0, 12.0), rates, strict=True)
    ]
    predictions = make_predictions(100)
    page = write(tmp_path, ReportContent(evaluate(predictions), predictions, stress=stress))
    rows = page.table("Stress tests")[1:]
    assert [row[1:5] for row in rows] == [
        ["0 dB", "70/100", "70.0", "–"],
        ["12 dB", "80/100", "80.0", "60.0"],
        ["24 dB", "90/100", "90.0", "70.0"],
    ]
    order = np.argsort([point.value for point in stress])
    ordered = [stress[i] for i in order]
    chart = figures.se_sp_figure(
        "Se and Sp under noise",
        "noise",
        [point.value for point in ordered],
        [point.level for point in ordered],
        ordered,
    )
    assert str(chart) in (tmp_path / "report.html").read_text(encoding="utf-8")
    band = next(points for style, points in drawn_points(str(chart)) if style == "band")
    assert {tuple(point) for point in np.round(band).tolist()} == {(12, 60), (12, 80), (24, 70), (24, 90)}


def test_identifiers_are_unique(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """No two elements of all charts share one, and each reference within the page finds its element."""
    predictions = Predictions.concatenate([make_predictions(200, duration_s) for duration_s in (3.0, 5.0)])
    stress = [StressPoint(name, "l", value, RATE, RATE, 0) for name in "ab" for value in (1.0, 2.0)]
    page = write(tmp_path, ReportContent(evaluate(predictions), predictions, stress=stress, strips=sine))
    found = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(found) == len(set(found)) > 30
    written = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', written)) <= set(found)


def test_equal_contents_make_equal_files(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """No time, no random number: a report can be compared byte for byte, and nothing else is left in its folder."""
    predictions = make_predictions(200)
    content = ReportContent(evaluate(predictions, models=(MODEL,)), predictions, strips=sine)
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, content)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_synthetic_is_said(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """Figures of simulated signals are marked on the first screen."""
    for databases, marked in ((("synthetic",), True), (("vfdb",), False)):
        predictions = make_predictions(100, databases=databases)
        page = write(tmp_path, ReportContent(evaluate(predictions), predictions))
        assert ("synthetic: simulated signals" in page.all("header")[0][1]) == marked
        assert "Not a claim of conformity with any standard." in page.all("header")[0][1]


def test_evidence_is_no_more_than_is_known(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """For predictions of others the report does not claim what was excluded; patients are counted in both cases."""
    predictions = make_predictions(300)
    for models in ((), (MODEL,)):
        page = write(tmp_path, ReportContent(evaluate(predictions, models=models), predictions))
        evidence = next(text for attributes, text in page.all("section") if attributes["id"] == "evidence")
        assert ("contain no chest compressions" in evidence) == bool(models)
        assert ("Ask the people who made the predictions" in evidence) == (not models)
        of_vf = set(predictions.patient[predictions.aha_class == "coarse_vf"].tolist())
        assert f"Coarse VF {len(of_vf)};" in evidence


def luminance(colour: str) -> float:
    """Compute a colour's relative luminance, as WCAG 2 defines it."""
    digits = colour * 2 if len(colour) == 3 else colour
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_can_be_read(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """The contrast of text is at least 4.5 to 1 (WCAG AA), and of lines 3 to 1, in light and dark mode."""
    predictions = make_predictions(100)
    style = write(tmp_path, ReportContent(evaluate(predictions), predictions)).all("style")[0][1]
    schemes = [
        dict(re.findall(r"--(\w+): #([0-9a-f]+)", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    schemes = [scheme for scheme in schemes if scheme]
    assert len(schemes) == 2
    for scheme in schemes:
        for ground in ("page", "panel"):
            for ink, least in [
                *((name, 4.5) for name in ("ink", "soft", "good", "bad", "few", "link")),
                ("first", 3.0),
                ("second", 3.0),
            ]:
                light, dark = sorted((luminance(scheme[ink]), luminance(scheme[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= least, (ink, ground)


def test_effective_windows_are_shown(tmp_path: Path, make_predictions: Callable[..., Predictions]) -> None:
    """A warning counts overlapping windows; effective windows and other limits of labels have tables."""
    predictions = make_predictions(200)
    vt, vf = predictions.rhythm == "vt", predictions.rhythm == "vf"
    rate = np.where(vt, np.where(predictions.aha_class == "rapid_vt", 190.0, 120.0), np.nan)
    amplitude = np.where(vf, np.where(predictions.aha_class == "coarse_vf", 0.5, 0.12), np.nan)
    crowded = replace(predictions, start_s=np.arange(200.0), rate_bpm=rate, amplitude_mv=amplitude)
    validation = evaluate(crowded)
    page = write(tmp_path, ReportContent(validation, crowded))
    (performance,) = validation.performances
    assert performance.overlapping > 0
    assert f"{performance.overlapping} of 200 windows of 5 s begin before the previous window ends" in page.text
    effective = page.table("Effective numbers of windows, windows of 5 s")[1:]
    assert [row[-1] for row in effective] == [tables.rounded_down(row.rate.cluster_limit) for row in performance.aha]
    others = page.table("Rapid VT and coarse VF with other limits between the classes, windows of 5 s")[1:]
    assert len(others) == len(performance.by_label) == 10
