"""What a scan is written as: WFDB annotations, CSV, JSON and a picture."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecg_shock.data.lead import Lead
from ecg_shock.files import write_text
from ecg_shock.inference.scanning import Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ANNOTATOR = "shk"
# Rhythm labels of our own, in the form of WFDB's "(VFIB" and "(N": the model does not say which rhythm it is.
SHOCKABLE_NOTE, NONSHOCKABLE_NOTE, ALARM_NOTE = "(SHOCKABLE", "(NONSHOCKABLE", "shock alarm"

COLUMNS = 3000  # of the picture of a whole recording; each shows the range of what lies in it
SHORT_S, LONG_S = 90.0, 7200.0  # up to the one a recording is drawn once, in seconds; from the other on in hours
MOST_ONSETS = 5  # of the episodes that are drawn large
BEFORE_ONSET_S, AFTER_ONSET_S = 10.0, 20.0
ECG_COLOUR, EPISODE_COLOUR, UNUSABLE_COLOUR = "#202124", "#b3261e", "#9aa0a6"
RARE_PERCENT = 0.5  # of the columns: what only so many reach is shown, but at most as large as all the rest
DPI = 110


def write_scan(scan: Scan, lead: Lead, folder: Path) -> list[Path]:
    """Write a scan as WFDB annotations, CSV, JSON and a picture.

    Parameters
    ----------
    scan : Scan
        What was found.
    lead : Lead
        The lead that was scanned, for the picture.
    folder : pathlib.Path
        A folder, which is made if it is not there. Files are called after the record.

    Returns
    -------
    list of pathlib.Path
        ``NAME.shk`` (rhythm changes and alarms, for any WFDB viewer, beside the record's header), ``NAME.csv`` (a row a
        window), ``NAME.json`` (settings and episodes) and ``NAME.png``.

    Raises
    ------
    OSError
        If the folder cannot be written.
    ValueError
        If the results of another recording have these names; see `check_free`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = scan_paths(scan.name, folder)
    check_free(paths, scan.source)
    write_json(scan, paths[2])  # first, as it says whose results these are
    write_annotations(scan, paths[0])
    write_csv(scan, paths[1])
    draw(scan, lead, paths[3])
    return paths


def scan_paths(name: str, folder: Path) -> list[Path]:
    """Return where a scan is written: annotations, CSV, JSON and picture.

    Parameters
    ----------
    name : str
        Of the record.
    folder : pathlib.Path
        Where the files go.

    Returns
    -------
    list of pathlib.Path
        Of a record name that WFDB allows.

    Examples
    --------
    >>> [path.name for path in scan_paths("bed 3", Path("out"))]
    ['bed_3.shk', 'bed_3.csv', 'bed_3.json', 'bed_3.png']
    """
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", name) or "scan"
    return [folder / f"{stem}.{suffix}" for suffix in (ANNOTATOR, "csv", "json", "png")]


def check_free(paths: list[Path], source: str) -> None:
    """Refuse to write a scan over files that are not the results of the same recording.

    Parameters
    ----------
    paths : list of pathlib.Path
        As `scan_paths` returns them.
    source : str
        `Scan.source` of what was or will be scanned.

    Raises
    ------
    ValueError
        If one of the files is there, and the JSON does not say that it is of this source.
    """
    taken = [path for path in paths if path.exists()]
    if not taken:
        return
    try:
        content = json.loads(paths[2].read_text(encoding="utf-8"))
        found = content["source"]
    except (OSError, ValueError, TypeError, KeyError):
        found = None
    if found != source:
        of = f"is the scan of {found!r}" if found else "is of unknown origin"
        raise ValueError(
            f"{taken[0]} {of}, and the scan of {source!r} would be written over it; give another folder with --out, or "
            "move the old files away"
        )


