"""What the readers of every file format share: names of leads, checks against the arguments, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ecg_shock.data.recordings import MV_PER_UNIT, Recording, check_fs

WHAT_TO_DO = "Compare it with its source, and copy or download it again."


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library raises over a damaged file into a ValueError that names the file.

    wfdb, edfio and NumPy raise IndexError, KeyError, struct.error, UserWarning and more over damaged files.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path} cannot be read as {kind}: {error!r}. {WHAT_TO_DO}") from error


def check_agreement(
    path: Path, rates: Sequence[float], found_units: Sequence[str], fs: float | None, units: str | None
) -> None:
    """Raise ValueError if channels differ in rate, or from the rate or unit that the caller gave."""
    if len(set(rates)) > 1:
        raise ValueError(f"{path} has leads of different rates, {sorted(set(rates))} Hz; choose leads= of one rate")
    check_fs(rates[0], f"{path}: ")
    if fs is not None and fs != rates[0]:
        raise ValueError(f"{path} is sampled at {rates[0]} Hz by its header, not at {fs!r} Hz; leave fs out")
    if units is not None and any(MV_PER_UNIT[found] != MV_PER_UNIT[units] for found in found_units):
        raise ValueError(f"{path} is in {sorted(set(found_units))} by its header, not in {units!r}; leave units out")


def lead_names(names: Sequence[str | None]) -> list[str]:
    """Name the nameless by their column, and number those that share a name."""
    filled = [(name or "").strip() or str(column) for column, name in enumerate(names, 1)]
    seen: Counter[str] = Counter()
    unique = []
    for name in filled:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return unique


def choose_leads(path: Path, names: Sequence[str], leads: Sequence[str] | None) -> list[int]:
    """Return the columns of these leads in this order, of all by default; raise ValueError for an unknown name."""
    if leads is None:
        return list(range(len(names)))
    unknown = [lead for lead in leads if lead not in names]
    if unknown or not leads:
        raise ValueError(f"{path} has no leads {unknown}; choose from {list(names)}")
    return [names.index(lead) for lead in leads]


def choose_voltage_leads(
    path: Path, names: Sequence[str], units: Sequence[str], leads: Sequence[str] | None
) -> list[int]:
    """Return the columns of these leads that are in V, mV or µV; raise ValueError if there is none, or one is not."""
    chosen = [i for i in choose_leads(path, names, leads) if units[i] in MV_PER_UNIT]
    if not chosen or (leads is not None and len(chosen) < len(leads)):
        channels = dict(zip(names, units, strict=True))
        raise ValueError(f"{path} has channels in {channels}; ECG leads have to be in one of {tuple(MV_PER_UNIT)}")
    return chosen


def build_recording(path: Path, signal: np.ndarray, fs: float, names: Sequence[str]) -> Recording:
    """Build a recording of a signal in mV; raise ValueError if it is empty or has infinite values."""
    if signal.size == 0:
        raise ValueError(f"{path} holds no samples. {WHAT_TO_DO}")
    with np.errstate(over="ignore"):
        signal = signal.astype(np.float32)
    if np.isinf(signal).any():
        raise ValueError(f"{path} holds infinite values; save missing samples as NaN, and check the unit")
    return Recording(signal=signal, fs=float(fs), leads=tuple(names), name=path.stem)
