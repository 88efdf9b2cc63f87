"""Code that all readers share: channels, the choice of leads, and errors."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_shock.data.lead_labels import MAX_LISTED, choose_lead, is_ecg, listed, quoted
from ecg_shock.data.recordings import MV_PER_UNIT, Recording, check_fs

logger = logging.getLogger(__name__)

WHAT_TO_DO = "Compare the file with its source, and copy or download it again."

# Voltage units in lower case, with "u" for both micro signs. For "mcV" and "MV" the caller has to give the unit.
VOLTAGE_UNIT = re.compile(r"(milli|micro|nano|[mun])?[ -]?v(?:olts?)?")
MV_PER_PREFIX = {"": 1e3, "m": 1.0, "milli": 1.0, "u": 1e-3, "micro": 1e-3, "n": 1e-6, "nano": 1e-6}


@dataclass(frozen=True)
class Channel:
    """The header's description of one signal.

    Parameters
    ----------
    name : str
        Name, unique in the file.
    unit : str
        Unit as the file writes it.
    mv_per_unit : float or None
        Factor to mV; None if the unit is not known to be a voltage.
    fs : float
        Sampling rate in Hz.
    n_samples : int
        Length of the signal.
    problem : Exception, optional
        If the channel cannot be read: the exception that is raised when the channel is requested.
    """

    name: str
    unit: str
    mv_per_unit: float | None
    fs: float
    n_samples: int
    problem: Exception | None = None


class SignalFile(ABC):
    """An open WFDB, EDF or BDF recording. Its samples stay on disk until they are read.

    Attributes
    ----------
    path : pathlib.Path
        The file, or the header of the record.
    channels : tuple of Channel
        All signals of the file, including those that are not voltages.
    """

    path: Path
    channels: tuple[Channel, ...]

    @abstractmethod
    def read(self, channels: Sequence[int], first: int, last: int) -> np.ndarray:
        """Return the samples from `first` to `last` (exclusive) in mV, float32, shape (last - first, n_channels).

        `channels` are indices in `self.channels`; these channels must have the same sampling rate.
        """

    def warn(self, channels: Sequence[int]) -> None:  # noqa: B027, most formats have no warnings
        """Log warnings about these channels."""

    def pieces(self, channels: Sequence[int], samples: int) -> Iterator[np.ndarray]:
        """Yield the channels from beginning to end, at most `samples` samples at a time, as `read` returns them.

        Raise ValueError at the end if the samples do not match a checksum in the header.
        """
        length = self.channels[channels[0]].n_samples
        for first in range(0, length, samples):
            yield self.read(channels, first, min(first + samples, length))


@contextmanager
def explain_damage(path: Path, kind: str) -> Iterator[None]:
    """Convert the exceptions that a library raises for a damaged file to a ValueError that names the file."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split())
        cause = f"{cause[:100]}…" if len(cause) > 100 else cause
        raise ValueError(f"{path} cannot be read as {kind}: {cause or 'it is damaged'}. {WHAT_TO_DO}") from error


def mv_per_unit(unit: str, units: str | None = None) -> float | None:
    """Return the factor that converts values in the file's `unit` to mV, or None if `unit` is not a voltage.

    If the file gives no unit, or an unknown unit that may be a voltage, such as "mcV", the caller's `units` are used.
    """
    known = VOLTAGE_UNIT.fullmatch(unit.lower().replace("\u00b5", "u").replace("\u03bc", "u"))
    if known and not (known[1] == "m" and unit[0] == "M"):
        return MV_PER_PREFIX[known[1] or ""]
    return MV_PER_UNIT[units] if units is not None and may_be_voltage(unit) else None


def may_be_voltage(unit: str) -> bool:
    """Return whether a unit is missing, or may be a voltage in an unknown spelling."""
    return unit == "" or re.fullmatch(r"[^\W\d_]{0,5}\.?v(olts?)?", unit.lower()) is not None


def choose_channels(file: SignalFile, leads: Sequence[str] | None) -> list[int]:
    """Return the channel indices of these leads in this order, or of all readable voltages if `leads` is None.

    Raise ValueError if a lead is unknown or not a voltage, or if there is no voltage. Raise the `problem` of a
    requested channel that cannot be read. If `leads` is None, and no channel with the name of an ECG can be read, raise
    the `problem` of the first, because a channel with another name must not replace an ECG.
    """
    names = [channel.name for channel in file.channels]
    if leads is not None:
        chosen = find_columns(file.path, names, leads)
        for i in chosen:
            if (problem := _find_problem(file, i)) is not None:
                raise problem
        return chosen
    problems = [_find_problem(file, i) for i in range(len(names))]
    # Channels that are clearly not voltages, such as a pressure, need no warning.
    reported = [each for each, channel in zip(problems, file.channels, strict=True) if each and _is_voltage(channel)]
    if None not in problems:
        raise next(iter(reported or filter(None, problems)), ValueError(f"{file.path} has no signals. {WHAT_TO_DO}"))
    chosen = [i for i, problem in enumerate(problems) if problem is None]
    if not any(is_ecg(names[i]) for i in chosen):
        for channel, problem in zip(file.channels, problems, strict=True):
            if problem is not None and is_ecg(channel.name) and _is_voltage(channel):
                raise problem
    for problem in reported:
        logger.warning("a channel is excluded: %s", problem)
    return chosen


