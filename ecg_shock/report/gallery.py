"""Draw the ECG of each window with wrong advice, for the error section of the HTML report.

The page holds hundreds of strips. To keep it small, they are written as SVG with integer coordinates, and share one
drawing of ECG paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.inference.scan_files import clock
from ecg_shock.plots import LARGE_MM, PAPER_MM_PER_MV, PAPER_MM_PER_S, SMALL_MM
from ecg_shock.report.formats import class_name, printable
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE

MISSED, FALSE = "missed shock", "false shock"

UNITS_PER_MM = 10  # one unit is 0.01 mV, or 1/250 s
ROW_S = 7.0  # 175 mm of paper, which fits on A4
STRIP_FS = 125.0  # Hz, the network's sampling rate
MIN_MV, MAX_MV = 1.0, 3.0  # range of half the height of a strip
GRID_ID = "paper"
TRACE_MM = 12  # height of the probability below a strip


@dataclass(frozen=True, eq=False)
class Strip:
    """The raw ECG around a window, and the probability over time.

    Parameters
    ----------
    ecg : numpy.ndarray
        Shape (n_samples,), float, mV, not filtered; NaN for an invalid sample.
    fs : float
        Sampling rate in Hz.
    start_s : float
        Time of the first sample, in seconds from the start of the recording.
    probability_at_s, probability : numpy.ndarray or None
        Shape (n_times,): times in seconds from the start of the recording, and the probability of *shockable* at these
        times.
    """

    ecg: np.ndarray
    fs: float
    start_s: float
    probability_at_s: np.ndarray | None = None
    probability: np.ndarray | None = None


def wrong_advice(predictions: Predictions) -> dict[str, np.ndarray]:
    """Find the windows with wrong advice.

    Returns
    -------
    dict of str to numpy.ndarray
        For each of the keys `MISSED` and `FALSE`: shape (n_windows,), bool, True for the windows with this error.
    """
    return {
        MISSED: np.isin(predictions.aha_class, SHOCKABLE) & ~predictions.shock,
        FALSE: np.isin(predictions.aha_class, NONSHOCKABLE) & predictions.shock,
    }


def worst_first(predictions: Predictions) -> list[int]:
    """Return the row numbers of the windows with wrong advice.

    The windows whose probability is farthest from the label come first. Without probabilities, they are sorted by
    patient, database, record and time.
    """
    wrong = wrong_advice(predictions)
    rows = np.flatnonzero(wrong[MISSED] | wrong[FALSE])
    keys = [predictions.start_s, predictions.record, predictions.database]
    if predictions.has_probability:
        keys.append(-np.where(wrong[MISSED], 1 - predictions.probability, predictions.probability))
    else:
        keys.append(predictions.patient)
    return rows[np.lexsort([key[rows] for key in keys])].tolist()


def gallery_entry(predictions: Predictions, row: int, strip: Strip | None, threshold: float | None) -> dict[str, Any]:
    """Return the values that the HTML template needs to show one window and its ECG."""
    start_s, duration_s = float(predictions.start_s[row]), float(predictions.duration_s[row])
    names = {name: str(getattr(predictions, name)[row]) for name in ("database", "record", "lead", "patient", "rhythm")}
    return {
        **names,
        "rhythm": names["rhythm"].replace("_", " "),
        "kind": FALSE if predictions.shock[row] else MISSED,
        "aha_class": class_name(str(predictions.aha_class[row])),
        "start_s": start_s,
        "when": clock(start_s),
        "window": f"{start_s:.2f} to {start_s + duration_s:.2f} s",
        "probability": f"{predictions.probability[row]:.4f}" if predictions.has_probability else "",
        "rows": () if strip is None else draw_strip(strip, (start_s, start_s + duration_s), threshold),
    }


def draw_strip(strip: Strip, window: tuple[float, float], threshold: float | None = None) -> tuple[Markup, ...]:
    """Draw ECG at 25 mm/s and 10 mm/mV, in rows of at most 7 s.

    The ECG is centred on its median, clipped at ±3 mV, and resampled to at most 125 Hz.

    Parameters
    ----------
    strip : Strip
        The ECG, and the probability, which is drawn below it.
    window : tuple of float
        Start and end of the evaluated window, in seconds from the start of the recording.
    threshold : float, optional
        The threshold of the probability, drawn as a line.

    Returns
    -------
    tuple of markupsafe.Markup
        One SVG element for each row of ECG.
    """
    ecg = np.asarray(strip.ecg, dtype=float)
    at_s, mv = _thinned(np.where(np.isfinite(ecg), ecg, np.nan), strip.fs)
    finite = mv[np.isfinite(mv)]
    mv = mv - (np.median(finite) if finite.size else 0.0)
    reach = float(np.max(np.abs(mv[np.isfinite(mv)]), initial=0.0))
    step = LARGE_MM / PAPER_MM_PER_MV
    half_mv = min(max(math.ceil(reach / step) * step, MIN_MV), MAX_MV)
    y = np.round((half_mv - np.clip(mv, -half_mv, half_mv)) * PAPER_MM_PER_MV * UNITS_PER_MM)
    clipped = f"  drawn up to ±{half_mv:g} mV" if reach > half_mv else ""
    paper_height = round(2 * half_mv * PAPER_MM_PER_MV) * UNITS_PER_MM
    height = paper_height + (0 if strip.probability is None else TRACE_MM * UNITS_PER_MM)
    rows = []
    for first_s in np.arange(0, max(len(ecg) / strip.fs - 1e-9, 1e-9), ROW_S).tolist():
        picked = (at_s >= first_s) & (at_s <= first_s + ROW_S)
        x = np.round((at_s[picked] - first_s) * PAPER_MM_PER_S * UNITS_PER_MM)
        start_s, length_s = strip.start_s + first_s, min(ROW_S, len(ecg) / strip.fs - first_s)
        width = math.ceil(length_s * PAPER_MM_PER_S) * UNITS_PER_MM
        edges = [round((edge - start_s) * PAPER_MM_PER_S * UNITS_PER_MM) for edge in window]
        parts = [tag("use", href=f"#{GRID_ID}")]
        if strip.probability is not None:
            parts.append(tag("rect", y=paper_height, width=width, height=height - paper_height, class_="below"))
        parts += [tag("path", d=f"M{edge} 0V{height}", class_="edge") for edge in edges if 0 <= edge <= width]
        parts.append(tag("path", d=_path(x, y[picked]), class_="trace"))
        parts.append(tag("text", f"{clock(start_s)}{clipped}", x=8, y=paper_height - 8, class_="time"))
        if strip.probability_at_s is not None and strip.probability is not None:
            times, values = strip.probability_at_s, strip.probability
            shown = (times >= start_s) & (times <= start_s + length_s) & np.isfinite(values)
            floor, tall = height - 10, (TRACE_MM - 2) * UNITS_PER_MM
            trace_x = np.round((times[shown] - start_s) * PAPER_MM_PER_S * UNITS_PER_MM).astype(int)
            trace_y = floor - np.round(tall * values[shown].astype(float)).astype(int)
            points = " ".join(f"{x},{y}" for x, y in zip(trace_x, trace_y, strict=True))
            parts.append(tag("path", d=f"M0 {floor}H{width}", class_="grid"))
            if threshold is not None:
                parts.append(tag("path", d=f"M0 {floor - round(tall * threshold)}H{width}", class_="edge"))
            parts.append(tag("polyline", points=points, class_="probability"))
            parts.append(tag("text", "p", x=8, y=paper_height + 32, class_="time"))
        rows.append(
            tag(
                "svg",
                *parts,
                width=f"{width / UNITS_PER_MM:g}mm",
                height=f"{height / UNITS_PER_MM:g}mm",
                viewBox=f"0 0 {width} {height}",
                class_="paper",
                role="img",
                aria_label=f"ECG from {clock(start_s)}, {length_s:.1f} s",
            )
        )
    return tuple(rows)


def paper_grid(row_s: float = ROW_S, half_mv: float = MAX_MV) -> Markup:
    """Return an SVG element with ECG paper, of `row_s` seconds and ±`half_mv`, that all strips of the page refer to."""
    width = round(row_s * PAPER_MM_PER_S) * UNITS_PER_MM
    height = round(2 * half_mv * PAPER_MM_PER_MV) * UNITS_PER_MM

    def lines(step_mm: int) -> str:
        step = step_mm * UNITS_PER_MM
        vertical = "".join(f"M{x} 0v{height}" for x in range(0, width + 1, step))
        return vertical + "".join(f"M0 {y}h{width}" for y in range(0, height + 1, step))

    sheet = tag("rect", width=width, height=height, class_="sheet")
    squares = (tag("path", d=lines(mm), class_=name) for mm, name in ((SMALL_MM, "fine"), (LARGE_MM, "coarse")))
    return tag("g", sheet, *squares, id=GRID_ID)


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Make an SVG or HTML element, and escape its text and attributes.

    Children of type ``Markup`` are not escaped again. In the name of an attribute, an underscore becomes a hyphen; an
    underscore at the end is removed.

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


def _thinned(ecg: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Return times in seconds and samples, resampled to at most `STRIP_FS` after a moving average against aliasing."""
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
    """Return an SVG path with relative integer steps; NaN makes a gap."""
    pieces = []
    for run in np.ma.clump_unmasked(np.ma.masked_invalid(y)):
        xs, ys = x[run].astype(int), y[run].astype(int)
        steps = zip(np.diff(xs).tolist(), np.diff(ys).tolist(), strict=True)
        pieces.append(f"M{xs[0]} {ys[0]}l" + " ".join(f"{dx}{'' if dy < 0 else ' '}{dy}" for dx, dy in steps))
    return "".join(piece.removesuffix("l") for piece in pieces)
