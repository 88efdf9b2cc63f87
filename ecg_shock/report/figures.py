"""Draw the charts of the HTML report with matplotlib, as inline SVG.

Colours and fonts are those of the page, also in dark mode. Names from users' files are escaped, and not parsed as
mathematics.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup

from ecg_shock.evaluation.metrics import AhaRow, Performance
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.roc import Reliability, Roc
from ecg_shock.evaluation.stress import StressPoint
from ecg_shock.report.formats import printable
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 440, 300  # of a chart, in pixels at its natural size
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 14, 44  # margins for ticks and labels
MAX_TICK_CHARACTERS = 10
MAX_LEFT_END = 0.9  # of an axis of proportions: a shorter axis would exaggerate small differences
ZOOM = 0.2  # size of the corner of the ROC curve where an AED works

ROW_HEIGHT = 150  # of a row of patients
MIN_DOT, MAX_DOT = 4.0, 13.0  # diameter of a patient's dot
MAX_LABELS = 5  # named patients in a row
MAX_LABEL_CHARACTERS = 24
LABEL_PX = 6.6  # width of one character

INK, SOFT, RULE, PAGE, FIRST, SECOND = "#191c20", "#51585f", "#d4d8dc", "#ffffff", "#0a559f", "#9a4a00"
VARIABLES = {  # of report.css
    **{INK: "var(--ink)", SOFT: "var(--soft)", RULE: "var(--rule)"},
    **{PAGE: "var(--page)", FIRST: "var(--first)", SECOND: "var(--second)"},
}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 12,
    "axes.labelsize": 12,
    "axes.labelcolor": SOFT,
    "axes.labelpad": 6,
    "axes.grid": True,
    "axes.axisbelow": True,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    **{
        f"{axis}tick.{name}": value
        for axis in "xy"
        for name, value in (("labelcolor", SOFT), ("major.size", 0), ("major.pad", 6))
    },
    "grid.color": RULE,
    "grid.linewidth": 1,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "butt",
    "lines.markersize": 8,
    "lines.markeredgecolor": PAGE,
    "legend.frameon": False,
}
Draw = Callable[["Axes"], Mapping[str, str] | None]


def roc_figure(found: Roc, false_positive_rate: float, sensitivity: float, *, zoomed: bool = False) -> Markup:
    """Draw the ROC curve with its band, and the algorithm's advice as a point.

    `false_positive_rate` and `sensitivity` give the point. If `zoomed` is true, only the corner with a false-positive
    rate of at most 20 % and a sensitivity of at least 80 % is drawn.
    """

    def draw(axes: Axes) -> None:
        if not zoomed:
            axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls=":")
        axes.fill_between(
            found.band_false_positive_rate, found.band_lower, found.band_upper, color=FIRST, alpha=0.18, lw=0
        )
        curve = [0, *found.false_positive_rate], [0, *found.sensitivity]
        axes.plot(*curve, color=FIRST, label="all thresholds")
        axes.plot(false_positive_rate, sensitivity, "s", color=SECOND, clip_on=zoomed, label="as advised")
        _proportions(axes, "x", "nonshockable windows advised a shock (1 - Sp)", 0.0, ZOOM if zoomed else 1.0)
        _proportions(axes, "y", "shockable windows advised a shock (Se)", 1 - ZOOM if zoomed else 0.0)
        axes.legend(loc="lower right")

    return to_svg(f"ROC curve up to {100 * ZOOM:g} %" if zoomed else "ROC curve", draw)


def reliability_figure(bins: Reliability) -> Markup:
    """Draw the observed proportion of shockable windows against the predicted probability."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls=":")
        axes.fill_between(bins.probability, bins.lower, bins.upper, color=FIRST, alpha=0.18, lw=0)
        axes.plot(bins.probability, bins.share, "o-", color=FIRST, clip_on=False)
        _proportions(axes, "x", "probability of shockable")
        _proportions(axes, "y", "windows that are shockable")

    return to_svg("Reliability", draw)


