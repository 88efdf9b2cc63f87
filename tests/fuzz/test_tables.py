"""Tables as people have them: whatever stands beside a strip of VF, its signal comes out, or an error.

Some hundreds of files by default; ``ECG_SHOCK_FUZZ_TABLES=10000`` tries so many. ``ECG_SHOCK_FUZZ_FIRST`` is the index
of the first, so that one can be tried again. Every case depends on its index and on nothing else.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.io

from ecg_shock.data.readers import read_record
from ecg_shock.data.recordings import Recording

SEED = 12
CASES = int(os.environ.get("ECG_SHOCK_FUZZ_TABLES", "400"))
FIRST = int(os.environ.get("ECG_SHOCK_FUZZ_FIRST", "0"))
MAX_MESSAGE = 1000
TOLERANCE_MV = 1e-6

RATES = (125, 250, 360, 500, 1000)
DIGITS = {"mV": 3, "uV": 0, "V": 6}  # that the unit needs
ECG_NAMES = ("ECG", "II", "MLII", "ecg_lead1", "EKG", "V5", "Lead II")
OTHER_NAMES = ("value", "ch1", "Channel 1", "signal", "Kanal A")
TIME_NAMES = (
    "time",
    "t",
    "Elapsed time",
    "ms",
    "timestamps",
    "Datetime",
    "Zeit [s]",
    "Unnamed: 0",
    "sec",
    "RecordingTime",
)
TIME_NAMES += ("sample", "clock", "packet", "counter", "x", "", "Date", "elapsed_ms", "seq")
COMMENT_WORDS = ("written", "OpenBCI", "exported", "patient")
COMMENTS = ("# written by a device", "%OpenBCI Raw EXG Data", "// exported 2024-01-02 12:00:00", "# patient: unknown")
PREAMBLES = ("Device: Holter 3", "Sampling rate: {fs} Hz", "Name;Unknown", "Start,2024-01-02", "Channels\t2")


class Case(NamedTuple):
    """A file, how it is read, and the ECG in it."""

    path: Path
    content: bytes
    arguments: dict[str, Any]
    expected_mv: np.ndarray
    names: tuple[str, ...]  # that the ECG may have
    others: int  # columns that may be leads as well; -1 if the ECG is the only column of all


def choose(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    """Choose one of some options."""
    return options[int(rng.integers(len(options)))]


def vf(rng: np.random.Generator, n: int, fs: float) -> np.ndarray:
    """Swing as coarse VF does, in mV."""
    t = np.arange(n) / fs
    tone = rng.uniform(4, 6) * t + rng.uniform(0.1, 0.4) * np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * t)
    waxing = 0.75 + 0.25 * np.sin(2 * np.pi * rng.uniform(0.2, 0.4) * t)
    return rng.uniform(0.5, 2) * waxing * np.sin(2 * np.pi * (tone + rng.random()))


def clock(seconds: float, form: str) -> str:
    """Write a time as text."""
    hours, rest = divmod(43200 + round(seconds * 1000), 3_600_000)
    time = f"{12 + hours}:{rest // 60000:02}:{rest // 1000 % 60:02}.{rest % 1000:03}"
    return {"iso": f"2024-03-01T{time}", "date": f"2024-03-01 {time}", "clock": time, "bracket": f"[{time}]"}[form]


def time_column(rng: np.random.Generator, n: int, fs: float) -> list[str]:
    """Write time or a count, as devices do."""
    t = np.arange(n) / fs
    kind = int(rng.integers(16))
    if kind == 0:
        return [f"{s:.3f}" for s in t]
    if kind == 1:
        return [f"{s:.2f}" for s in t]
    if kind == 2:
        return [repr(float(s)) for s in t]
    if kind == 3:
        return [f"{s * 1000:.0f}" for s in t]
    if kind == 4:
        return [f"{1.7e12 + s * 1000:.0f}" for s in t]
    if kind == 5:
        return [f"{1.7e9 + s:.4f}" for s in t]
    if kind == 6:
        return [f"{s:.3f}" for s in np.repeat(t[::25], 25)[:n]]
    if kind == 7:
        return [str(s) for s in np.cumsum(rng.integers(round(500 / fs), round(1500 / fs) + 1, n))]
    if kind == 8:
        return [f"{s:.3f}" for s in t + 2 * (np.arange(n) > n // 2)]
    if kind == 9:
        return [str(i % 256) for i in range(n)]
    if kind == 10:
        return [str(i // 10 % 64) for i in range(n)]
    if kind == 11:
        return [str(i % 256) for i in range(2 * n) if i % 50 not in (3, 4)][:n]
    if kind == 12:
        return [f"{s % 1:.3f}" for s in t]
    if kind == 13:
        return [str(n - i) for i in range(n)]
    if kind == 14:
        return [f"{s:.6f}" for s in t + rng.normal(0, 0.2 / fs, n)]
    return [clock(s, choose(rng, ("iso", "date", "clock", "bracket"))) for s in t]


def other_column(rng: np.random.Generator, n: int, fs: float) -> list[str]:
    """Write what else is measured beside an ECG."""
    kind = int(rng.integers(6))
    t = np.arange(n) / fs
    if kind == 0:
        return [str(int(i in (n // 3, n // 3 + 1, 2 * n // 3))) for i in range(n)]
    if kind == 1:
        return ["36.50"] * n
    if kind == 2:
        return [f"{v:.3f}" for v in 36 + np.cumsum(rng.normal(0, 0.01, n))]
    if kind == 3:
        return [f"{v:.4f}" for v in np.sin(2 * np.pi * 0.25 * t)]
    if kind == 4:
        return [f"{v:.3f}" for v in 0.05 * np.sin(2 * np.pi * 10 * t) + rng.normal(0, 0.02, n)]
    return [choose(rng, ("", "", "VF", "start", "note of a nurse")) for _ in range(n)]


def write_table(rng: np.random.Generator, folder: Path) -> Case:
    """Write a table in text, with a fault or none."""
    fs, unit = choose(rng, RATES), choose(rng, ("mV", "mV", "uV", "V"))
    n = int(rng.integers(2 * fs, 5 * fs))
    digits = DIGITS[unit] + int(rng.integers(0, 3))
    scale = {"mV": 1.0, "uV": 1e3, "V": 1e-3}[unit]
    cells = [f"{v:.{digits}f}" for v in vf(rng, n, fs) * scale]
    for i in rng.integers(0, n, choose(rng, (0, 0, 3))):
        cells[i] = choose(rng, ("", "nan", "NaN"))
    columns = [cells]
    named_ecg = rng.random() < 0.7
    names = [choose(rng, ECG_NAMES if named_ecg else OTHER_NAMES)]
    if rng.random() < 0.3:
        names[0] += choose(rng, (" ({})", " [{}]", "_{}")).format(
            choose(rng, ("\u00b5V", "uV")) if unit == "uV" else unit
        )
    others = 0
    for _ in range(choose(rng, (0, 1, 1, 1, 2))):
        at = int(rng.integers(len(columns) + 1))
        columns.insert(at, time_column(rng, n, fs))
        names.insert(at, choose(rng, TIME_NAMES))
    for _ in range(choose(rng, (0, 0, 0, 1, 2))):
        at = int(rng.integers(len(columns) + 1))
        columns.insert(at, other_column(rng, n, fs))
        names.insert(at, f"{choose(rng, ('Temp', 'Resp', 'marker', 'acc', 'EEG'))}{at}")
        others += 1
    ecg = columns.index(cells)
    delimiter, decimal = choose(rng, (",", ",", ";", "\t", "|", " ", ", ")), choose(rng, (".", ".", ","))
    if len(columns) == 1:
        delimiter = ""
    rows = [list(row) for row in zip(*columns, strict=True)]
    if decimal == ",":
        rows = [[cell.replace(".", ",") for cell in row] for row in rows]
    if rng.random() < 0.1:
        rows = [[f'"{cell}"' for cell in row] for row in rows]
    header = rng.random() < 0.7
    above = (
        [delimiter.join(f'"{name}"' if delimiter == " " and " " in name else name for name in names)] if header else []
    )
    if header and rng.random() < 0.1:
        above.append(delimiter.join(unit if i == ecg else "" for i in range(len(names))))
    for _ in range(choose(rng, (0, 0, 0, 1, 3))):
        above.insert(0, choose(rng, COMMENTS if rng.random() < 0.7 else PREAMBLES).format(fs=fs))
    end = choose(rng, ("\n", "\n", "\r\n", "\r\n", "\r", "\r\r\n", "\n\n"))
    fault = int(rng.integers(16))
    at = int(rng.integers(n))
    if fault == 0:
        rows[at] = rows[at][1:]
    elif fault == 1 and len(columns) > 1:
        rows[at] = [*rows[at], "0.5"]
    elif fault == 2:
        rows[at][ecg] = choose(rng, ("x", "1.2.3", "0x10", "1_0", "--", "#N/A", "1 000", "\0", "1'000.5", "\u221e"))
    elif fault == 3:
        rows[at:at] = [[]]
    elif fault == 4:
        rows = [[*row, ""] for row in rows]
    elif fault == 5:
        rows[at] = [""] * len(names)
        cells[at] = ""
    elif fault == 6:
        rows = rows[: max(at, 1)]
        del cells[max(at, 1) :]
    elif fault == 7:
        rows[at:at] = [["# a comment"]]
    text = end.join([*above, *(delimiter.join(row) for row in rows)]) + end * int(rng.integers(0, 3))
    encoding = choose(rng, ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-16-le"))
    arguments: dict[str, Any] = {"fs": fs, "units": unit}
    if rng.random() < 0.5:
        arguments["leads"] = [names[ecg].strip() if header else str(ecg + 1)]
    if rng.random() < 0.2 and delimiter:
        arguments["delimiter"] = delimiter
    if rng.random() < 0.3:
        arguments["decimal"] = decimal
    mv_per_unit = {"mV": Decimal(1), "uV": Decimal("0.001"), "V": Decimal(1000)}[unit]
    expected = [float(Decimal(cell) * mv_per_unit) if cell not in ("", "nan", "NaN") else np.nan for cell in cells]
    path = folder / choose(rng, ("r.csv", "r.tsv", "r.txt"))
    allowed = (names[ecg].strip(), str(ecg + 1))
    others = others if len(columns) > 1 else -1
    return Case(path, text.encode(encoding, errors="replace"), arguments, np.array(expected), allowed, others)


def write_array(rng: np.random.Generator, folder: Path) -> Case:
    """Write a NumPy or MATLAB file, with time, counts or other columns beside the ECG."""
    fs, unit = choose(rng, RATES), choose(rng, ("mV", "uV", "V"))
    n = int(rng.integers(2 * fs, 5 * fs))
    ecg = vf(rng, n, fs)
    stored = ecg * {"mV": 1.0, "uV": 1e3, "V": 1e-3}[unit]
    if unit == "uV" and rng.random() < 0.5:
        stored = np.round(stored)
        ecg = stored / 1000
    columns, others = [stored], 0
    for _ in range(choose(rng, (0, 0, 1, 2))):
        text = time_column(rng, n, fs) if rng.random() < 0.7 else other_column(rng, n, fs)
        if all(cell.replace(".", "").replace("-", "").isdigit() for cell in text) and ":" not in text[0]:
            columns.insert(int(rng.integers(len(columns) + 1)), np.array(text, dtype=float))
            others += 1
    at = next(i for i, column in enumerate(columns) if column is stored)
    array: Any = np.stack(columns, axis=1)
    layout = int(rng.integers(10))
    if layout == 0:
        array = np.asfortranarray(array)
    elif layout == 1:
        array = array.astype(">f8")
    elif layout == 2:
        array = array.T
    elif layout == 3 and array.shape[1] == 1:
        array = array[:, 0]
    elif layout == 4 and (array == np.round(array)).all():
        array = array.astype(np.int64)
    elif layout == 5:
        array = choose(rng, (array.astype(complex), array.astype(str), array > 0, array[None]))
    arguments: dict[str, Any] = {"fs": fs, "units": unit}
    if rng.random() < 0.5:
        arguments["leads"] = [str(at + 1)]
    path = folder / choose(rng, ("r.npy", "r.mat"))
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        more = choose(rng, ({}, {}, {"fs": fs}, {"fs": 2 * fs}, {"t": np.arange(n) / fs}, {"name": "a patient"}))
        scipy.io.savemat(path, {"ecg": array, **more}, do_compression=bool(rng.integers(2)))
    content = path.read_bytes()
    if rng.random() < 0.2:
        content = content[: int(rng.integers(len(content)))]
    return Case(path, content, arguments, ecg, (str(at + 1),), others)


def write_edf(rng: np.random.Generator, folder: Path) -> Case:
    """Write an EDF file field by field, with other channels, and a fault in its header or none."""
    fs, records = choose(rng, (125, 250, 500)), int(rng.integers(2, 6))
    ecg = np.round(vf(rng, fs * records, fs) * 1000)
    channels = [["ECG II", "uV", ecg, fs]]
    for label, dimension in (("EEG C3-M2", "uV"), ("SpO2", "%"), ("Temp", "degC"), ("Resp", "")):
        if rng.random() < 0.3:
            rate = choose(rng, (fs, fs, 1))
            at = int(rng.integers(len(channels) + 1))
            channels.insert(at, [label, dimension, np.round(rng.normal(0, 50, rate * records)), rate])
    limits = ("-32768", "32767")
    fields = [
        ("label", 16),
        ("", 80),
        ("unit", 8),
        *((limit, 8) for limit in limits * 2),
        ("", 80),
        ("rate", 8),
        ("", 32),
    ]
    content = [f"{'0':8}{'X':80}{'X':80}01.01.2012.00.00{256 * (1 + len(channels)):<8}{'':44}{records:<8}{1:<8}"]
    content.append(f"{len(channels):<4}")
    for field, width in fields:
        for label, unit, _, rate in channels:
            content.append(f"{ {'label': label, 'unit': unit, 'rate': str(rate)}.get(field, field):{width}}")
    data = bytearray("".join(content).encode("ascii"))
    header = len(data)
    for record in range(records):
        for _, _, values, rate in channels:
            data += values[record * rate : (record + 1) * rate].astype("<i2").tobytes()
    fault = int(rng.integers(6))
    if fault == 0:
        del data[int(rng.integers(len(data))) :]
    elif fault == 1:
        data += rng.bytes(int(rng.integers(1, 50)))
    elif fault == 2:  # numbers of the header
        places = [i for i in range(176, header) if chr(data[i]).isdigit()]
        data[choose(rng, places)] = ord(choose(rng, "x,"))  # another number would be another scale
    arguments: dict[str, Any] = {"leads": ["ECG II"]} if rng.random() < 0.7 else {}
    if rng.random() < 0.2:
        arguments["fs"] = float(fs)
    return Case(folder / "r.edf", bytes(data), arguments, ecg / 1000, ("ECG II",), len(channels) - 1)


def outcome(case: Case) -> str:
    """Read a file, and say what came."""
    case.path.write_bytes(case.content)
    try:
        recording = read_record(case.path, **case.arguments)
    except (ValueError, TypeError, OSError) as error:
        return "error" if 0 < len(str(error)) < MAX_MESSAGE else f"FAULT: a message of {len(str(error))} characters"
    except Exception as error:
        return f"FAULT: {error!r:.300}"
    finally:
        case.path.unlink()
    return compare(case, recording)


def compare(case: Case, recording: Recording) -> str:
    """Say whether a recording holds the ECG, alone or beside what may be leads as well."""
    lead = next((lead for lead in recording.leads if lead in case.names), None)
    if case.others == -1 and len(recording.leads) == 1 and not recording.leads[0].startswith(COMMENT_WORDS):
        lead = recording.leads[0]  # a column alone may have the last line above it for a name
    if lead is None or len(recording.leads) > 1 + max(case.others, 0):
        return f"FAULT: the leads {recording.leads}"
    if "fs" in case.arguments and recording.fs != case.arguments["fs"]:
        return f"FAULT: {recording.fs} Hz"
    found = recording.signal[:, recording.leads.index(lead)]
    if found.shape != case.expected_mv.shape:
        return f"FAULT: {found.shape} instead of {case.expected_mv.shape}"
    if not np.allclose(found, case.expected_mv, atol=TOLERANCE_MV, rtol=1e-6, equal_nan=True):
        return f"FAULT: another signal, {found[:3]} instead of {case.expected_mv[:3]}"
    return "right" if len(recording.leads) == 1 else "right, beside others"


def test_the_signal_or_an_error(tmp_path: Path) -> None:
    """Of every file the signal that was written comes out to 1e-6 mV, or an error of less than 1000 characters."""
    found: Counter[str] = Counter()
    faults = []
    for index in range(FIRST, FIRST + CASES):
        rng = np.random.default_rng([SEED, index])
        write = choose(rng, (write_table, write_table, write_table, write_table, write_array, write_edf))
        case = write(rng, tmp_path)
        end = outcome(case)
        found[f"{case.path.suffix} {end.split(':')[0]}"] += 1
        if end.startswith("FAULT"):
            faults.append(f"{index}: {end}; {case.arguments}, {case.content[:150]!r}")
    print(sorted(found.items()))
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:20])
    for suffix in (".csv", ".npy", ".mat", ".edf"):
        assert found[f"{suffix} right"] > 0


@pytest.mark.parametrize("index", range(3))
def test_another_signal_would_be_seen(index: int, tmp_path: Path) -> None:
    """A signal of another scale, rate or length is a fault."""
    case = write_array(np.random.default_rng(index), tmp_path)
    names = case.names[:1]
    good = Recording(case.expected_mv[:, None], case.arguments["fs"], names)
    assert compare(case, good) == "right"
    assert compare(case, Recording(1.001 * case.expected_mv[:, None], good.fs, names)).startswith(
        "FAULT: another signal"
    )
    assert compare(case, Recording(good.signal, 2 * good.fs, names)).startswith("FAULT")
    assert compare(case, Recording(good.signal[1:], good.fs, names)).startswith("FAULT")
