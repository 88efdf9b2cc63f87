"""Choose the ECG columns of a table, and check the table's sampling rate and units against the arguments."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ecg_shock.data.lead_labels import is_ecg, listed, quoted
from ecg_shock.data.recordings import MV_PER_UNIT
from ecg_shock.data.signal_files import find_columns, lead_names

# The first word of a name is compared, so that "time_s" and "Time (ms)" match too.
TIME_NAMES = frozenset({"time", "t", "timestamp", "seconds", "sample", "samples", "index"})
MIN_VALUES = 3  # two values of an ECG can rise by chance
MAX_STEP_SPREAD = 0.5  # range of even steps over their mean: 1/360 s rounded to ms gives steps of 2 and 3 ms

# A column of times falls a little if the clock jitters or packets arrive out of order. An ECG falls about as far as it
# rises.
MAX_FALLS = 0.1  # number of falls over the number of steps
MAX_TOTAL_FALL = 0.05  # sum of the falls over the sum of the rises
MAX_RARE_FALLS = 0.02  # number of falls over the number of rises, if a clock was set back
WRAP_FALL = 0.5  # smallest fall of a counter that wraps, over the range of its values
BLOCK_VALUES = 2**20

RATE_TOLERANCE = 0.02  # largest relative difference between fs and the sampling rate of a time column
GAP_STEPS = 5  # samples are missing where a time column rises by more than this many median steps
MIN_RISES = 10  # number of rises that are needed to measure a sampling rate

TIME_UNITS = {  # in seconds
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "sek", "sekunden"), 1.0),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds", "millisekunden"), 1e-3),
    **dict.fromkeys(("us", "\u00b5s", "\u03bcs", "usec", "micros", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("min", "minutes"), 60.0),
    **dict.fromkeys(("h", "hours"), 3600.0),
    "days": 86400.0,
}
# In mV.
VOLTAGE_UNITS = {unit.casefold(): mv for unit, mv in MV_PER_UNIT.items()} | {"nv": 1e-6, "kv": 1e6}
VOLTAGE_UNITS |= {"millivolts": 1.0, "millivolt": 1.0, "microvolts": 1e-3, "microvolt": 1e-3, "volts": 1e3, "volt": 1e3}
OTHER_UNITS = frozenset(
    {"adu", "adc", "count", "counts", "lsb", "digits", "raw", "a.u.", "au", "%", "g", "bpm", "\u00b0c"}
)

EMPTY = "is empty"  # such a column appears if each row ends with a delimiter


def never_falls(values: np.ndarray) -> np.ndarray:
    """Find the signals that never fall and mostly rise, like a time and unlike an ECG.

    Parameters
    ----------
    values : numpy.ndarray
        One signal per row, shape (n_rows, n), NaN where invalid.

    Returns
    -------
    numpy.ndarray
        Shape (n_rows,), bool, True for a signal that never falls and mostly rises.
    """
    n = values.shape[1]
    if n < MIN_VALUES:
        return np.zeros(len(values), dtype=bool)
    head = values[:, :33]
    found = np.asarray(~(head[:, 1:] < head[:, :-1]).any(axis=1))  # rules out nearly every ECG
    rows = np.flatnonzero(found)
    if len(rows):
        before, after = values[rows, :-1], values[rows, 1:]
        found[rows] = ~(after < before).any(axis=1) & ((after > before).sum(axis=1) > n / 2)
    return found


def why_not_ecg(values: np.ndarray) -> str:
    """Return why a column of a table cannot be an ECG.

    Times and counters hardly ever fall, except where they wrap. A constant column can be an ECG: a flat lead.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (n,), NaN where missing.

    Returns
    -------
    str
        The reason, worded to follow the column's name in a message; empty if the column can be an ECG.
    """
    finite = np.isfinite(values)
    values = values if finite.all() else values[finite]
    if len(values) < MIN_VALUES:
        return ""
    with np.errstate(over="ignore", invalid="ignore"):
        span = float(np.ptp(values))
        if not 0 < span < np.inf:
            return ""
        for sign, (onward, backward) in ((1, ("rises", "falls")), (-1, ("falls", "rises"))):
            wraps = small = rises = 0
            fallen = risen = 0.0
            lowest, highest = np.inf, 0.0
            for steps in _steps(values):  # in blocks, to save memory
                steps = sign * steps
                falls = steps[steps < 0]
                wrapped = falls <= -WRAP_FALL * span
                wraps += int(wrapped.sum())
                small += int((~wrapped).sum())
                fallen -= float(falls[~wrapped].sum())
                risen += float(steps[steps > 0].sum())
                rises += int((steps > 0).sum())
                lowest, highest = min(lowest, float(steps.min())), max(highest, float(steps.max()))
            rare = small <= MAX_RARE_FALLS * rises  # few falls, of any size
            if not rises or not (rare or (small <= MAX_FALLS * len(values) and fallen <= MAX_TOTAL_FALL * risen)):
                continue
            if wraps:
                if rises > 2 * wraps:
                    return "restarts repeatedly, so it is a counter, not an ECG"
                continue
            even = lowest > 0 and highest - lowest <= MAX_STEP_SPREAD * span / (len(values) - 1)
            how = f"{onward} evenly" if even else f"{'hardly ' if small else 'n'}ever {backward}"
            return f"{how}, so it is a time or a counter, not an ECG"
    return ""


def _steps(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the differences from each value to the next, in blocks."""
    for first in range(0, len(values) - 1, BLOCK_VALUES):
        yield np.diff(values[first : first + BLOCK_VALUES + 1])


