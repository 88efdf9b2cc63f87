"""What the readers of every file format share: channels and how they are chosen, and the errors."""

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

from ecg_shock.data.recordings import MAX_LISTED, MV_PER_UNIT, Recording, check_fs, choose_lead, is_ecg, listed, quoted

logger = logging.getLogger(__name__)

WHAT_TO_DO = "Compare it with its source, and copy or download it again."

# Spellings of voltages, in lower case and with u for the micro signs. "mcV" is left to the caller, and so is "MV",
# which would be a megavolt.
SPELLING = re.compile(r"(milli|micro|nano|[mun])?[ -]?v(?:olts?)?")
MV_PER_PREFIX = {"": 1e3, "m": 1.0, "milli": 1.0, "u": 1e-3, "micro": 1e-3, "n": 1e-6, "nano": 1e-6}


@dataclass(frozen=True)
class Channel:
    """One signal of a file, as its header describes it.

    Parameters
    ----------
    name : str
        Its name, which no other channel of the file has.
    unit : str
        Unit as the file writes it.
    mv_per_unit : float or None
        Factor to mV; None if the unit is no voltage, or not known to be one.
    fs : float
        Sampling rate in Hz.
    n_samples : int
        Length of the signal.
    problem : Exception, optional
        Why the channel cannot be read. It is raised if the channel is asked for, so that it does no harm to others.
    """

    name: str
    unit: str
    mv_per_unit: float | None
    fs: float
    n_samples: int
    problem: Exception | None = None


class SignalFile(ABC):
    """A recording that stays on disk: only its header was read.

    Attributes
    ----------
    path : pathlib.Path
        The file, or the header of the record.
    channels : tuple of Channel
        All signals, voltages or not.
    """

    path: Path
    channels: tuple[Channel, ...]

    @abstractmethod
    def read(self, channels: Sequence[int], first: int, last: int) -> np.ndarray:
        """Read samples `first` to `last` (exclusive) of channels of one rate: shape (n, n_channels), float32, mV."""

    def warn(self, channels: Sequence[int]) -> None:  # noqa: B027, for most formats there is nothing to say
        """Log what whoever reads these channels has to know."""

    def pieces(self, channels: Sequence[int], samples: int) -> Iterator[np.ndarray]:
        """Read channels of one rate from beginning to end, so many samples at once, and check the whole at the end."""
        length = self.channels[channels[0]].n_samples
        for first in range(0, length, samples):
            yield self.read(channels, first, min(first + samples, length))


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library raises over a damaged file into a ValueError that names the file.

    wfdb and NumPy raise IndexError, KeyError, struct.error, UserWarning and more over damaged files.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split())
        cause = f"{cause[:100]}…" if len(cause) > 100 else cause
        raise ValueError(f"{path} cannot be read as {kind}: {cause or 'it is damaged'}. {WHAT_TO_DO}") from error


def mv_per_unit(unit: str, units: str | None = None) -> float | None:
    """Return the factor from a unit as a file writes it to mV, or None if it is no voltage.

    `units`, what the caller says, stands in where the file gives no unit, or what may be a voltage in a spelling that
    is not known, such as "mcV".
    """
    spelling = SPELLING.fullmatch(unit.lower().replace("\u00b5", "u").replace("\u03bc", "u"))
    if spelling and not (spelling[1] == "m" and unit[0] == "M"):
        return MV_PER_PREFIX[spelling[1] or ""]
    return MV_PER_UNIT[units] if units is not None and may_be_voltage(unit) else None


def may_be_voltage(unit: str) -> bool:
    """Say whether a unit is missing, or unknown but no more than a spelling of a voltage."""
    return unit == "" or re.fullmatch(r"[^\W\d_]{0,5}\.?v(olts?)?", unit.lower()) is not None


