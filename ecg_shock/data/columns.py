"""Which columns of a table can be an ECG, and whether the table contradicts the rate and unit that the caller gave."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ecg_shock.data.lead_labels import is_ecg, listed, quoted
from ecg_shock.data.reading import lead_names
from ecg_shock.data.recordings import MV_PER_UNIT

# First words of a name, so that "time_s" and "Time (ms)" count too.
TIME_NAMES = frozenset({"time", "t", "timestamp", "seconds", "sample", "samples", "index"})
MIN_VALUES = 3  # two of a lead rise as often as they fall
EVEN_STEPS = 0.5  # 1/360 s written to three decimals has steps of 0.002 and 0.003 s

# Clocks that jitter, and packets that overtake each other, go back now and then, but not far. An ECG falls as far as it
# rises, but for its baseline.
MAX_FALLS = 0.1  # of the steps
MAX_FALLEN = 0.05  # of what it rises
MAX_SET_BACK = 0.02  # of the rises: a clock is set back seldom
BLOCK = 2**20  # values
WRAP = 0.5  # of the range: a counter falls by nearly all of it

# Of a clock and the sampling rate: both are nominal, and time is rounded, or jitters.
RATE_TOLERANCE = 0.02
GAP_STEPS = 5  # usual steps of a clock that are missing samples
MIN_RISES = 10  # of a clock that says a rate

SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "sek", "sekunden"), 1.0),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds", "millisekunden"), 1e-3),
    **dict.fromkeys(("us", "\u00b5s", "\u03bcs", "usec", "micros", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("min", "minutes"), 60.0),
    **dict.fromkeys(("h", "hours"), 3600.0),
    "days": 86400.0,
}
VOLTS = {unit.casefold(): mv for unit, mv in MV_PER_UNIT.items()} | {"nv": 1e-6, "kv": 1e6}
VOLTS |= {"millivolts": 1.0, "millivolt": 1.0, "microvolts": 1e-3, "microvolt": 1e-3, "volts": 1e3, "volt": 1e3}
NO_VOLTS = frozenset(
    {"adu", "adc", "count", "counts", "lsb", "digits", "raw", "a.u.", "au", "%", "g", "bpm", "\u00b0c"}
)

EMPTY = "is empty"  # a column behind a delimiter that ends each row


def never_falls(values: np.ndarray) -> np.ndarray:
    """Say of each row whether it rises at most of its samples and falls at none, as time does and no ECG.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (n_rows, n), NaN where invalid.

    Returns
    -------
    numpy.ndarray
        Shape (n_rows,), booleans.
    """
    n = values.shape[1]
    if n < MIN_VALUES:
        return np.zeros(len(values), dtype=bool)
    head = values[:, :33]
    found = np.asarray(~(head[:, 1:] < head[:, :-1]).any(axis=1))  # few are left
    rows = np.flatnonzero(found)
    if len(rows):
        before, after = values[rows, :-1], values[rows, 1:]
        found[rows] = ~(after < before).any(axis=1) & ((after > before).sum(axis=1) > n / 2)
    return found


def why_no_lead(values: np.ndarray) -> str:
    """Say why a column of a table cannot be an ECG, or nothing if it can.

    Time and counts never fall, or fall by their whole range where they wrap. A constant column is a flat lead.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (n,), NaN where missing.

    Returns
    -------
    str
        A reason that follows the name of the column in a message, or nothing.
    """
    finite = np.isfinite(values)
    values = values if finite.all() else values[finite]
    if len(values) < MIN_VALUES:
        return ""
    with np.errstate(over="ignore", invalid="ignore"):
        span = float(np.ptp(values))
        if not 0 < span < np.inf:
            return ""
        for sign, (forth, back) in ((1, ("rises", "falls")), (-1, ("falls", "rises"))):
            wraps = small = rises = 0
            fallen = risen = 0.0
            lowest, highest = np.inf, 0.0
            for steps in _steps(values):  # a day need not be in memory twice
                steps = sign * steps
                falls = steps[steps < 0]
                wrapped = falls <= -WRAP * span
                wraps += int(wrapped.sum())
                small += int((~wrapped).sum())
                fallen -= float(falls[~wrapped].sum())
                risen += float(steps[steps > 0].sum())
                rises += int((steps > 0).sum())
                lowest, highest = min(lowest, float(steps.min())), max(highest, float(steps.max()))
            rare = small <= MAX_SET_BACK * rises  # however far
            if not rises or not (rare or (small <= MAX_FALLS * len(values) and fallen <= MAX_FALLEN * risen)):
                continue
            if wraps:
                if rises > 2 * wraps:
                    return "begins again and again, as a counter does and no ECG"
                continue
            even = lowest > 0 and highest - lowest <= EVEN_STEPS * span / (len(values) - 1)
            how = f"{forth} evenly" if even else f"{'hardly ' if small else 'n'}ever {back}"
            return f"{how}, as time and counts do and no ECG"
    return ""


def _steps(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the differences from each value to the next, in blocks."""
    for first in range(0, len(values) - 1, BLOCK):
        yield np.diff(values[first : first + BLOCK + 1])


