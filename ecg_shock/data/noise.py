"""Add recorded or simulated noise and artefacts to an ECG.

Recorded noise comes from the MIT-BIH Noise Stress Test Database [1]_: baseline wander `bw`, electrode motion `em` and
muscle noise `ma`. The amplitude of this noise is not calibrated, so the noise is scaled to a signal-to-noise ratio. The
ratio is defined as in `nst`, the program that made the database. The signal power is a² / 8: the power of a sine with
the peak-to-peak amplitude *a*. The noise power is the variance within each second, averaged over the seconds.
Deviations from `nst`:

- *a* is not the amplitude of QRS complexes, because ventricular fibrillation has no QRS complexes. Instead, *a* is
  the peak-to-peak amplitude of the filtered strip, as `ecg_shock.data.windows.amplitude_mv` measures it.
- If *a* is below `NO_SIGNAL_MV`, as in asystole, `REFERENCE_MV` is used instead.
- The noise is scaled for each strip, so that each strip has the requested ratio. `nst` uses one scale for a whole
  record, so the ratio differs from part to part. For example, `nst` made record 118e_6 at -6 dB; by the definition used
  here, the first lead is at -12 dB.

The artefact of chest compressions is *simulated* as a sum of harmonics of the compression rate, as in [2]_, but with
our own amplitudes and variations. It does not replace a test with an ECG recorded during compressions, as in [3]_.

References
----------
.. [1] Moody, Muldrow and Mark, Computers in Cardiology 11:381-384, 1984, doi:10.13026/C2HS3T
.. [2] Ruiz de Gauna et al., Computers in Cardiology 32:175-178, 2005, doi:10.1109/CIC.2005.1588064
.. [3] Jekova and Krasteva, Sensors 21:4105, 2021, doi:10.3390/s21124105
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np

from ecg_shock.data.manifests import database_path
from ecg_shock.data.readers import find_recording
from ecg_shock.data.wfdb_files import open_wfdb
from ecg_shock.data.windows import amplitude_mv
from ecg_shock.preprocessing import hold_invalid, preprocess_strips

NOISE_DATABASE = "nstdb"
NO_SIGNAL_MV = 0.1  # asystole, Krasteva et al., Sensors 23:4500, 2023
REFERENCE_MV = 1.0
MAX_RATIO_TERM = 1000  # largest denominator of a ratio of sampling rates; exact for integers up to 1000 Hz

COMPRESSION_RATE = (100.0, 120.0)  # per minute, by resuscitation guidelines
# The following values are our choice.
COMPRESSION_HARMONICS = 5
HARMONIC_FALL = 0.5  # amplitude of each harmonic over that of the previous one
HARMONIC_SPREAD = 0.3  # standard deviation over mean of a harmonic's amplitude, from strip to strip
PERIOD_JITTER = 0.05  # standard deviation over mean of the period, from compression to compression
AMPLITUDE_JITTER = 0.15  # standard deviation over mean of the amplitude, from compression to compression
MAX_JITTER = 2.0  # standard deviations


def read_noise(record: str, fs: float, folder: Path | None = None) -> np.ndarray:
    """Read a noise record of nstdb.

    Parameters
    ----------
    record : str
        ``"bw"``, ``"em"`` or ``"ma"``.
    fs : float
        Sampling rate in Hz to resample to.
    folder : pathlib.Path, optional
        Folder that holds the databases; see `ecg_shock.data.manifests.data_dir`.

    Returns
    -------
    numpy.ndarray
        Shape (n,): the first lead, in an arbitrary unit.

    Raises
    ------
    FileNotFoundError
        If the record is missing.
    """
    # Opened without read_record, which would warn that the record is not calibrated.
    file = open_wfdb(find_recording(database_path(NOISE_DATABASE, folder, f"{record}.hea")), None)
    lead = file.channels[0]
    signal = np.concatenate(list(file.pieces([0], lead.n_samples)))[:, 0]
    return resample(signal[None], lead.fs, fs)[0]


def resample(strips: np.ndarray, fs: float, to_fs: float) -> np.ndarray:
    """Resample strips to another sampling rate.

    Parameters
    ----------
    strips : numpy.ndarray
        Shape (n_strips, n), NaN where invalid. If `fs` and `to_fs` differ, an invalid sample is replaced by the last
        valid one.
    fs, to_fs : float
        Sampling rates in Hz.

    Returns
    -------
    numpy.ndarray
        Shape (n_strips, round(n · to_fs / fs)), float64; unchanged if `fs` and `to_fs` are equal.

    Examples
    --------
    >>> resample(np.ones((2, 1250)), 250.0, 125.0).shape
    (2, 625)
    """
    from scipy.signal import resample_poly

    strips = np.asarray(strips, dtype=np.float64)
    if fs == to_fs:
        return strips
    ratio = Fraction(to_fs / fs).limit_denominator(MAX_RATIO_TERM)
    held = hold_invalid(strips)
    # Without the offset, because an offset would cause ripple (the filter's phases differ in gain at 0 Hz) and steps at
    # both ends.
    offset = held.mean(axis=1, keepdims=True)
    resampled = resample_poly(held - offset, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    return resampled[:, : round(strips.shape[1] * to_fs / fs)] + offset


def draw_noise(noise: np.ndarray, n_strips: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw strips from a noise recording, with random starts.

    If the noise is shorter than a strip, it is extended by reflection at its ends, so that the strip has no steps.

    Parameters
    ----------
    noise : numpy.ndarray
        Shape (m,).
    n_strips, n : int
        Number of strips, and number of samples in each strip. The result has the shape (n_strips, n).
    rng : numpy.random.Generator
        Draws the starts.

    Raises
    ------
    ValueError
        If the noise is empty, is not one-dimensional, or has NaN or infinite values.

    Examples
    --------
    >>> draw_noise(np.arange(3.0), 1, 8, np.random.default_rng(3))
    array([[1., 0., 0., 1., 2., 2., 1., 0.]])
    """
    if noise.ndim != 1 or not len(noise):
        raise ValueError(f"noise has shape {noise.shape}; give a 1-D array of one sample or more.")
    if not np.isfinite(noise).all():
        raise ValueError("noise has NaN or infinite values; remove them first.")
    m = len(noise)
    starts = rng.integers(0, m - n + 1 if m >= n else 2 * m, n_strips)
    index = (starts[:, None] + np.arange(n)) % (2 * m)
    return noise[np.where(index < m, index, 2 * m - 1 - index)]