def se_sp_figure(
    title: str,
    label: str,
    values: Sequence[float],
    names: Sequence[str],
    found: Sequence[Performance | StressPoint],
) -> Markup:
    """Draw sensitivity and specificity against a variable.

    For each line, a band shows the distance from the observed proportion down to its limit by patient.

    Parameters
    ----------
    title : str
        Title for screen readers; must be unique on the page.
    label : str
        Label of the x-axis.
    values, names : sequence of float, sequence of str
        Values of the variable, finite and increasing, at least one; and the labels of their ticks.
    found : sequence of Performance or StressPoint
        The results at these values.
    """

    def draw(axes: Axes) -> None:
        lowest = MAX_LEFT_END
        se, sp = [at.sensitivity for at in found], [at.specificity for at in found]
        for measure, rates, colour, line in (("Se", se, FIRST, "o-"), ("Sp", sp, SECOND, "s--")):
            observed = np.array([rate.observed for rate in rates], dtype=float)
            limits = np.array([rate.patient_limit for rate in rates], dtype=float)
            axes.fill_between(values, limits, observed, color=colour, alpha=0.18, lw=0)
            axes.plot(values, observed, line, color=colour, clip_on=False, label=measure)
            lowest = min([lowest, *(value for value in (*observed, *limits) if math.isfinite(value))])
        _proportions(axes, "y", "windows with the right advice", math.floor(lowest * 10 + 1e-9) / 10)
        low, high = (values[0], values[-1]) if values[0] < values[-1] else (values[0] - 1, values[0] + 1)
        ticks: dict[float, str] = {}
        free_px = -math.inf  # end of the previous label and a space
        for value, name in zip(values, names, strict=True):
            text = _shortened(name, MAX_TICK_CHARACTERS)
            centre_px = (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)
            if centre_px - LABEL_PX * len(text) / 2 >= free_px:
                ticks[value] = text
                free_px = centre_px + LABEL_PX * (len(text) / 2 + 1)
        axes.set(xlim=(low, high), xlabel=printable(label))
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.legend(loc="lower left")

    return to_svg(title, draw)


def patients_figure(predictions: Predictions) -> Markup:
    """Draw a dot for each patient, placed by the proportion of right advice; its area shows the number of windows.

    A tooltip names the patient of each dot. The patients with the most errors are labelled.
    """
    rows = []
    for name, classes, right in (
        ("shockable", SHOCKABLE, predictions.shock),
        ("nonshockable", NONSHOCKABLE, ~predictions.shock),
    ):
        member = np.isin(predictions.aha_class, classes)
        patients, patient = np.unique(predictions.patient[member], return_inverse=True)
        windows = np.bincount(patient, minlength=len(patients))
        wrong = np.bincount(patient, ~right[member], minlength=len(patients)).astype(int)
        rows.append((name, patients.tolist(), windows, wrong))
    most = max((int(windows.max()) for _, patients, windows, _ in rows if patients), default=1)
    height = TOP + ROW_HEIGHT * len(rows) + BOTTOM

    def draw(axes: Axes) -> dict[str, str]:
        # The coordinates are pixels, so that dots and labels can avoid each other.
        (left, right), tooltips = (0, WIDTH - LEFT - RIGHT), {}
        axes.set(xlim=(left, right), ylim=(height - BOTTOM, TOP), yticks=[])
        axes.set_xticks(np.linspace(left, right, 6), [f"{tick:g}" for tick in range(0, 101, 20)])
        axes.set_xlabel("windows with the right advice, %")
        for row, ((name, patients, windows, wrong), colour) in enumerate(zip(rows, (FIRST, SECOND), strict=True)):
            top = TOP + ROW_HEIGHT * row
            fine = f"{int((wrong == 0).sum())} of {len(patients)} patients without an error"
            axes.text(left, top + 10, f"{name}: {fine if patients else 'no windows'}")
            placed = np.empty((0, 3))
            for i in np.argsort(-windows, kind="stable"):
                diameter = max(MIN_DOT, round(2 * MAX_DOT * math.sqrt(windows[i] / most)) / 2)
                x = right * (1 - wrong[i] / windows[i])
                y = _free_y(x, diameter / 2, placed, top + ROW_HEIGHT / 2 + 8, ROW_HEIGHT / 2 - 20)
                placed = np.vstack([placed, (x, y, diameter / 2)])
                tooltips[f"{name}-{i}"] = f"{patients[i]}: right in {windows[i] - wrong[i]} of {windows[i]} windows"
                (dot,) = axes.plot(x, y, "o", color=colour, alpha=0.85, markersize=diameter, clip_on=False)
                dot.set_gid(f"{name}-{i}")
            at = dict(zip(np.argsort(-windows, kind="stable").tolist(), placed.tolist(), strict=True))
            worst = sorted((i for i in at if wrong[i]), key=lambda i: (-wrong[i], i))[:MAX_LABELS]
            names = [f"{_shortened(patients[i], MAX_LABEL_CHARACTERS)} {wrong[i]}/{windows[i]} wrong" for i in worst]
            _label_dots(axes, names, [at[i] for i in worst], placed)
        return tooltips

    margins = (LEFT / 2, LEFT / 2 + RIGHT, TOP, BOTTOM)
    return to_svg("Patients by their proportion of right advice", draw, height=height, margins=margins)


