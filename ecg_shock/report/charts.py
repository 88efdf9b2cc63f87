"""Charts of the report as SVG: drawn by hand, so that they are small, sharp in print, and follow the page's colours.

Every text and attribute goes through `tag`, which escapes it and shows characters that could not be seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from ecg_shock.evaluation.metrics import AhaRow
from ecg_shock.report.tables import printable

WIDTH, HEIGHT = 440, 300  # of a chart, in units of its view box
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 14, 44  # margins for ticks and labels
TICK_GAP = 38  # between the middles of two labels below an axis
LABEL_CHARACTERS = 24  # of a patient's name in a chart
LABEL_UNITS = 6.6  # room for one of them

PAPER_MM_PER_S = 25.0  # the usual speed and gain of ECG paper
PAPER_MM_PER_MV = 10.0
UNITS_PER_MM = 10  # so that 0.01 mV is one unit, and 1/125 s two
SMALL_MM, LARGE_MM = 1, 5
ROW_S = 7.0  # 175 mm, which fits between the margins of A4
STRIP_FS = 125.0  # the network's own rate; a trace needs no more
LEAST_MV, MOST_MV = 1.0, 3.0  # half the height of a strip
GRID = "paper"  # its name in the page
TRACE_MM = 12  # height of the probability below a strip

ROW_HEIGHT = 150  # of a chart's row of patients
SMALLEST_DOT, LARGEST_DOT = 2.0, 6.5
MOST_LABELS = 5


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Parameters
    ----------
    label : str
        For the legend.
    x, y : sequence of float or numpy.ndarray
        Of equal length.
    low, high : sequence of float or numpy.ndarray, optional
        Edges of a band, NaN where there is none.
    style : {"first", "second", "reference"}
        Colour, dashes and the shape of its points, which tell lines apart without colour.
    points : bool
        Mark the points.
    """

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray | None = None
    high: Sequence[float] | np.ndarray | None = None
    style: str = "first"
    points: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Parameters
    ----------
    label : str
        What is drawn, with its unit.
    low, high : float
        Its ends; what lies beyond is cut.
    ticks : tuple of tuple of (float, str)
        Where a label stands, and its text.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class PatientDot:
    """One patient's windows of one group.

    Parameters
    ----------
    patient : str
        Whose they are.
    windows, count : int
        How many, and how many of them with the right advice.
    """

    patient: str
    windows: int
    count: int


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Build an element whose text and attributes are escaped.

    Parameters
    ----------
    name : str
        Of the element.
    *children : str
        Text, or elements built by this function, which are taken as they are.
    **attributes : object
        An underscore stands for a hyphen, and one at the end for none.

    Examples
    --------
    >>> print(tag("text", "<b>", class_="tick"))
    <text class="tick">&lt;b&gt;</text>
    """
    written = (
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), printable(str(value)))
        for key, value in attributes.items()
    )
    inner = (child if isinstance(child, Markup) else escape(printable(child)) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(written), Markup("").join(inner))


def share_axis(label: str, low: float = 0.0, high: float = 1.0) -> Axis:
    """Make an axis of shares, with ticks in per cent.

    Parameters
    ----------
    label : str
        What is drawn; ``%`` is added.
    low, high : float
        Its ends, 0 to 1.
    """
    ticks = np.linspace(low, high, 6)
    return Axis(f"{label}, %", low, high, tuple((float(t), f"{100 * t:.3g}") for t in ticks))


def value_axis(label: str, values: Sequence[float], names: Sequence[str]) -> Axis:
    """Make an axis with a label at every value, as far as there is room.

    Parameters
    ----------
    label : str
        What is drawn.
    values : sequence of float
        Finite, at least one.
    names : sequence of str
        One for each value.
    """
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1.0, high + 1.0
    named = sorted(dict(zip(values, names, strict=True)).items())
    ticks: list[tuple[float, str]] = []
    for value, name in named:
        room = (value - ticks[-1][0]) / (high - low) * (WIDTH - LEFT - RIGHT) if ticks else math.inf
        if room >= TICK_GAP:
            ticks.append((value, _short(name, 10)))
    return Axis(label, low, high, tuple(ticks))


def line_chart(title: str, x: Axis, y: Axis, series: Iterable[Series]) -> Markup:
    """Draw lines with bands.

    Parameters
    ----------
    title : str
        Read out in place of the picture.
    x, y : Axis
        The axes.
    series : iterable of Series
        The lines. There is a legend of two and more; those of style ``"reference"`` stay out of it.
    """

    def at_x(value: float) -> float:
        return LEFT + (value - x.low) / (x.high - x.low) * (WIDTH - LEFT - RIGHT)

    def at_y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y.low) / (y.high - y.low) * (HEIGHT - TOP - BOTTOM)

    def place(xs: Iterable[float], ys: Iterable[float]) -> list[tuple[float, float]]:
        pairs = ((float(a), float(b)) for a, b in zip(xs, ys, strict=True))
        return [(at_x(a), at_y(min(max(b, y.low), y.high))) for a, b in pairs if math.isfinite(b) and _within(a, x)]

    parts = [_frame(x, y, at_x, at_y)]
    legend = []
    for line in series:
        if line.low is not None and line.high is not None:
            for run in _runs(np.isfinite(line.low) & np.isfinite(line.high)):
                edge = place(line.x[run], line.high[run]) + place(line.x[run], line.low[run])[::-1]
                parts.append(tag("polygon", points=_points(edge), class_=f"band {line.style}"))
        points = place(line.x, line.y)
        parts.append(tag("polyline", points=_points(points), class_=f"line {line.style}"))
        if line.points:
            parts += [_mark(px, py, line.style) for px, py in points]
        if line.style != "reference":
            legend.append(line)
    for index, line in enumerate(legend if len(legend) > 1 else []):
        where = LEFT + 10, HEIGHT - BOTTOM - 12 - 18 * (len(legend) - 1 - index)
        parts.append(tag("line", x1=where[0], x2=where[0] + 24, y1=where[1], y2=where[1], class_=f"line {line.style}"))
        if line.points:
            parts.append(_mark(where[0] + 12, where[1], line.style))
        parts.append(tag("text", line.label, x=where[0] + 30, y=where[1] + 4, class_="legend"))
    return _svg(title, WIDTH, HEIGHT, parts)


def patient_chart(title: str, rows: Sequence[tuple[str, Sequence[PatientDot]]]) -> Markup:
    """Draw one dot a patient: where it stands is the share with the right advice, its size the number of windows.

    Parameters
    ----------
    title : str
        Read out in place of the picture.
    rows : sequence of (str, sequence of PatientDot)
        Groups and their patients; the worst are named.
    """
    height = TOP + ROW_HEIGHT * len(rows) + BOTTOM
    most = max((dot.windows for _, dots in rows for dot in dots), default=1)

    def at_x(share: float) -> float:
        return LEFT / 2 + share * (WIDTH - LEFT / 2 - 2 * RIGHT)

    parts = []
    for share in np.linspace(0, 1, 6):
        where = round(at_x(share), 1)
        parts.append(tag("line", x1=where, x2=where, y1=TOP, y2=height - BOTTOM, class_="grid"))
        parts.append(tag("text", f"{100 * share:.0f}", x=where, y=height - BOTTOM + 16, class_="tick middle"))
    parts.append(tag("text", "windows with the right advice, %", x=WIDTH / 2, y=height - 8, class_="axis middle"))
    for index, (name, dots) in enumerate(rows):
        style = "first" if index == 0 else "second"
        top = TOP + ROW_HEIGHT * index
        middle = top + ROW_HEIGHT / 2 + 8
        faultless = sum(dot.count == dot.windows for dot in dots)
        heading = f"{name}: {faultless} of {len(dots)} patients without an error" if dots else f"{name}: no windows"
        parts.append(tag("text", heading, x=LEFT / 2, y=top + 10, class_="legend"))
        placed: list[tuple[float, float, float]] = []
        worst = sorted((dot for dot in dots if dot.count < dot.windows), key=lambda d: (d.count - d.windows, d.patient))
        labels: list[tuple[float, float, PatientDot]] = []
        for dot in sorted(dots, key=lambda d: (-d.windows, d.patient)):
            radius = max(SMALLEST_DOT, LARGEST_DOT * math.sqrt(dot.windows / most))
            x = at_x(dot.count / dot.windows)
            y = middle + _free_offset(x, radius, placed, ROW_HEIGHT / 2 - 20)
            placed.append((x, y - middle, radius))
            told = tag("title", f"{dot.patient}: right in {dot.count} of {dot.windows} windows")
            parts.append(tag("circle", told, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:.1f}", class_=f"dot {style}"))
            if dot in worst[:MOST_LABELS]:
                labels.append((x, y, dot))
        parts += _patient_labels(labels, [(x, middle + offset, radius) for x, offset, radius in placed])
    return _svg(title, WIDTH, height, parts)


def goal_chart(row: AhaRow, low: float) -> Markup:
    """Draw one class against its goal: the observed share, its two limits, and what each has to reach.

    Parameters
    ----------
    row : AhaRow
        With windows.
    low : float
        Left end of the axis, a share; the right end is 100 %.
    """
    width, height, margin = 150, 34, 6

    def at_x(share: float) -> float:
        return round(margin + (max(share, low) - low) / (1 - low) * (width - 2 * margin), 1)

    parts = [tag("line", x1=margin, x2=width - margin, y1=17, y2=17, class_="grid")]
    rate, goal = row.rate, row.goal
    if goal.observed is not None and goal.limit is not None:
        parts.append(tag("path", d=f"M{at_x(goal.observed)} 3v10", class_="goal"))
        parts.append(tag("path", d=f"M{at_x(goal.limit)} 21v10", class_="goal dashed"))
    if rate.observed is None or rate.lower_limit is None:
        return _svg("no windows", width, height, parts)
    limits = [limit for limit in (rate.lower_limit, rate.patient_limit) if limit is not None]
    parts.append(tag("path", d=f"M{at_x(min(limits))} 17H{at_x(rate.observed)}", class_="line first"))
    parts.append(tag("path", d=f"M{at_x(rate.lower_limit)} 12v10", class_="line first"))
    if rate.patient_limit is not None:
        x = at_x(rate.patient_limit)
        parts.append(tag("path", d=f"M{x - 4} 12l4 5l-4 5", class_="line first thin"))
    parts.append(tag("circle", cx=at_x(rate.observed), cy=17, r=4, class_="dot first"))
    return _svg(f"observed and limits from {100 * low:.0f} to 100 %", width, height, parts)


def paper(
    ecg: np.ndarray,
    fs: float,
    start_s: float,
    window: tuple[float, float],
    probability: tuple[np.ndarray, np.ndarray] | None = None,
    threshold: float | None = None,
) -> tuple[Markup, ...]:
    """Draw ECG on paper, 25 mm/s and 10 mm/mV, in rows of at most 7 s.

    Parameters
    ----------
    ecg : numpy.ndarray
        Shape (n_samples,), mV, NaN where nothing was recorded; it is centred on its median, and cut 3 mV from there.
    fs : float
        Sampling rate in Hz; what is faster than 125 Hz is thinned out to it.
    start_s : float
        Time of the first sample, in seconds of the recording.
    window : tuple of float
        Start and end of what was judged, in seconds of the recording.
    probability : tuple of numpy.ndarray, optional
        Times in seconds of the recording, and probabilities of *shockable* at them.
    threshold : float, optional
        Drawn with the probability.

    Returns
    -------
    tuple of Markup
        One SVG a row, its size in mm.
    """
    at_s, mv = _thinned(np.where(np.isfinite(ecg), ecg, np.nan), fs)
    finite = mv[np.isfinite(mv)]
    mv = mv - (np.median(finite) if finite.size else 0.0)
    reach = float(np.max(np.abs(mv[np.isfinite(mv)]), initial=0.0))
    step = LARGE_MM / PAPER_MM_PER_MV
    half_mv = min(max(math.ceil(reach / step) * step, LEAST_MV), MOST_MV)
    y = np.round((half_mv - np.clip(mv, -half_mv, half_mv)) * PAPER_MM_PER_MV * UNITS_PER_MM)
    length_s = len(ecg) / fs
    rows = []
    for row in range(max(1, math.ceil(length_s / ROW_S - 1e-9))):
        first_s = row * ROW_S
        picked = (at_s >= first_s) & (at_s <= first_s + ROW_S)
        x = np.round((at_s[picked] - first_s) * PAPER_MM_PER_S * UNITS_PER_MM)
        rows.append(
            _paper_row(
                _path(x, y[picked]),
                half_mv,
                min(ROW_S, length_s - first_s),
                start_s + first_s,
                window,
                probability,
                threshold,
                reach > half_mv,
            )
        )
    return tuple(rows)


def paper_grid() -> Markup:
    """Draw the squares of ECG paper, 1 and 5 mm, once for all strips of a page, which cut out what they need."""
    width = round(ROW_S * PAPER_MM_PER_S) * UNITS_PER_MM
    height = round(2 * MOST_MV * PAPER_MM_PER_MV) * UNITS_PER_MM

    def lines(step_mm: int) -> str:
        step = step_mm * UNITS_PER_MM
        upright = "".join(f"M{x} 0v{height}" for x in range(0, width + 1, step))
        return upright + "".join(f"M0 {y}h{width}" for y in range(0, height + 1, step))

    sheet = tag("rect", width=width, height=height, class_="sheet")
    squares = (tag("path", d=lines(mm), class_=name) for mm, name in ((SMALL_MM, "fine"), (LARGE_MM, "coarse")))
    return tag("g", sheet, *squares, id=GRID)


def clock(seconds: float) -> str:
    """Write a time as hours, minutes and seconds.

    Parameters
    ----------
    seconds : float
        From the start of the recording.

    Examples
    --------
    >>> clock(3725.04)
    '1:02:05.0'
    """
    tenths = round(10 * seconds)
    return f"{tenths // 36000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def _paper_row(
    path: str,
    half_mv: float,
    length_s: float,
    start_s: float,
    window: tuple[float, float],
    probability: tuple[np.ndarray, np.ndarray] | None,
    threshold: float | None,
    cut: bool,
) -> Markup:
    width = math.ceil(length_s * PAPER_MM_PER_S) * UNITS_PER_MM
    paper_height = round(2 * half_mv * PAPER_MM_PER_MV) * UNITS_PER_MM
    height = paper_height + (TRACE_MM * UNITS_PER_MM if probability is not None else 0)

    def at_x(time_s: float) -> int:
        return round((time_s - start_s) * PAPER_MM_PER_S * UNITS_PER_MM)

    parts = [tag("use", href=f"#{GRID}")]
    if probability is not None:
        parts.append(tag("rect", y=paper_height, width=width, height=height - paper_height, class_="below"))
    parts += [tag("path", d=f"M{at_x(edge)} 0V{height}", class_="edge") for edge in window if 0 <= at_x(edge) <= width]
    parts.append(tag("path", d=path, class_="trace"))
    note = f"{clock(start_s)}" + (f"  cut at {half_mv:g} mV" if cut else "")
    parts.append(tag("text", note, x=8, y=paper_height - 8, class_="time"))
    if probability is not None:
        times, values = probability
        shown = (times >= start_s) & (times <= start_s + length_s) & np.isfinite(values)
        floor, tall = height - 10, (TRACE_MM - 2) * UNITS_PER_MM
        points = [(at_x(t), floor - round(tall * float(p))) for t, p in zip(times[shown], values[shown], strict=True)]
        parts.append(tag("path", d=f"M0 {floor}H{width}", class_="grid"))
        if threshold is not None:
            parts.append(tag("path", d=f"M0 {floor - round(tall * threshold)}H{width}", class_="edge"))
        parts.append(tag("polyline", points=_points(points), class_="probability"))
        parts.append(tag("text", "p", x=8, y=paper_height + 32, class_="time"))
    told = f"ECG from {clock(start_s)}, {length_s:.1f} s"
    return tag(
        "svg",
        *parts,
        width=f"{width / UNITS_PER_MM:g}mm",
        height=f"{height / UNITS_PER_MM:g}mm",
        viewBox=f"0 0 {width} {height}",
        class_="paper",
        role="img",
        aria_label=told,
    )


def _thinned(ecg: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Return times and values at no more than `STRIP_FS`; a mean over the new step keeps what is faster out."""
    times = np.arange(len(ecg)) / fs
    if fs <= STRIP_FS or len(ecg) < 2:
        return times, ecg
    at = np.arange(int(times[-1] * STRIP_FS) + 1) / STRIP_FS
    width = max(1, round(fs / STRIP_FS))
    before = (width - 1) // 2
    padded = np.pad(ecg, (before, width - 1 - before), mode="edge")
    smooth = np.convolve(padded, np.full(width, 1 / width), mode="valid")
    return at, np.interp(at, times + (width - 1 - 2 * before) / (2 * fs), smooth)


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Write points as whole steps from one to the next; a gap begins anew."""
    pieces = []
    for run in _runs(np.isfinite(y)):
        xs, ys = x[run].astype(int), y[run].astype(int)
        steps = zip(np.diff(xs).tolist(), np.diff(ys).tolist(), strict=True)
        pieces.append(f"M{xs[0]} {ys[0]}l" + " ".join(f"{dx}{'' if dy < 0 else ' '}{dy}" for dx, dy in steps))
    return "".join(piece.removesuffix("l") for piece in pieces)


def _runs(known: np.ndarray) -> list[slice]:
    """Return the stretches where something is known."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    return [slice(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _svg(title: str, width: float, height: float, parts: Iterable[Markup]) -> Markup:
    view = f"0 0 {width:g} {height:g}"
    return tag("svg", *parts, viewBox=view, width=f"{width:g}", class_="chart", role="img", aria_label=title)


