"""Write the result of a scan as WFDB annotations, CSV and JSON."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.files import write_text
from ecg_shock.inference.scanning import Scan

ANNOTATOR = "shk"
# These are not rhythms of WFDB, such as "(VFIB", because the model does not name the rhythm.
SHOCKABLE_NOTE, NONSHOCKABLE_NOTE, ALARM_NOTE = "(SHOCKABLE", "(NONSHOCKABLE", "shock alarm"


def write_scan(scan: Scan, folder: Path) -> list[Path]:
    """Write the result of a scan as WFDB annotations, CSV and JSON.

    Parameters
    ----------
    scan : Scan
        The result of `ecg_shock.scan`.
    folder : pathlib.Path
        The folder, which is created if it does not exist. The files have the name of the record.

    Returns
    -------
    list of pathlib.Path
        ``NAME.shk`` (WFDB annotations of episodes and alarms), ``NAME.csv`` (one row per window) and ``NAME.json``
        (settings and episodes). A WFDB viewer needs the header of the record in the same folder as ``NAME.shk``.

    Raises
    ------
    OSError
        If the folder cannot be written.
    ValueError
        If there are files of another recording with these names; see `check_free`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = scan_paths(scan.name, folder)
    check_free(paths, scan.source)
    text = json.dumps(to_json(scan), indent=2) + "\n"
    write_text(paths[2], text)  # first, because it names the source of the files
    write_annotations(scan, paths[0])
    write_csv(scan, paths[1])
    return paths[:3]


def scan_paths(name: str, folder: Path) -> list[Path]:
    """Return the paths of the annotations, CSV, JSON and picture of a scan; their name is allowed in WFDB.

    Examples
    --------
    >>> [path.name for path in scan_paths("bed 3", Path("out"))]
    ['bed_3.shk', 'bed_3.csv', 'bed_3.json', 'bed_3.png']
    """
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", name) or "scan"
    return [folder / f"{stem}.{suffix}" for suffix in (ANNOTATOR, "csv", "json", "png")]


def check_free(paths: list[Path], source: str) -> None:
    """Raise a ValueError if a file exists that is not from a scan of the same recording.

    Parameters
    ----------
    paths : list of pathlib.Path
        The result of `scan_paths`.
    source : str
        `Scan.source` of the recording.

    Raises
    ------
    ValueError
        If one of the files exists, and the JSON file does not name this source. Recordings in memory have no source.
    """
    taken = [path for path in paths if path.exists()]
    if not taken:
        return
    try:
        content = json.loads(paths[2].read_text(encoding="utf-8"))
        found = content["source"]
    except (OSError, ValueError, TypeError, KeyError):
        found = None
    if found != source or not source:  # two recordings in memory cannot be told apart
        of = f"is the scan of {found!r}" if found else "is of unknown origin"
        new = repr(source) if source else "a recording in memory"
        raise ValueError(
            f"{taken[0]} {of}, and the scan of {new} would overwrite it; give another folder with --out, or move "
            "the old files to another folder"
        )


def write_annotations(scan: Scan, path: Path) -> None:
    """Write episodes as changes of rhythm, and alarms as comments, in the WFDB annotation format.

    `path` must be RECORD.ANNOTATOR, such as ``cu01.shk``. RECORD may contain only letters, digits, ``_`` and ``-``.
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
    """Write a CSV file with one row per window: start and end in s, probability, shock, alarm, reason if unusable."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("start_s", "end_s", "probability", "shock", "alarm", "unusable"))
        rows = zip(scan.start_s, scan.probability, scan.shock, scan.alarm, scan.reason, strict=True)
        for start_s, probability, shock, alarm, reason in rows:
            shown = "" if reason else f"{probability:.6f}"
            writer.writerow((f"{start_s:.3f}", f"{start_s + scan.window_s:.3f}", shown, int(shock), int(alarm), reason))


def to_json(scan: Scan) -> dict[str, Any]:
    """Return the settings and episodes of a scan as a dictionary, with times in seconds from the start."""
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


def clock(seconds: float) -> str:
    """Format a time in seconds as h:mm:ss.s.

    Examples
    --------
    >>> clock(3725.04)
    '1:02:05.0'
    """
    tenths = round(seconds * 10)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02d}:{tenths % 600 / 10:04.1f}"