def goal_figure(title: str, row: AhaRow, low: float) -> Markup:
    """Draw the observed proportion of one class, its limits by window and by patient, and the two goals.

    The axis extends from the proportion `low` to 100 %. The title must be unique on the page.
    """
    width, height, margin = 150, 34, 6

    def at_x(share: float) -> float:
        return margin + (max(share, low) - low) / (1 - low) * (width - 2 * margin)

    def draw(axes: Axes) -> None:
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        axes.plot([margin, width - margin], [17, 17], color=RULE, lw=1, clip_on=False)
        rate, goal = row.rate, row.goal
        if goal.observed is not None and goal.limit is not None:
            axes.plot([at_x(goal.observed)] * 2, [3, 13], color=INK, lw=1.5, clip_on=False)
            axes.plot([at_x(goal.limit)] * 2, [21, 31], color=INK, lw=1.5, ls=(0, (2, 1.3)), clip_on=False)
        if rate.observed is None or rate.lower_limit is None:
            return
        limits = [limit for limit in (rate.lower_limit, rate.patient_limit) if limit is not None]
        axes.plot([at_x(min(limits)), at_x(rate.observed)], [17, 17], color=FIRST, clip_on=False)
        axes.plot([at_x(rate.lower_limit)] * 2, [12, 22], color=FIRST, clip_on=False)
        if rate.patient_limit is not None:
            x = at_x(rate.patient_limit)
            axes.plot([x - 4, x, x - 4], [12, 17, 22], color=FIRST, lw=1.25, clip_on=False)
        axes.plot(at_x(rate.observed), 17, "o", color=FIRST, clip_on=False)

    return to_svg(title, draw, width=width, height=height, margins=(0, 0, 0, 0))


def _proportions(axes: Axes, side: str, label: str, low: float = 0.0, high: float = 1.0) -> None:
    """Set up an axis of proportions, with ticks in per cent."""
    ticks = np.linspace(low, high, 6)
    axes.set(**{f"{side}lim": (low, high), f"{side}label": f"{label}, %"})
    axes.set(**{f"{side}ticks": ticks, f"{side}ticklabels": [f"{100 * tick:.3g}" for tick in ticks]})


def _free_y(x: float, radius: float, placed: np.ndarray, middle: float, reach: float) -> float:
    """Return the height nearest to the middle at which a dot overlaps no other dot, or overlaps least."""
    near = placed[abs(placed[:, 0] - x) < radius + placed[:, 2]]
    heights = middle + np.array([offset for step in range(int(reach) + 1) for offset in (step, -step)])
    gaps = np.hypot(near[:, 0] - x, near[:, 1] - heights[:, np.newaxis]) - radius - near[:, 2]
    return float(heights[np.argmax(np.minimum(gaps.min(axis=1, initial=0.0), 0.0))])


