"""Stress tests: evaluate advice on strips with added noise, artefacts and recorder effects.

A strip is the raw ECG of a window. It is disturbed, and then predicted as `ecg_shock.predict` does it. An unusable
strip is advised no shock, which is wrong for a shockable rhythm and right for a nonshockable rhythm. So a high
specificity may only mean that many strips are unusable.
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
from ecg_shock.evaluation.confidence import Proportion, compute_proportion
from ecg_shock.evaluation.predictions import encode_names
from ecg_shock.inference.advisor import Advisor
from ecg_shock.preprocessing import hold_invalid
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE

SNR_DB = (24.0, 18.0, 12.0, 6.0, 0.0, -6.0)  # the levels of nstdb, Moody et al. 1984
RECORDED_NOISE = {"bw": "baseline wander", "em": "electrode motion", "ma": "muscle noise"}  # by record of nstdb
COMPRESSIONS_MV = (0.25, 0.5, 1.0, 2.0, 4.0)  # peak to peak, as MAINS_MV
MAINS_HZ = (50.0, 60.0)
MAINS_MV = (0.1, 0.5, 1.0, 2.0)
GAINS = (0.25, 0.5, 2.0, 4.0)
SAMPLING_RATES_HZ = (125.0, 200.0, 250.0, 360.0, 500.0, 1000.0)
CLIPPING_MV = (5.0, 2.0, 1.0, 0.5)  # from the median
MISSING = (0.05, 0.10, 0.20)  # proportion of samples
GAPS = 3  # of missing samples in a strip


@dataclass(frozen=True)
class StressPoint:
    """The results of a model on windows with one level of one disturbance.

    Parameters
    ----------
    stress : str
        The disturbance, such as ``"electrode motion"``.
    level : str
        Its level with a unit, such as ``"6 dB"``.
    value : float
        Its level as a number, for charts.
    sensitivity, specificity : Proportion
        The proportions of shockable and of nonshockable windows with the right advice. An unusable window is advised no
        shock.
    unusable : int
        The number of unusable windows.
    """

    stress: str
    level: str
    value: float
    sensitivity: Proportion
    specificity: Proportion
    unusable: int


@dataclass(frozen=True)
class Stress:
    """One level of a disturbance of strips.

    Parameters
    ----------
    stress, level, value
        As in `StressPoint`.
    disturb : callable
        Function of strips of shape (n_strips, n_samples) in mV, their sampling rate in Hz and a random generator. It
        returns the disturbed strips and their sampling rate. All levels of a disturbance get generators with the same
        state, so that they differ only in level.
    """

    stress: str
    level: str
    value: float
    disturb: Callable[[np.ndarray, float, np.random.Generator], tuple[np.ndarray, float]]


def standard_stresses(folder: Path | None = None) -> tuple[Stress, ...]:
    """Return the disturbances that the report tests, level by level.

    They are recorded noise, modelled chest compressions, mains hum, gain, polarity, sampling rate, clipping and missing
    samples. `folder` is the folder of the databases. It must contain nstdb, the source of the recorded noise.
    """
    stresses = []
    for record, name in RECORDED_NOISE.items():
        stresses += [
            Stress(name, f"{snr:g} dB", snr, partial(_add_recorded_noise, record, snr, folder)) for snr in SNR_DB
        ]
    for level_mv in COMPRESSIONS_MV:
        disturb = partial(_add_compressions, level_mv)
        stresses.append(Stress("chest compressions (model)", f"{level_mv:g} mV", level_mv, disturb))
    for hz in MAINS_HZ:
        for level_mv in MAINS_MV:
            disturb = partial(_add_mains_hum, hz, level_mv)
            stresses.append(Stress(f"mains hum, {hz:g} Hz", f"{level_mv:g} mV", level_mv, disturb))
    stresses += [Stress("amplitude", f"x {gain:g}", gain, partial(_scale, gain)) for gain in GAINS]
    stresses.append(Stress("polarity", "inverted", -1.0, partial(_scale, -1.0)))
    stresses += [Stress("sampling rate", f"{fs:g} Hz", fs, partial(_resample, fs)) for fs in SAMPLING_RATES_HZ]
    stresses += [Stress("clipping", f"±{limit:g} mV", limit, partial(_clip, limit)) for limit in CLIPPING_MV]
    stresses += [Stress("missing samples", f"{part:.0%}", part, partial(_drop_samples, part)) for part in MISSING]
    return tuple(stresses)


class StressTest:
    """Evaluate advice on disturbed strips, one recording at a time.

    The raw strip of each window is disturbed and given to `Advisor.predict_many`, which filters it and checks whether
    it is usable.

    Parameters
    ----------
    advisor : Advisor
        The model. It must not have been trained on or selected with the patients of the windows;
        `ecg_shock.evaluation.evaluation_set.EvaluationSet.windows` checks this.
    windows : WindowSet
        Shockable and nonshockable windows, such as the result of `draw_clear_windows`.
    stresses : sequence of Stress
        The disturbances, such as the result of `standard_stresses`.
    seed : int
        Seed of every disturbance and of the patient bootstrap.

    Raises
    ------
    ValueError
        If there are no windows.
    """

    def __init__(self, advisor: Advisor, windows: WindowSet, stresses: Sequence[Stress], *, seed: int = 0) -> None:
        if not len(windows):
            raise ValueError("there are no windows; give one or more.")
        self._advisor, self._windows, self._seed = advisor, windows, seed
        self._stresses = (Stress("none", "", 0.0, _leave_unchanged), *stresses)
        self._shock = np.zeros((len(self._stresses), len(windows)), dtype=bool)
        self._usable = np.zeros_like(self._shock)
        self._missing = np.ones(len(windows), dtype=bool)

    def add(self, recording: Recording) -> None:
        """Disturb and predict the windows that belong to a recording.

        Raises
        ------
        ValueError
            If the recording is too short for one of its windows, or lacks a lead.
        """
        windows = self._windows
        here = self._missing & (windows.database == recording.database) & (windows.record == recording.name)
        for lead in np.unique(windows.lead[here]).tolist():
            index = np.flatnonzero(here & (windows.lead == lead))
            strips = cut_strips(recording, lead, windows.start_s[index], windows.window_s)
            for i, stress in enumerate(self._stresses):
                place = f"{stress.stress}/{recording.database}/{recording.name}/{lead}"
                rng = np.random.default_rng([self._seed, zlib.crc32(place.encode())])
                advice = self._advisor.predict_many(*stress.disturb(strips, recording.fs, rng))
                self._shock[i, index] = [a.shock for a in advice]
                self._usable[i, index] = [a.usable for a in advice]
        self._missing &= ~here

    def points(self) -> tuple[StressPoint, ...]:
        """Return the results of the undisturbed strips, named ``"none"``, and then those of each disturbance.

        Raises
        ------
        ValueError
            If the recording of a window was not added.
        """
        windows, missing = self._windows, self._missing
        if missing.any():
            first = int(np.argmax(missing))
            raise ValueError(
                f"{missing.sum()} windows belong to recordings that were not added, such as "
                f"{windows.database[first]}/{windows.record[first]}; add all recordings of the windows."
            )
        patient, shockable = encode_names(windows.patient), np.isin(windows.aha_class, SHOCKABLE)
        return tuple(
            StressPoint(
                stress=stress.stress,
                level=stress.level,
                value=float(stress.value),
                sensitivity=compute_proportion(patient[shockable], shock[shockable], seed=self._seed),
                specificity=compute_proportion(patient[~shockable], ~shock[~shockable], seed=self._seed),
                unusable=int((~usable).sum()),
            )
            for stress, shock, usable in zip(self._stresses, self._shock, self._usable, strict=True)
        )


def draw_clear_windows(windows: WindowSet, max_per_group: int, seed: int) -> WindowSet:
    """Draw shockable and nonshockable windows at random, at most `max_per_group` for each patient and AHA class.

    The windows keep their order.

    Raises
    ------
    ValueError
        If `max_per_group` is below 1.
    """
    if max_per_group < 1:
        raise ValueError(f"max_per_group is {max_per_group!r}; allowed are 1 or more.")
    clear = np.flatnonzero(np.isin(windows.aha_class, SHOCKABLE + NONSHOCKABLE))
    order = np.random.default_rng(seed).permutation(clear)
    counts: Counter[tuple[str, str]] = Counter()
    drawn = []
    for i in order.tolist():
        group = (str(windows.patient[i]), str(windows.aha_class[i]))
        counts[group] += 1
        if counts[group] <= max_per_group:
            drawn.append(i)
    return windows.select(np.sort(np.array(drawn, dtype=int)))


def cut_strips(recording: Recording, lead: str, start_s: np.ndarray, window_s: float) -> np.ndarray:
    """Cut the raw strips of windows, shape (n_strips, n_samples), mV.

    Raises
    ------
    ValueError
        If the recording is too short for a window, or lacks the lead.
    """
    n = round(window_s * recording.fs)
    firsts = np.round(start_s * recording.fs).astype(int)
    if lead not in recording.leads or not ((firsts >= 0) & (firsts + n <= len(recording.signal) + 1)).all():
        raise ValueError(
            f"{recording.database}/{recording.name} has the leads {recording.leads!r} and {recording.duration_s:g} s, "
            f"so it lacks some windows of lead {lead!r}; add the recording that the windows were cut from."
        )
    firsts = np.minimum(firsts, len(recording.signal) - n)  # start and length were rounded separately
    column = recording.signal[:, recording.leads.index(lead)].astype(np.float64)
    return column[firsts[:, None] + np.arange(n)]


def _leave_unchanged(strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return strips, fs


def _add_recorded_noise(
    record: str, snr_db: float, folder: Path | None, strips: np.ndarray, fs: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    noise = draw_noise(_read_noise_at(record, fs, folder), len(strips), strips.shape[1], rng)
    return add_noise(strips, noise, snr_db, fs), fs


@lru_cache(maxsize=8)
def _read_noise_at(record: str, fs: float, folder: Path | None) -> np.ndarray:
    """Read recorded noise, resampled to `fs`."""
    return read_noise(record, fs, folder)


def _add_compressions(
    level_mv: float, strips: np.ndarray, fs: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    return strips + level_mv * compressions(len(strips), strips.shape[1], fs, rng), fs


def _add_mains_hum(
    hz: float, level_mv: float, strips: np.ndarray, fs: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    if hz >= fs / 2:
        return strips, fs  # a recorder's anti-aliasing filter removes it
    return strips + level_mv * mains(len(strips), strips.shape[1], fs, hz, rng), fs


def _scale(gain: float, strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return gain * strips, fs


def _resample(to_fs: float, strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return resample(strips, fs, to_fs), to_fs


def _clip(limit_mv: float, strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Clip at `limit_mv` above and below the median of each strip."""
    centre = np.median(hold_invalid(strips), axis=1, keepdims=True)
    return np.clip(strips, centre - limit_mv, centre + limit_mv), fs


def _drop_samples(
    proportion: float, strips: np.ndarray, fs: float, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Replace a proportion of the samples of each strip by NaN, in `GAPS` gaps of about equal length."""
    n = strips.shape[1]
    total = round(proportion * n)
    lengths = np.diff(np.round(np.linspace(0, total, GAPS + 1)).astype(int))
    before = np.cumsum(lengths) - lengths  # samples in the earlier gaps
    gapped = strips.copy()
    for strip in gapped:
        starts = np.sort(rng.integers(0, n - total + 1, GAPS)) + before
        for start, length in zip(starts, lengths, strict=True):
            strip[start : start + length] = np.nan
    return gapped, fs