def choose_columns(
    path: Path,
    names: Sequence[str],
    columns: Mapping[int, np.ndarray],
    excluded: Mapping[int, str],
    leads: Sequence[str] | None,
) -> list[int]:
    """Choose the columns of a table that are its leads.

    Parameters
    ----------
    path : pathlib.Path
        The file, for messages.
    names : sequence of str
        Names of all columns; empty where the table gives none.
    columns : mapping of int to numpy.ndarray
        Values of the columns of numbers, by column index.
    excluded : mapping of int to str
        Why each of the other columns cannot be an ECG, by column index.
    leads : sequence of str or None
        The requested leads.

    Returns
    -------
    list of int
        Indices of the requested leads. If `leads` is None, the columns with the name of an ECG. If no column has the
        name of an ECG, all columns that can be an ECG.

    Raises
    ------
    ValueError
        If a requested lead does not exist; if a requested column, or a column with the name of an ECG, cannot be an
        ECG; or if no column can be an ECG.
    """
    filled = lead_names(names)
    reasons = dict(excluded)
    for i, values in columns.items():
        if names[i] and re.split(r"[\W_]+", names[i].lower().lstrip("# "))[0] in TIME_NAMES:
            reasons[i] = "is not an ECG lead"
        elif reason := why_not_ecg(values):
            reasons[i] = reason
    possible = [i for i in range(len(names)) if i not in reasons]
    if leads is None:
        # If no name says ECG, a column that looks like time may be a drifting lead, so the error asks for a choice.
        doubtful = [i for i in reasons if i in columns and not is_time_name(names[i], unit_of(names[i]))]
        labelled = [i for i in range(len(names)) if is_ecg(names[i])]
        chosen = labelled or sorted({*possible, *doubtful}) or [i for i in reasons if reasons[i] != EMPTY]
    else:
        chosen = find_columns(path, filled, leads)
    for i in chosen:
        if i in reasons:
            others = listed([filled[k] for k in possible])
            ask = f"choose a lead with leads= (--lead) from {others}" if possible else "no other column can be an ECG"
            raise ValueError(f"{path}: column {quoted(filled[i])} {reasons[i]}; {ask}")
    return chosen


def unit_of(name: str) -> str:
    """Return the unit at the end of a column's name, such as "mV" in "ECG (mV)" or "ECG_mV"; empty if there is none."""
    if match := re.fullmatch(r"[(\[]?([^\s()\[\]]+)[)\]]", name.strip()) or re.search(
        r"[(\[]\s*([^()\[\]]+?)\s*[)\]]\W*$", name
    ):
        return match[1]
    words = [word for word in re.split(r"[\s_/,:|.-]+", name.strip()) if word]
    last = words[-1] if words else ""
    # In "Lead V", "V" is a lead, not a unit.
    bare = last.casefold() == "v" and not re.search(r"[_/]\s*v$", name.strip(), re.IGNORECASE)
    return "" if bare or last.casefold() not in VOLTAGE_UNITS.keys() | TIME_UNITS.keys() else last