def _label_dots(axes: Axes, names: Sequence[str], dots: Sequence[Sequence[float]], placed: np.ndarray) -> None:
    """Write names near their dots where there is room; omit names without room."""
    taken = [(x - r, y - r, x + r, y + r) for x, y, r in placed]
    for name, (x, y, _) in zip(names, dots, strict=True):
        width, gap = LABEL_PX * len(name), MAX_DOT / 2 + 3
        on_left = x - width - 2 * gap > 0
        edge = x - gap if on_left else x + gap
        left = edge - width if on_left else edge
        for offset in sorted(range(-ROW_HEIGHT // 2, ROW_HEIGHT // 2), key=abs):
            box = (left, y + offset - 6, left + width, y + offset + 6)
            if not any(
                box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
            ):
                taken.append(box)
                axes.plot([x, edge], [y, y + offset], color=SOFT, lw=0.75, clip_on=False)
                axes.text(edge, y + offset + 4, name, color=SOFT, ha="right" if on_left else "left")
                break


def _shortened(text: str, most: int) -> str:
    text = printable(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def to_svg(
    title: str,
    draw: Draw,
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
    margins: tuple[float, float, float, float] = (LEFT, RIGHT, TOP, BOTTOM),
) -> Markup:
    """Return an SVG element in the style of the page; `draw` may return tooltips by ``gid`` of the drawn elements."""
    from matplotlib import style
    from matplotlib.figure import Figure

    left, right, top, bottom = margins
    written = io.BytesIO()
    # Unique titles give unique identifiers, and equal charts are written equally.
    with style.context(["default", {**STYLE, "svg.hashsalt": printable(title)}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has other fonts
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height))
        for patch in (figure.patch, axes.patch):
            patch.set_visible(False)
        tooltips = draw(axes) or {}
        figure.savefig(written, format="svg")
    root = ElementTree.fromstring(written.getvalue())
    _fit_to_page(root, tooltips)
    root.attrib = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "width": f"{width:g}",
        "class": "chart",
        "role": "img",
        "aria-label": printable(title),
    }
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # escaped by ElementTree


def _fit_to_page(root: ElementTree.Element, tooltips: Mapping[str, str]) -> None:
    """Remove metadata and styles from an SVG, so that the page's style sheet sets colours and fonts."""
    parents = [(parent, child) for parent in root.iter() for child in parent]
    for parent, child in parents:
        # matplotlib's style sheet would apply to the page.
        if child.tag.endswith(("metadata", "style")):
            parent.remove(child)
    used = set(re.findall(r"[\"(]#(\w+)", ElementTree.tostring(root, encoding="unicode")))
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        identifier = attributes.pop("id", "")
        if identifier in used:
            attributes["id"] = identifier
        for name in attributes.keys() & {"d", "x", "y", "transform"}:
            rounded = re.sub(r"-?\d+\.\d+", lambda found: f"{round(float(found[0]), 1):g}", attributes[name])
            attributes[name] = " ".join(rounded.split())
        if attributes.get("transform", "").startswith("rotate(-0 "):
            del attributes["transform"]
        if "style" in attributes:
            attributes["style"] = _page_style(attributes["style"])
        element.attrib = attributes
        element.tail = None
        if element.tag != "text":
            element.text = None
        if identifier in tooltips:
            title = ElementTree.Element("title")
            title.text = printable(tooltips[identifier])
            element.insert(0, title)


def _page_style(style: str) -> str:
    rules = [rule.strip() for rule in style.split(";") if rule.strip() and not rule.strip().startswith("font-family")]
    coloured = (re.sub(r"#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), rule) for rule in rules)
    return ";".join(coloured).replace(": ", ":")
