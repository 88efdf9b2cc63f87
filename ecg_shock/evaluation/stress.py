"""How advice bears noise, artefacts and what devices do to a signal.

Recorded strips are disturbed before anything else is done with them, and then predicted as any strip of a user's. An
unusable strip is advised no shock: that is wrong for a shockable rhythm and right for a nonshockable one, so that
a high specificity together with many unusable strips is no strength.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ecg_shock.data.noise import add_noise, compressions, draw_noise, mains, read_noise, resample
from ecg_shock.data.recordings import Recording
from ecg_shock.data.windows import WindowSet
from ecg_shock.evaluation.confidence import Proportion, proportion_of
from ecg_shock.evaluation.predictions import codes
from ecg_shock.inference.advisor import Advisor
from ecg_shock.preprocessing import hold_invalid
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE

SNR_DB = (24.0, 18.0, 12.0, 6.0, 0.0, -6.0)  # those of the records of nstdb, Moody et al. 1984
RECORDED_NOISE = {"bw": "baseline wander", "em": "electrode motion", "ma": "muscle noise"}  # by the record of nstdb
COMPRESSIONS_MV = (0.25, 0.5, 1.0, 2.0, 4.0)  # peak to peak, as all amplitudes here but those of clipping
MAINS_HZ = (50.0, 60.0)
MAINS_MV = (0.1, 0.5, 1.0, 2.0)
GAINS = (0.25, 0.5, 2.0, 4.0)
RATES_HZ = (125.0, 200.0, 250.0, 360.0, 500.0, 1000.0)
CLIPPING_MV = (5.0, 2.0, 1.0, 0.5)
MISSING = (0.05, 0.10, 0.20)
GAPS = 3  # in which samples are missing


@dataclass(frozen=True)
class StressPoint:
    """What an algorithm does on windows that were disturbed in one way, to one degree.

    Parameters
    ----------
    stress : str
        What was done, such as ``"electrode motion"``.
    level : str
        To which degree, as one reads it, such as ``"6 dB"``.
    value : float
        The same as a number, by which points of one stress are drawn in a line.
    sensitivity, specificity : Proportion
        Over the shockable and the nonshockable windows. An unusable window is advised no shock.
    unusable : int
        Windows that the rule for unusable strips refused.
    """

    stress: str
    level: str
    value: float
    sensitivity: Proportion
    specificity: Proportion
    unusable: int


@dataclass(frozen=True)
class Stress:
    """A way to disturb strips, to one degree.

    Parameters
    ----------
    stress, level, value
        As in `StressPoint`.
    disturb : callable
        Takes strips of shape (n_strips, n) in mV, their rate in Hz and a random generator; returns strips and their
        rate. Levels of one stress get generators in the same state, so that they differ in degree alone.
    """

    stress: str
    level: str
    value: float
    disturb: Callable[[np.ndarray, float, np.random.Generator], tuple[np.ndarray, float]]


def standard_stresses(folder: Path | None = None) -> tuple[Stress, ...]:
    """List the stresses that every model is put to: levels of one follow each other, the mildest first if in order.

    Recorded noise, modelled chest compressions, mains hum, gain, polarity, sampling rate, clipping and missing samples.
    `folder` is where the databases lie, nstdb among them; it is read when a stress is applied.
    """
    stresses = []
    for record, name in RECORDED_NOISE.items():
        stresses += [Stress(name, f"{snr:g} dB", snr, partial(_noisy, record, snr, folder)) for snr in SNR_DB]
    for level_mv in COMPRESSIONS_MV:
        disturb = partial(_compressed, level_mv)
        stresses.append(Stress("chest compressions (model)", f"{level_mv:g} mV", level_mv, disturb))
    for hz in MAINS_HZ:
        for level_mv in MAINS_MV:
            disturb = partial(_humming, hz, level_mv)
            stresses.append(Stress(f"mains hum, {hz:g} Hz", f"{level_mv:g} mV", level_mv, disturb))
    stresses += [Stress("amplitude", f"x {gain:g}", gain, partial(_scaled, gain)) for gain in GAINS]
    stresses.append(Stress("polarity", "inverted", -1.0, partial(_scaled, -1.0)))
    stresses += [Stress("sampling rate", f"{fs:g} Hz", fs, partial(_resampled, fs)) for fs in RATES_HZ]
    stresses += [Stress("clipping", f"±{limit:g} mV", limit, partial(_clipped, limit)) for limit in CLIPPING_MV]
    stresses += [Stress("missing samples", f"{share:.0%}", share, partial(_gapped, share)) for share in MISSING]
    return tuple(stresses)


class StressTest:
    """Measure how advice bears disturbances of the recorded signal, one recording at a time.

    The strip that each window was cut from is taken as recorded, disturbed, and given to `Advisor.predict_many`: filter
    and rule for unusable strips are those that a user meets.

    Parameters
    ----------
    advisor : Advisor
        The model. That it has not seen the windows' patients is for whoever loads them to check, as
        `ecg_shock.evaluation.evaluation_set.EvaluationSet.windows` does.
    windows : WindowSet
        Where to look, of clear classes, such as `sub_sample` draws.
    stresses : sequence of Stress
        Such as `standard_stresses`.
    seed : int
        Of every disturbance and of the patient bootstrap.

    Raises
    ------
    ValueError
        If there are no windows.
    """

    def __init__(self, advisor: Advisor, windows: WindowSet, stresses: Sequence[Stress], *, seed: int = 0) -> None:
        if not len(windows):
            raise ValueError("there are no windows of clear AHA classes; give at least one.")
        self._advisor, self._windows, self._seed = advisor, windows, seed
        self._stresses = (Stress("none", "", 0.0, _unchanged), *stresses)
        self._shock = np.zeros((len(self._stresses), len(windows)), dtype=bool)
        self._usable = np.zeros_like(self._shock)
        self._missing = np.ones(len(windows), dtype=bool)

    def add(self, recording: Recording) -> None:
        """Disturb the windows of a recording, if it has any; one that does not hold them is a ValueError."""
        windows = self._windows
        here = self._missing & (windows.database == recording.database) & (windows.record == recording.name)
        for lead in np.unique(windows.lead[here]).tolist():
            index = np.flatnonzero(here & (windows.lead == lead))
            strips = _strips(recording, lead, windows.start_s[index], windows.window_s)
            for i, stress in enumerate(self._stresses):
                place = f"{stress.stress}/{recording.database}/{recording.name}/{lead}"
                rng = np.random.default_rng([self._seed, zlib.crc32(place.encode())])
                advice = self._advisor.predict_many(*stress.disturb(strips, recording.fs, rng))
                self._shock[i, index] = [a.shock for a in advice]
                self._usable[i, index] = [a.usable for a in advice]
        self._missing &= ~here

    def points(self) -> tuple[StressPoint, ...]:
        """Count, once all recordings were added; a missing one is a ValueError.

        The undisturbed strips come first, called ``"none"``; then one for each stress, on the same windows.
        """
        windows, missing = self._windows, self._missing
        if missing.any():
            first = int(np.argmax(missing))
            raise ValueError(
                f"{missing.sum()} windows are of recordings that were not given, first "
                f"{windows.database[first]}/{windows.record[first]}; give all that the windows were cut from."
            )
        patient, shockable = codes(windows.patient), np.isin(windows.aha_class, SHOCKABLE)
        return tuple(
            StressPoint(
                stress=stress.stress,
                level=stress.level,
                value=float(stress.value),
                sensitivity=proportion_of(patient[shockable], shock[shockable], seed=self._seed),
                specificity=proportion_of(patient[~shockable], ~shock[~shockable], seed=self._seed),
                unusable=int((~usable).sum()),
            )
            for stress, shock, usable in zip(self._stresses, self._shock, self._usable, strict=True)
        )


def sub_sample(windows: WindowSet, at_most: int | None, seed: int) -> WindowSet:
    """Draw windows of clear classes, at most so many of each patient and AHA class, or all; their order stays."""
    clear = np.flatnonzero(np.isin(windows.aha_class, SHOCKABLE + NONSHOCKABLE))
    if at_most is None:
        return windows.select(clear)
    if at_most < 1:
        raise ValueError(f"at_most={at_most!r} leaves no window; allowed are 1 and more, or None for all.")
    order = np.random.default_rng(seed).permutation(clear)
    taken: Counter[tuple[str, str]] = Counter()
    picked = []
    for i in order.tolist():
        group = (str(windows.patient[i]), str(windows.aha_class[i]))
        taken[group] += 1
        if taken[group] <= at_most:
            picked.append(i)
    return windows.select(np.sort(np.array(picked, dtype=int)))


def _strips(recording: Recording, lead: str, start_s: np.ndarray, window_s: float) -> np.ndarray:
    """Cut the raw strips of windows, shape (n_strips, n), mV."""
    n = round(window_s * recording.fs)
    firsts = np.round(start_s * recording.fs).astype(int)
    if lead not in recording.leads or not ((firsts >= 0) & (firsts + n <= len(recording.signal) + 1)).all():
        raise ValueError(
            f"{recording.database}/{recording.name} has the leads {recording.leads!r} and {recording.duration_s:g} s, "
            f"and does not hold all windows of {lead!r}; give the recordings that the windows were cut from."
        )
    firsts = np.minimum(firsts, len(recording.signal) - n)  # both were rounded
    column = recording.signal[:, recording.leads.index(lead)].astype(np.float64)
    return column[firsts[:, None] + np.arange(n)]


def _unchanged(strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return strips, fs


def _noisy(
    record: str, snr_db: float, folder: Path | None, strips: np.ndarray, fs: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    noise = draw_noise(_noise_at(record, fs, folder), len(strips), strips.shape[1], rng)
    return add_noise(strips, noise, snr_db, fs), fs


@lru_cache(maxsize=8)
def _noise_at(record: str, fs: float, folder: Path | None) -> np.ndarray:
    """Keep the noise of a few rates: reading and resampling it takes longer than adding it."""
    return read_noise(record, fs, folder)


def _compressed(level_mv: float, strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return strips + level_mv * compressions(len(strips), strips.shape[1], fs, rng), fs


def _humming(
    hz: float, level_mv: float, strips: np.ndarray, fs: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    if hz >= fs / 2:
        return strips, fs  # a recorder's own filter keeps out what it cannot sample
    return strips + level_mv * mains(len(strips), strips.shape[1], fs, hz, rng), fs


def _scaled(gain: float, strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return gain * strips, fs


def _resampled(to_fs: float, strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return resample(strips, fs, to_fs), to_fs


def _clipped(limit_mv: float, strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Clip as an amplifier does that has taken off the electrodes' offset: around the strip's median."""
    centre = np.median(hold_invalid(strips), axis=1, keepdims=True)
    return np.clip(strips, centre - limit_mv, centre + limit_mv), fs


def _gapped(share: float, strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Drop a share of the samples, in gaps of about equal length at random places; two may touch."""
    n_strips, n = strips.shape
    total = round(share * n)
    lengths = np.diff(np.round(np.linspace(0, total, GAPS + 1)).astype(int))
    before = np.cumsum(lengths) - lengths  # samples that earlier gaps take
    gapped = strips.copy()
    for strip in gapped:
        starts = np.sort(rng.integers(0, n - total + 1, GAPS)) + before
        for start, length in zip(starts, lengths, strict=True):
            strip[start : start + length] = np.nan
    return gapped, fs