def check_voltage(path: Path, name: str, unit: str, given: str) -> None:
    """Raise ValueError if the unit of a column is not `given`, the unit that the caller gave."""
    said = unit.strip("()[] ").casefold()
    if (said in VOLTAGE_UNITS and VOLTAGE_UNITS[said] != MV_PER_UNIT[given]) or said in OTHER_UNITS:
        raise ValueError(
            f"{path}: column {quoted(name)} is in {unit.strip('()[] ')} according to its header, but units= "
            f"(--units) is {given!r}; give the right unit, or correct the header if it is wrong"
        )


def is_time_name(name: str, unit: str) -> bool:
    """Return whether the name or unit of a column says that it is a time."""
    said = name.lower()
    return unit.strip("()[] ").lower() in TIME_UNITS or bool(
        re.search(r"time|zeit|temps|tiempo|tempo|clock|elapsed|epoch|date", said)
        or re.split(r"[\W_]+", said.lstrip("# "))[0] == "t"
    )


def check_clock(path: Path, name: str, times: np.ndarray, unit: str, fs: float, first_line: int) -> None:
    """Raise ValueError if a column of times has a gap, or contradicts the sampling rate that the caller gave.

    Parameters
    ----------
    path, name : pathlib.Path, str
        The file and the column, for messages.
    times : numpy.ndarray
        Values of the column, shape (n,), NaN where missing. Values that fall too far to be times are not checked.
    unit : str
        Unit of the column; if empty, any unit of time is possible.
    fs : float
        The sampling rate in Hz that the caller gave.
    first_line : int
        The line of the first value, for messages.
    """
    finite = np.isfinite(times)
    at = np.arange(len(times), dtype=np.int32) if finite.all() else np.flatnonzero(finite)
    steps = np.diff(times if finite.all() else times[at])
    rising = steps > 0
    some = steps[:BLOCK_VALUES][rising[:BLOCK_VALUES]]
    fallen = -steps[steps < 0].sum()
    if len(some) < MIN_RISES or fallen > MAX_TOTAL_FALL * (steps.sum() + fallen):
        return
    usual = float(np.median(some))
    largest = int(np.argmax(steps))
    if steps[largest] > GAP_STEPS * usual:
        before, after = times[at[largest]], times[at[largest + 1]]
        raise ValueError(
            f"{path}: column {quoted(name)} jumps from {before:.15g} to {after:.15g} at line "
            f"{first_line + at[largest + 1]}, but usually rises by {usual:.6g}: samples are missing there. Insert "
            "lines with nan, or save each part in a separate file"
        )
    # Measured from the first rise to the last, because several samples may have the same time stamp.
    first, last = at[int(np.argmax(rising)) + 1], at[len(rising) - int(np.argmax(rising[::-1]))]
    samples, elapsed = int(last) - int(first), float(times[last] - times[first])
    unit_s = TIME_UNITS.get(unit.strip("()[] ").lower())
    if unit_s is None and (some == np.round(some)).all() and not is_time_name(name, ""):
        return  # it may count samples, packets or ticks
    if unit_s is None and usual == 1 == steps[largest]:
        return
    tolerance = RATE_TOLERANCE + 2 * float(steps[largest]) / elapsed
    rates = [samples / elapsed / one for one in ([unit_s] if unit_s else sorted({*TIME_UNITS.values()}))]
    if all(abs(rate / fs - 1) > tolerance for rate in rates):
        rate = min(rates, key=lambda rate: abs(math.log(rate / fs)))
        raise ValueError(
            f"{path}: column {quoted(name)} says {rate:.6g} Hz, but fs= (--fs) is {fs:g} Hz; give the "
            "right sampling rate, or remove the column if it is wrong"
        )