def add_noise(ecg: np.ndarray, noise: np.ndarray, snr_db: float, fs: float) -> np.ndarray:
    """Add noise to strips at a signal-to-noise ratio. The docstring of this module defines the ratio.

    Parameters
    ----------
    ecg : numpy.ndarray
        Unfiltered strips of at least 2 s, shape (n_strips, n), in mV, NaN where invalid.
    noise : numpy.ndarray
        Strips of noise, shape (n_strips, n), in any unit.
    snr_db : float
        Signal-to-noise ratio in dB.
    fs : float
        Sampling rate of `ecg` and `noise` in Hz.

    Returns
    -------
    numpy.ndarray
        Shape (n_strips, n), in mV, NaN where `ecg` is NaN.

    Raises
    ------
    ValueError
        If the shapes differ, the ratio is not finite, or a strip of noise is constant or holds NaN.
    """
    if ecg.shape != noise.shape or ecg.ndim != 2:
        raise ValueError(f"ecg has shape {ecg.shape} and noise {noise.shape}; give both as (n_strips, n).")
    if not math.isfinite(snr_db):
        raise ValueError(f"snr_db={snr_db!r} is not finite; give a ratio in dB, such as 6.")
    power = _noise_power(noise, fs)
    if not (power > 0).all():  # also refuses NaN
        raise ValueError("a strip of noise is constant or holds NaN, so it cannot be scaled; draw another strip.")
    scale = np.sqrt(_signal_power(ecg, fs) / power / 10 ** (snr_db / 10))
    return ecg + scale[:, None] * noise


def _signal_power(ecg: np.ndarray, fs: float) -> np.ndarray:
    """Return the signal power of each strip in mV²: the power of a sine with the ECG's peak-to-peak amplitude."""
    amplitude = amplitude_mv(preprocess_strips(ecg, fs))
    return np.where(amplitude < NO_SIGNAL_MV, REFERENCE_MV, amplitude) ** 2 / 8


def _noise_power(noise: np.ndarray, fs: float) -> np.ndarray:
    """Return the variance within each second of noise, averaged over the seconds, for each strip."""
    second = round(fs)
    seconds = noise.shape[1] // second
    return noise[:, : seconds * second].reshape(len(noise), seconds, second).var(axis=2).mean(axis=1)