def choose_columns(
    path: Path,
    names: Sequence[str],
    columns: Mapping[int, np.ndarray],
    no_leads: Mapping[int, str],
    leads: Sequence[str] | None,
) -> list[int]:
    """Choose the columns of a table that are its leads.

    Parameters
    ----------
    path : pathlib.Path
        The file, for messages.
    names : sequence of str
        What the table calls its columns; empty where it does not.
    columns : mapping
        The columns that hold numbers, by their position.
    no_leads : mapping
        Why other columns cannot be an ECG, by their position.
    leads : sequence of str or None
        The leads that were asked for.

    Returns
    -------
    list of int
        Those asked for, else those whose names say ECG, else all that can be an ECG.

    Raises
    ------
    ValueError
        If one that was asked for is not there, or one that was asked for or is named as an ECG cannot be one, or if no
        column can.
    """
    filled = lead_names(names)
    reasons = dict(no_leads)
    for i, values in columns.items():
        if names[i] and re.split(r"[\W_]+", names[i].lower().lstrip("# "))[0] in TIME_NAMES:
            reasons[i] = "is no ECG lead"
        elif reason := why_no_lead(values):
            reasons[i] = reason
    possible = [i for i in range(len(names)) if i not in reasons]
    if leads is None:
        # Where no name says ECG, a column that only looks like time may be a lead that drifts: better ask.
        doubtful = [i for i in reasons if i in columns and not is_time_name(names[i], unit_of(names[i]))]
        labelled = [i for i in range(len(names)) if is_ecg(names[i])]
        chosen = labelled or sorted({*possible, *doubtful}) or [i for i in reasons if reasons[i] != EMPTY]
    else:
        chosen = find_columns(path, filled, leads)
    for i in chosen:
        if i in reasons:
            others = listed([filled[k] for k in possible])
            ask = f"choose with leads= (--lead) from {others}" if possible else "no other column is left"
            raise ValueError(f"{path}: column {quoted(filled[i])} {reasons[i]}; {ask}")
    return chosen


def find_columns(path: Path, names: Sequence[str], leads: Sequence[str]) -> list[int]:
    """Return the columns of these leads in this order; raise ValueError for an unknown name."""
    unknown = [lead for lead in leads if lead not in names]
    if unknown or not leads:
        there = listed([str(lead) for lead in unknown])
        raise ValueError(f"{path} has no leads {there}; choose from {listed(names)}")
    return [names.index(lead) for lead in leads]


