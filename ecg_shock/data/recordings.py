"""Recordings in mV, with labelled episodes and beats."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ecg_shock.data.lead_labels import choose_lead

# The three spellings of microvolt are ASCII, the micro sign and the Greek letter.
MV_PER_UNIT = {"mV": 1.0, "uV": 1e-3, "\u00b5V": 1e-3, "\u03bcV": 1e-3, "V": 1e3}


@dataclass(frozen=True)
class Episode:
    """A labelled segment of a recording.

    Parameters
    ----------
    start_s, end_s : float
        Seconds from the start of the recording; `end_s` is exclusive.
    rhythm : str
        A name of `ecg_shock.rhythms.RHYTHMS`, or of `ecg_shock.rhythms.UNUSABLE`.
    code : str
        The label as the database writes it.
    aha_class : str
        The AHA class that a human reader gave the whole segment (see `ecg_shock.data.corrections`); empty if the class
        follows from the rhythm, with the limits of amplitude and rate.
    """

    start_s: float
    end_s: float
    rhythm: str
    code: str = ""
    aha_class: str = ""


@dataclass(frozen=True, eq=False)
class Recording:
    """An ECG recording in mV.

    Parameters
    ----------
    signal : numpy.ndarray
        Shape (n_samples, n_leads), float, mV; NaN where the recorder had no valid sample.
    fs : float
        Sampling rate in Hz.
    leads : tuple of str
        One name for each column of `signal`.
    name, database, patient : str
        Name of the WFDB record or file, name of its database, and name of its patient.
    episodes : tuple of Episode
        Labelled segments in order of time.
    beats_s : numpy.ndarray
        Times of the annotated beats in seconds, shape (n_beats,).
    beat_codes : tuple of str
        The WFDB code of each beat, such as ``"N"`` or ``"V"``.

    Raises
    ------
    TypeError
        If the signal is not an array of floats, or `fs` is not a number.
    ValueError
        If the signal is empty or not two-dimensional, `fs` is not above 0, the number of leads or beat codes
        is wrong, or episodes overlap.

    Examples
    --------
    >>> Recording(np.zeros((500, 2), np.float32), fs=250, leads=("II", "V5")).duration_s
    2.0
    """

    signal: np.ndarray
    fs: float
    leads: tuple[str, ...]
    name: str = ""
    database: str = ""
    patient: str = ""
    episodes: tuple[Episode, ...] = ()
    beats_s: np.ndarray = field(default_factory=lambda: np.empty(0))
    beat_codes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.signal, np.ndarray) or not np.issubdtype(self.signal.dtype, np.floating):
            kind = getattr(self.signal, "dtype", type(self.signal).__name__)
            raise TypeError(f"signal is {kind}; give a float array in mV, shape (n_samples, n_leads)")
        if self.signal.ndim != 2 or self.signal.size == 0:
            raise ValueError(f"signal has shape {self.signal.shape}; give (n_samples, n_leads), at least (1, 1)")
        check_fs(self.fs)
        if len(self.leads) != self.signal.shape[1]:
            raise ValueError(
                f"signal has {self.signal.shape[1]} columns, but leads {self.leads!r} has {len(self.leads)} names; "
                "give one name per column"
            )
        if len(self.beats_s) != len(self.beat_codes):
            raise ValueError(
                f"beats_s has {len(self.beats_s)} beats, but beat_codes has {len(self.beat_codes)}; give one code "
                "per beat"
            )
        for episode, following in zip(self.episodes, self.episodes[1:], strict=False):
            if episode.end_s > following.start_s:
                raise ValueError(f"{episode!r} overlaps {following!r}; give episodes in order, without overlap")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.signal) / self.fs

    def strip(self, start_s: float, length_s: float, lead: str | None = None) -> Recording:
        """Cut a strip of one lead, for `ecg_shock.predict`.

        Parameters
        ----------
        start_s, length_s : float
            Start and length of the strip in seconds.
        lead : str, optional
            Name of the lead. By default, the first lead whose name says that it is an ECG, or the only lead.

        Returns
        -------
        Recording
            One lead, without episodes and beats.

        Raises
        ------
        ValueError
            If the strip is not within the recording, the lead does not exist, or no name says which of several leads
            is the ECG.

        Examples
        --------
        >>> recording = Recording(np.zeros((5000, 2)), fs=250, leads=("II", "V5"))
        >>> recording.strip(3, 5, lead="V5").duration_s
        5.0
        """
        column = choose_lead(self.leads, lead, self.name or "the recording")
        first, last = strip_samples(start_s, length_s, self.fs, len(self.signal))
        return Recording(
            signal=self.signal[first:last, column : column + 1],
            fs=self.fs,
            leads=(self.leads[column],),
            name=self.name,
            database=self.database,
            patient=self.patient,
        )


def strip_samples(start_s: float, length_s: float, fs: float, n_samples: int) -> tuple[int, int]:
    """Return the index of a strip's first sample, and of the sample after its last.

    Raise ValueError if the strip is not within the recording.
    """
    outside = (
        f"a strip of {length_s:g} s that starts at {start_s:g} s is not within the recording, which lasts "
        f"{n_samples / fs:g} s; choose another start or length"
    )
    if not (math.isfinite(start_s) and math.isfinite(length_s)):
        raise ValueError(outside)
    first, samples = round(start_s * fs), round(length_s * fs)
    if first < 0 or samples < 1 or round((start_s + length_s) * fs) > n_samples:
        raise ValueError(outside)
    first = max(min(first, n_samples - samples), 0)  # both may have been rounded up
    return first, first + samples


def is_finite(number: Any) -> bool:
    """Return whether a number is finite as a float. An integer that is too large for a float is not finite."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def check_fs(fs: object, where: str = "") -> None:
    """Raise TypeError or ValueError if a sampling rate is not a number above 0; the message begins with `where`."""
    if not isinstance(fs, (int, float, np.integer, np.floating)) or isinstance(fs, bool):
        raise TypeError(f"{where}fs is {fs!r}; give the sampling rate as a number of Hz")
    if not (is_finite(fs) and fs > 0):
        raise ValueError(f"{where}fs is {fs!r}; give a sampling rate in Hz above 0")