def compressions(n_strips: int, n: int, fs: float, rng: np.random.Generator) -> np.ndarray:
    """Simulate the artefact of chest compressions.

    Parameters
    ----------
    n_strips, n : int
        Number of strips, and of samples in each strip.
    fs : float
        Sampling rate in Hz.
    rng : numpy.random.Generator
        Draws the compression rate and the waveform of each strip, and the variation between compressions.

    Returns
    -------
    numpy.ndarray
        Shape (n_strips, n), mV: each strip spans 1 mV from peak to peak.

    Examples
    --------
    >>> np.ptp(compressions(1, 1250, 250.0, np.random.default_rng(0))).round(6)
    np.float64(1.0)
    """
    time_s = np.arange(n) / fs
    order = np.arange(1, COMPRESSION_HARMONICS + 1)
    strips = np.empty((n_strips, n))
    for strip in strips:
        period_s = 60.0 / rng.uniform(*COMPRESSION_RATE)
        count = math.ceil(n / fs / period_s / (1 - MAX_JITTER * PERIOD_JITTER)) + 2
        periods_s = period_s * _draw_factors(PERIOD_JITTER, count, rng)
        begins_s = np.concatenate([[0.0], np.cumsum(periods_s)]) - rng.uniform(0, periods_s[0])
        phase = 2 * np.pi * np.interp(time_s, begins_s, np.arange(count + 1))
        height = np.interp(time_s, begins_s, _draw_factors(AMPLITUDE_JITTER, count + 1, rng))
        shape = HARMONIC_FALL ** (order - 1) * _draw_factors(HARMONIC_SPREAD, len(order), rng)
        offset = rng.uniform(0, 2 * np.pi, len(order))
        artefact = height * (shape @ np.cos(order[:, None] * phase + offset[:, None]))
        strip[:] = artefact / np.ptp(artefact)
    return strips


def mains(n_strips: int, n: int, fs: float, hz: float, rng: np.random.Generator) -> np.ndarray:
    """Simulate mains hum at `hz`: sines of random phase, 1 mV from peak to peak, shape (n_strips, n).

    Raises
    ------
    ValueError
        If `hz` is not between 0 and half the sampling rate `fs`.
    """
    if not 0 < hz < fs / 2:
        raise ValueError(f"hz={hz!r} is not allowed at fs={fs:g} Hz; give a frequency above 0 and below {fs / 2:g} Hz.")
    phase = rng.uniform(0, 2 * np.pi, (n_strips, 1))
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(n) / fs + phase)


def randomise_phases(strips: np.ndarray, rng: np.random.Generator, changed: np.ndarray | None = None) -> np.ndarray:
    """Give each frequency of a strip a random phase: the power spectrum stays the same, but there are no beats.

    The straight line between both ends is subtracted before and added again afterwards, because a step from the last
    to the first sample would be spread over the whole strip.

    Parameters
    ----------
    strips : numpy.ndarray
        Shape (n_strips, n), mV, without invalid samples.
    rng : numpy.random.Generator
        Draws the phases.
    changed : numpy.ndarray, optional
        Shape (n // 2 + 1,), bool: the frequencies of `numpy.fft.rfft` whose phases are changed; all if not given.

    Returns
    -------
    numpy.ndarray
        Shape (n_strips, n), mV.

    Examples
    --------
    >>> strips = np.sin(np.linspace(0, 50 * np.pi, 1250))[None]
    >>> np.allclose(randomise_phases(strips, np.random.default_rng(0)).std(), strips.std())
    True
    """
    n = strips.shape[1]
    line = line_between_ends(strips)
    spectrum = np.fft.rfft(strips - line, axis=1)
    turns = np.exp(2j * np.pi * rng.random(spectrum.shape))
    turns[:, 0] = 1.0
    if n % 2 == 0:
        turns[:, -1] = 1.0  # it has no phase
    if changed is not None:
        turns[:, ~changed] = 1.0
    return np.fft.irfft(spectrum * turns, n, axis=1) + line


def line_between_ends(strips: np.ndarray) -> np.ndarray:
    """Return the straight line from the first to the last sample of each strip, shape (n_strips, n)."""
    return strips[:, :1] + (strips[:, -1:] - strips[:, :1]) * np.linspace(0.0, 1.0, strips.shape[1])


def _draw_factors(spread: float, count: int, rng: np.random.Generator) -> np.ndarray:
    return 1 + spread * np.clip(rng.standard_normal(count), -MAX_JITTER, MAX_JITTER)