def unit_of(name: str) -> str:
    """Return the unit that ends the name of a column, such as "mV" of "ECG (mV)", "ECG_mV" or "mV", or nothing."""
    if match := re.fullmatch(r"[(\[]?([^\s()\[\]]+)[)\]]", name.strip()) or re.search(
        r"[(\[]\s*([^()\[\]]+?)\s*[)\]]\W*$", name
    ):
        return match[1]
    words = [word for word in re.split(r"[\s_/,:|.-]+", name.strip()) if word]
    last = words[-1] if words else ""
    # A "V" behind a space, as in "Lead V", is rather a lead.
    bare = last.casefold() == "v" and not re.search(r"[_/]\s*v$", name.strip(), re.IGNORECASE)
    return "" if bare or last.casefold() not in VOLTS.keys() | SECONDS.keys() else last


def check_voltage(path: Path, name: str, unit: str, given: str) -> None:
    """Raise ValueError if a column says another unit than the caller."""
    said = unit.strip("()[] ").casefold()
    if (said in VOLTS and VOLTS[said] != MV_PER_UNIT[given]) or said in NO_VOLTS:
        raise ValueError(
            f"{path}: column {quoted(name)} is in {unit.strip('()[] ')} by its header, not in {given!r}; give the unit "
            "that is right, and correct the header if that is wrong"
        )


def is_time_name(name: str, unit: str) -> bool:
    """Say whether the name or unit of a column says that it is time."""
    said = name.lower()
    return unit.strip("()[] ").lower() in SECONDS or bool(
        re.search(r"time|zeit|temps|tiempo|tempo|clock|elapsed|epoch|date", said)
        or re.split(r"[\W_]+", said.lstrip("# "))[0] == "t"
    )


def check_clock(path: Path, name: str, times: np.ndarray, unit: str, fs: float, first_line: int) -> None:
    """Raise ValueError if a column of time has a gap, or says another sampling rate than the caller.

    Parameters
    ----------
    path, name : pathlib.Path, str
        The file and the column, for messages.
    times : numpy.ndarray
        Shape (n,), NaN where missing. If it falls as a lead does, or as a counter that wraps, it says nothing.
    unit : str
        Its unit, or nothing if that is not known: then it may be any.
    fs : float
        The sampling rate in Hz that the caller gave.
    first_line : int
        The line of the first value, for messages.
    """
    finite = np.isfinite(times)
    at = np.arange(len(times), dtype=np.int32) if finite.all() else np.flatnonzero(finite)
    steps = np.diff(times if finite.all() else times[at])
    rising = steps > 0
    some = steps[:BLOCK][rising[:BLOCK]]
    fallen = -steps[steps < 0].sum()
    if len(some) < MIN_RISES or fallen > MAX_FALLEN * (steps.sum() + fallen):
        return
    usual = float(np.median(some))
    largest = int(np.argmax(steps))
    if steps[largest] > GAP_STEPS * usual:
        before, after = times[at[largest]], times[at[largest + 1]]
        raise ValueError(
            f"{path}: column {quoted(name)} leaps from {before:.15g} to {after:.15g} at line "
            f"{first_line + at[largest + 1]}, and rises by {usual:.6g} elsewhere: samples are missing there. Put nan "
            "in their place, or save the parts one by one"
        )
    # From one rise to another, since many samples may share a stamp.
    first, last = at[int(np.argmax(rising)) + 1], at[len(rising) - int(np.argmax(rising[::-1]))]
    samples, elapsed = int(last) - int(first), float(times[last] - times[first])
    unit_s = SECONDS.get(unit.strip("()[] ").lower())
    if unit_s is None and (some == np.round(some)).all() and not is_time_name(name, ""):
        return  # it may count samples, packets or ticks
    if unit_s is None and usual == 1 == steps[largest]:
        return
    tolerance = RATE_TOLERANCE + 2 * float(steps[largest]) / elapsed
    rates = [samples / elapsed / one for one in ([unit_s] if unit_s else sorted({*SECONDS.values()}))]
    if all(abs(rate / fs - 1) > tolerance for rate in rates):
        rate = min(rates, key=lambda rate: abs(math.log(rate / fs)))
        raise ValueError(
            f"{path}: column {quoted(name)} says {rate:.6g} Hz, not the {fs:g} Hz of fs= (--fs); give the "
            "rate that is right, or remove the column if it is wrong"
        )