def choose_channels(file: SignalFile, leads: Sequence[str] | None) -> list[int]:
    """Return the columns of these leads in this order, of all voltages that can be read by default.

    Raise what hinders reading one of them, and ValueError if there is none, an unknown one, or one is no voltage.
    """
    names = [channel.name for channel in file.channels]
    if leads is not None:
        chosen = choose_leads(file.path, names, leads)
        for i in chosen:
            if (hindrance := _hindrance(file, i)) is not None:
                raise hindrance
        return chosen
    hindrances = [_hindrance(file, i) for i in range(len(names))]
    # Of those that are voltages, or may be; that a pressure is none is no news.
    told = [each for each, channel in zip(hindrances, file.channels, strict=True) if each and _is_voltage(channel)]
    if None not in hindrances:
        raise next(iter(told or filter(None, hindrances)), ValueError(f"{file.path} has no signals. {WHAT_TO_DO}"))
    for hindrance in told:
        logger.warning("a channel is left out: %s", hindrance)
    return [i for i, hindrance in enumerate(hindrances) if hindrance is None]


def choose_channel(file: SignalFile, lead: str | None) -> int:
    """Return the column of the lead to classify, by the rule of `ecg_shock.data.recordings.choose_lead`.

    A lead whose name says nothing does not stand in for an ECG that cannot be read.
    """
    if lead is not None:
        return choose_channels(file, [lead])[0]
    chosen = choose_channels(file, None)
    if not any(is_ecg(file.channels[i].name) for i in chosen):
        for i, channel in enumerate(file.channels):
            if is_ecg(channel.name) and _is_voltage(channel) and (hindrance := _hindrance(file, i)) is not None:
                raise hindrance
    return chosen[choose_lead([file.channels[i].name for i in chosen], None, file.path)]


def _is_voltage(channel: Channel) -> bool:
    """Say whether a channel is a voltage, or may be one."""
    return channel.mv_per_unit is not None or may_be_voltage(channel.unit)


def _hindrance(file: SignalFile, i: int) -> Exception | None:
    """Return what hinders reading a channel in mV."""
    channel = file.channels[i]
    if channel.problem is not None:
        return channel.problem
    if channel.mv_per_unit is not None:
        return None
    if may_be_voltage(channel.unit):
        what = f"in {quoted(channel.unit)}, a unit that is not known" if channel.unit else "no unit"
        return ValueError(
            f"{file.path} gives {quoted(channel.name)} {what}; say the unit with units= (--units), such as 'uV'"
        )
    first = [f"{c.name} in {c.unit or 'no unit'}" for c in file.channels[:MAX_LISTED]]
    channels = listed(first, len(file.channels))
    return ValueError(f"{file.path} has the channels {channels}; ECG leads have to be in {tuple(MV_PER_UNIT)}")


def check_agreement(file: SignalFile, chosen: Sequence[int], fs: float | None, units: str | None) -> None:
    """Raise ValueError if chosen channels differ in rate or length, or from the rate or unit that the caller gave."""
    channels = [file.channels[i] for i in chosen]
    rates = [channel.fs for channel in channels]
    if len(set(rates)) > 1:
        raise ValueError(
            f"{file.path} has leads of different rates, {sorted(set(rates))} Hz; choose leads= (--lead) of one rate "
            f"from {listed([channel.name for channel in channels])}"
        )
    if len({channel.n_samples for channel in channels}) > 1:
        raise ValueError(f"{file.path} has leads of different lengths. {WHAT_TO_DO}")
    check_fs(rates[0], f"{file.path}: ")
    if fs is not None and fs != rates[0]:
        raise ValueError(f"{file.path} is sampled at {rates[0]} Hz by its header, not at {fs!r} Hz; leave fs out")
    if units is not None and any(channel.mv_per_unit != MV_PER_UNIT[units] for channel in channels):
        found = sorted({channel.unit for channel in channels})
        raise ValueError(f"{file.path} is in {found} by its header, not in {units!r}; leave units out")


def lead_names(names: Sequence[str | None]) -> list[str]:
    """Name the nameless by their column, and number those that share a name."""
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


def choose_leads(path: Path, names: Sequence[str], leads: Sequence[str] | None) -> list[int]:
    """Return the columns of these leads in this order, of all by default; raise ValueError for an unknown name."""
    if leads is None:
        return list(range(len(names)))
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
    """Build a recording of a signal in mV; raise ValueError if it is empty or has infinite values."""
    if signal.size == 0:
        raise ValueError(f"{path} holds no samples. {WHAT_TO_DO}")
    return Recording(signal=to_float32(path, signal), fs=float(fs), leads=tuple(names), name=path.stem)