def write_annotations(scan: Scan, path: Path) -> None:
    """Write episodes as changes of rhythm, and alarms as comments, in the WFDB annotation format.

    Parameters
    ----------
    scan : Scan
        What was found.
    path : pathlib.Path
        Its stem is the record's name, of letters, digits, ``_`` and ``-``; its suffix is the annotator.
    """
    import wfdb

    marks = [(0, "+", NONSHOCKABLE_NOTE)]
    last = max(0, round(scan.duration_s * scan.fs) - 1)
    for episode in scan.episodes:
        marks.append((round(episode.onset_s * scan.fs), "+", SHOCKABLE_NOTE))
        marks.append((min(round(episode.alarm_s * scan.fs), last), '"', ALARM_NOTE))
        if episode.end_s < scan.duration_s:
            marks.append((round(episode.end_s * scan.fs), "+", NONSHOCKABLE_NOTE))
    if len(marks) > 1 and marks[1][0] == 0:
        marks = marks[1:]
    marks.sort(key=lambda mark: mark[0])  # an alarm may come after the end of a short episode
    samples, symbols, notes = zip(*marks, strict=True)
    wfdb.wrann(
        path.stem,
        path.suffix[1:],
        np.array(samples, dtype=np.int64),
        symbol=list(symbols),
        aux_note=list(notes),
        fs=scan.fs,
        write_dir=str(path.parent),
    )


def write_csv(scan: Scan, path: Path) -> None:
    """Write a row a window: start, end, probability (empty if unusable), shock, alarm, and why it is unusable.

    Parameters
    ----------
    scan : Scan
        What was found.
    path : pathlib.Path
        The file.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("start_s", "end_s", "probability", "shock", "alarm", "unusable"))
        rows = zip(scan.start_s, scan.probability, scan.shock, scan.alarm, scan.reason, strict=True)
        for start_s, probability, shock, alarm, reason in rows:
            said = "" if reason else f"{probability:.6f}"
            writer.writerow((f"{start_s:.3f}", f"{start_s + scan.window_s:.3f}", said, int(shock), int(alarm), reason))


def write_json(scan: Scan, path: Path) -> None:
    """Write settings and episodes.

    Parameters
    ----------
    scan : Scan
        What was found.
    path : pathlib.Path
        The file.
    """
    write_text(path, json.dumps(to_json(scan), indent=2) + "\n")


def to_json(scan: Scan) -> dict[str, Any]:
    """Return settings and episodes as JSON can hold them.

    Parameters
    ----------
    scan : Scan
        What was found.

    Returns
    -------
    dict
        Times in seconds from the start of the recording.
    """
    return {
        "record": scan.name,
        "source": scan.source,
        "lead": scan.lead,
        "fs": scan.fs,
        "duration_s": scan.duration_s,
        "window_s": scan.window_s,
        "step_s": scan.step_s,
        "threshold": scan.threshold,
        "alarm": {"k": scan.alarm_rule.k, "n": scan.alarm_rule.n},
        "windows": len(scan.start_s),
        "unusable_windows": int((~scan.usable).sum()),
        "shock_windows": int(scan.shock.sum()),
        "episodes": [asdict(episode) for episode in scan.episodes],
    }


def draw(scan: Scan, lead: Lead, path: Path) -> None:
    """Draw the whole recording with probability and episodes, and the first onsets large.

    Parameters
    ----------
    scan : Scan
        What was found.
    lead : Lead
        The lead that was scanned.
    path : pathlib.Path
        The image; its suffix sets the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    large = () if scan.duration_s <= SHORT_S else scan.episodes[:MOST_ONSETS]
    rows = 2 + len(large)
    figure = Figure(figsize=(14, 2.2 + 1.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1, gridspec_kw={"height_ratios": [2, 1.4] + [1.6] * len(large)})
    whole, probability = axes[0], axes[1]

    unit_s, unit = _unit(scan.duration_s)
    middle_s, low, high = _envelope(lead)
    if np.isfinite(low).any():
        whole.set_ylim(*_limits(low, high))
    whole.fill_between(middle_s / unit_s, low, high, color=ECG_COLOUR, lw=0.4)
    whole.set_ylabel(f"{lead.lead} (mV)")
    _draw_probability(probability, scan, unit_s)
    probability.set_xlabel(f"Time ({unit})")
    for ax in (whole, probability):
        _shade(ax, scan, unit_s)
        ax.set_xlim(0, scan.duration_s / unit_s)
    for ax, episode in zip(axes[2:], large, strict=True):
        first_s = max(0.0, episode.onset_s - BEFORE_ONSET_S)
        last_s = min(scan.duration_s, episode.onset_s + AFTER_ONSET_S)
        first, last = round(first_s * scan.fs), round(last_s * scan.fs)
        ax.plot(np.arange(first, last) / scan.fs, lead.read(first, last), color=ECG_COLOUR, lw=0.7)
        beside = ax.twinx()
        _draw_probability(beside, scan, 1.0)
        _shade(ax, scan, 1.0)
        ax.set_xlim(first_s, last_s)
        ax.set_ylabel("mV")
        ax.set_title(f"onset at {clock(episode.onset_s)}, alarm at {clock(episode.alarm_s)}", loc="left", fontsize=9)
    axes[-1].set_xlabel(f"Time ({unit})" if not large else "Time (s)")
    count = len(scan.episodes)
    shown = f", the first {len(large)} below" if 0 < len(large) < count else ""
    figure.suptitle(
        f"{scan.name}: {count} episode{'' if count == 1 else 's'} of shockable rhythm{shown}; "
        f"{scan.window_s:g}-s windows every {scan.step_s:g} s, alarm at {scan.alarm_rule.k} of {scan.alarm_rule.n}"
    )
    figure.savefig(path, dpi=DPI)


def clock(seconds: float) -> str:
    """Write a time of the recording as h:mm:ss.s.

    Parameters
    ----------
    seconds : float
        From the start of the recording.

    Returns
    -------
    str
        To a tenth of a second.

    Examples
    --------
    >>> clock(3725.04)
    '1:02:05.0'
    """
    tenths = round(seconds * 10)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02d}:{tenths % 600 / 10:04.1f}"