def choose_channel(file: SignalFile, lead: str | None) -> int:
    """Return the channel index of the lead to classify; see `ecg_shock.data.lead_labels.choose_lead`."""
    if lead is not None:
        return choose_channels(file, [lead])[0]
    chosen = choose_channels(file, None)
    return chosen[choose_lead([file.channels[i].name for i in chosen], None, file.path)]


def _is_voltage(channel: Channel) -> bool:
    """Return whether a channel is a voltage or may be a voltage."""
    return channel.mv_per_unit is not None or may_be_voltage(channel.unit)


def _find_problem(file: SignalFile, i: int) -> Exception | None:
    """Return the exception to raise if a channel cannot be read in mV, or None if it can be read."""
    channel = file.channels[i]
    if channel.problem is not None:
        return channel.problem
    if channel.mv_per_unit is not None:
        return None
    if may_be_voltage(channel.unit):
        what = f"the unknown unit {quoted(channel.unit)}" if channel.unit else "no unit"
        return ValueError(
            f"{file.path}: channel {quoted(channel.name)} has {what}; give the unit with units= (--units), such as 'uV'"
        )
    first = [f"{c.name} in {c.unit or 'no unit'}" for c in file.channels[:MAX_LISTED]]
    channels = listed(first, len(file.channels))
    return ValueError(
        f"{file.path} has no ECG: its channels are {channels}, but the unit of an ECG must be one of "
        f"{tuple(MV_PER_UNIT)}"
    )


def check_agreement(file: SignalFile, chosen: Sequence[int], fs: float | None, units: str | None) -> None:
    """Raise ValueError if the chosen channels differ in sampling rate or length, or do not match `fs` or `units`."""
    channels = [file.channels[i] for i in chosen]
    rates = [channel.fs for channel in channels]
    if len(set(rates)) > 1:
        raise ValueError(
            f"{file.path} has leads with sampling rates of {sorted(set(rates))} Hz; choose leads of one rate with "
            f"leads= (--lead) from {listed([channel.name for channel in channels])}"
        )
    if len({channel.n_samples for channel in channels}) > 1:
        raise ValueError(f"{file.path} has leads of different lengths. {WHAT_TO_DO}")
    check_fs(rates[0], f"{file.path}: ")
    if fs is not None and fs != rates[0]:
        raise ValueError(f"{file.path} has a sampling rate of {rates[0]} Hz, but fs= (--fs) is {fs!r}; remove fs")
    if units is not None and any(channel.mv_per_unit != MV_PER_UNIT[units] for channel in channels):
        found = sorted({channel.unit for channel in channels})
        raise ValueError(f"{file.path} is in {found}, but units= (--units) is {units!r}; remove units")


def lead_names(names: Sequence[str | None]) -> list[str]:
    """Return unique names: an empty name becomes the column number, and a repeated "ECG" becomes "ECG-2"."""
    filled = [(name or "").strip() or str(column) for column, name in enumerate(names, 1)]
    seen: Counter[str] = Counter()
    unique: dict[str, None] = {}
    for name in filled:
        seen[name] += 1
        numbered = name if seen[name] == 1 else f"{name}-{seen[name]}"
        while numbered in unique:  # "ECG", "ECG-2" and "ECG"
            seen[name] += 1
            numbered = f"{name}-{seen[name]}"
        unique[numbered] = None
    return list(unique)


def find_columns(path: Path, names: Sequence[str], leads: Sequence[str]) -> list[int]:
    """Return the positions of these leads in `names`, in this order; raise ValueError for an unknown lead."""
    unknown = [lead for lead in leads if lead not in names]
    if unknown or not leads:
        raise ValueError(f"{path} has no leads {listed(unknown)}; choose from {listed(names)}")
    return [names.index(lead) for lead in leads]


def to_float32(path: Path, mv: np.ndarray) -> np.ndarray:
    """Return a signal in mV as float32; raise ValueError if it has infinite values."""
    with np.errstate(over="ignore"):
        mv = mv.astype(np.float32, copy=False)
    if np.isinf(mv).any():
        raise ValueError(f"{path} holds infinite values; save missing samples as NaN, and check the unit")
    return mv


def build_recording(path: Path, signal: np.ndarray, fs: float, names: Sequence[str]) -> Recording:
    """Build a recording from a signal in mV; raise ValueError if it is empty or has infinite values."""
    if signal.size == 0:
        raise ValueError(f"{path} holds no samples. {WHAT_TO_DO}")
    return Recording(signal=to_float32(path, signal), fs=float(fs), leads=tuple(names), name=path.stem)