def _frame(x: Axis, y: Axis, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> Markup:
    parts = []
    for value, name in x.ticks:
        where = round(at_x(value), 1)
        parts.append(tag("line", x1=where, x2=where, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"))
        parts.append(tag("text", name, x=where, y=HEIGHT - BOTTOM + 16, class_="tick middle"))
    for value, name in y.ticks:
        where = round(at_y(value), 1)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=where, y2=where, class_="grid"))
        parts.append(tag("text", name, x=LEFT - 6, y=where + 4, class_="tick end"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(tag("text", x.label, x=middle, y=HEIGHT - 8, class_="axis middle"))
    turned = f"translate(14 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)"
    parts.append(tag("text", y.label, transform=turned, class_="axis middle"))
    return Markup("").join(parts)


def _mark(x: float, y: float, style: str) -> Markup:
    if style == "second":
        return tag("rect", x=f"{x - 3.5:.1f}", y=f"{y - 3.5:.1f}", width=7, height=7, class_=f"dot {style}")
    return tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, class_=f"dot {style}")


def _patient_labels(
    labels: Iterable[tuple[float, float, PatientDot]], dots: Iterable[tuple[float, float, float]]
) -> list[Markup]:
    """Name patients beside their dots, as near as there is room."""
    parts: list[Markup] = []
    taken = [(x - r, y - r, x + r, y + r) for x, y, r in dots]
    for x, y, dot in labels:
        name = f"{_short(dot.patient, LABEL_CHARACTERS)} {dot.windows - dot.count}/{dot.windows} wrong"
        width = LABEL_UNITS * len(name)
        on_left = x - width - 2 * LARGEST_DOT > LEFT / 2
        edge = x - LARGEST_DOT - 3 if on_left else x + LARGEST_DOT + 3
        left = edge - width if on_left else edge
        boxes = (
            (left, y + offset - 6, left + width, y + offset + 6)
            for step in range(ROW_HEIGHT // 2)
            for offset in (step, -step)
        )
        box = next((box for box in boxes if not any(_overlap(box, other) for other in taken)), None)
        if box is None:
            continue
        taken.append(box)
        middle = (box[1] + box[3]) / 2
        parts.append(tag("path", d=f"M{x:.1f} {y:.1f}L{edge:.1f} {middle:.1f}", class_="leader"))
        side = "tick end" if on_left else "tick"
        parts.append(tag("text", name, x=f"{edge:.1f}", y=f"{middle + 4:.1f}", class_=side))
    return parts


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _free_offset(x: float, radius: float, placed: Iterable[tuple[float, float, float]], most: float) -> float:
    """Find the offset nearest to the middle where a dot covers no other, or else where it covers least."""
    near = np.array([other for other in placed if abs(other[0] - x) < radius + other[2]]).reshape(-1, 3)
    offsets = np.array([offset for step in range(int(most) + 1) for offset in (step, -step)], dtype=float)
    distances = np.hypot(near[:, 0] - x, near[:, 1] - offsets[:, np.newaxis]) - radius - near[:, 2]
    room = np.minimum(distances.min(axis=1, initial=0.0), 0.0)
    return float(offsets[np.argmax(room)])


def _within(value: float, axis: Axis) -> bool:
    return axis.low <= value <= axis.high


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.4g},{y:.4g}" for x, y in points)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