def _unit(duration_s: float) -> tuple[float, str]:
    if duration_s > LONG_S:
        return 3600.0, "h"
    return (60.0, "min") if duration_s > SHORT_S else (1.0, "s")


def _envelope(lead: Lead) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return time in seconds, and the lowest and highest value in mV, of each column of the picture; NaN if none."""
    columns = min(COLUMNS, lead.n_samples)
    edges = np.arange(columns + 1) * lead.n_samples // columns
    low, high = np.full(columns, np.nan), np.full(columns, np.nan)
    for first, piece in _numbered(lead):
        inside = slice(np.searchsorted(edges, first, "right") - 1, np.searchsorted(edges, first + len(piece), "left"))
        starts = np.maximum(edges[inside], first) - first
        low[inside] = np.fmin(low[inside], np.fmin.reduceat(piece, starts))
        high[inside] = np.fmax(high[inside], np.fmax.reduceat(piece, starts))
    return (edges[:-1] + edges[1:]) / 2 / lead.fs, low, high


def _limits(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Return the range in mV that is drawn: all of it, but for artefacts that would leave the ECG less than half."""
    bottom = float(np.nanpercentile(low, RARE_PERCENT))
    top = float(np.nanpercentile(high, 100 - RARE_PERCENT))
    span = top - bottom
    bottom, top = max(float(np.nanmin(low)), bottom - span / 2), min(float(np.nanmax(high)), top + span / 2)
    margin = max(0.1 * span, 0.05)
    return bottom - margin, top + margin


def _numbered(lead: Lead) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the pieces of a lead, each with the number of its first sample."""
    first = 0
    for piece in lead.pieces():
        yield first, piece
        first += len(piece)


def _draw_probability(ax: Axes, scan: Scan, unit_s: float) -> None:
    """Draw the probability around each window's middle, its threshold, and the windows that are unusable."""
    middle = (scan.start_s + scan.window_s / 2) / unit_s
    half_step = scan.step_s / 2 / unit_s
    around = np.stack([middle - half_step, middle + half_step], axis=1).ravel()
    ax.plot(around, np.repeat(scan.probability, 2), color=EPISODE_COLOUR, lw=0.8, alpha=0.8)
    ax.plot(middle[~scan.usable], np.zeros((~scan.usable).sum()), ".", color=UNUSABLE_COLOUR, ms=3)
    ax.axhline(scan.threshold, color=EPISODE_COLOUR, lw=0.6, ls=":")
    ax.set_ylim(-0.04, 1.04)
    ax.set_ylabel("P(shockable)")


def _shade(ax: Axes, scan: Scan, unit_s: float) -> None:
    for episode in scan.episodes:
        ax.axvspan(episode.onset_s / unit_s, episode.end_s / unit_s, color=EPISODE_COLOUR, alpha=0.15, lw=0)
