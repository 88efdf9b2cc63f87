"""Tables without a header of their own: CSV, TSV and NumPy files."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecg_shock.data.reading import WHAT_TO_DO, build_recording, choose_leads, lead_names, reading
from ecg_shock.data.recordings import MV_PER_UNIT, Recording

CSV_DELIMITERS = "\t;,"
# First words of a name, so that "time_s" and "Time (ms)" count too.
CSV_TIME_COLUMNS = frozenset({"time", "t", "timestamp", "seconds", "sample", "samples", "index"})

CSV_TIME_STEP_TOLERANCE = 0.5  # 1/360 s written to three decimals has steps of 0.002 and 0.003 s


def read_csv(path: Path, fs: float, units: str, leads: Sequence[str] | None) -> Recording:
    """Read the columns of a CSV or TSV file; see `ecg_shock.data.readers.read_record`."""
    with reading(path, "CSV"):
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
        delimiter = max(CSV_DELIMITERS, key=lines[0].count)
        rows = [row or [""] for row in csv.reader(lines, delimiter=delimiter)]
    names = ["" for _ in rows[0]]
    first_line = 1
    if any(cell.strip() for cell in rows[0]) and not any(_is_number(cell) for cell in rows[0]):
        names, rows, first_line = rows[0], rows[1:], 2
    for line, row in enumerate(rows, first_line):
        if len(row) != len(names):
            raise ValueError(f"{path} line {line} has {len(row)} cells instead of {len(names)}. {WHAT_TO_DO}")
        for cell in row:
            if cell.strip() and not _is_number(cell):
                raise ValueError(
                    f"{path} line {line}: {cell!r} is not a number; write numbers with a decimal point, and "
                    "leave the cells of missing samples empty"
                )
    names = lead_names(names)
    chosen = choose_leads(path, names, leads)
    for i in chosen:
        if re.split(r"[\W_]+", names[i].lower())[0] in CSV_TIME_COLUMNS:
            raise ValueError(f"{path}: column {names[i]!r} is no ECG lead; choose with leads= (--lead) from {names}")
    cells = [[float(row[i]) if row[i].strip() else np.nan for i in chosen] for row in rows]
    signal = np.array(cells, dtype=np.float64).reshape(len(rows), len(chosen))
    if leads is None and first_line == 1:
        for i in chosen:
            if _looks_like_time(signal[:, i]):
                raise ValueError(
                    f"{path}: column {names[i]!r} rises evenly, as time does and no ECG; choose with leads= (--lead) "
                    f"from {names}"
                )
    signal *= MV_PER_UNIT[units]
    return build_recording(path, signal, fs, [names[i] for i in chosen])


def _looks_like_time(column: np.ndarray) -> bool:
    """Say whether a column without a name rises by the same step from each sample to the next."""
    if len(column) <= 2:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.diff(column)
        return bool((steps > 0).all() and np.ptp(steps) <= CSV_TIME_STEP_TOLERANCE * steps.mean())


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_npy(path: Path, fs: float, units: str, leads: Sequence[str] | None) -> Recording:
    """Read the columns of a NumPy file; see `ecg_shock.data.readers.read_record`."""
    with reading(path, ".npy"):
        # Mapped, so that the size which the header claims is checked before anything is allocated.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        kind, shape = array.dtype, array.shape
    if not (np.issubdtype(kind, np.floating) or np.issubdtype(kind, np.integer)):
        raise TypeError(f"{path} holds {kind}; save real numbers, such as float32")
    if len(shape) not in (1, 2):
        raise ValueError(f"{path} has shape {shape}; save (n_samples,) or (n_samples, n_leads)")
    if len(shape) == 2 and shape[1] > shape[0]:
        raise ValueError(f"{path} has shape {shape}, more leads than samples; transpose it to (n_samples, n_leads)")
    array = array.reshape(shape[0], -1) if array.size else np.empty((0, 1))
    names = lead_names([""] * array.shape[1])
    chosen = choose_leads(path, names, leads)
    with np.errstate(over="ignore", invalid="ignore"):  # as below; and NaNs that signal are NaN
        signal = np.asarray(array[:, chosen], dtype=np.float64) * MV_PER_UNIT[units]
    return build_recording(path, signal, fs, [names[i] for i in chosen])
