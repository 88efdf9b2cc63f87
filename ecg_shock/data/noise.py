"""Noise and artefacts to add to an ECG: recorded, or modelled where there is no recording.

Recorded noise is that of the MIT-BIH Noise Stress Test Database [1]_: baseline wander `bw`, electrode motion `em` and
muscle noise `ma`. Its amplitude is not calibrated, so only its shape is used, scaled to a signal-to-noise ratio. As in
`nst`, the program that made the database, the signal power is that of a sine of peak-to-peak amplitude *a*, a² / 8, and
the noise power is the mean square about the mean of each second. Deviations from `nst`:

- *a* is not the amplitude of QRS complexes, which ventricular fibrillation does not have. It is the median over the
  strip's seconds of the peak-to-peak amplitude after the filter, `ecg_shock.data.windows.amplitude_mv`.
- A strip below `NO_SIGNAL_MV`, such as asystole, has no signal to compare noise with. It gets the noise of an ECG of
  `REFERENCE_MV`: electrodes move as much whatever the heart does.
- The noise is scaled strip by strip, so that each strip has the requested ratio. `nst` uses one scale for a record,
  from the noise's first five minutes without the 5 % of seconds at either extreme, and later noise may be louder: the
  record 118e_6, at -6 dB by `nst`, is at -12 dB by this definition on its first lead, and at -7 dB on its second.

Chest compressions are a *model*, not a recording: a sum of harmonics whose phase follows the compressions, an idea from
[2]_, with our own amplitudes and variations. Only an ECG recorded during compressions, as in [3]_, shows what real ones
do to an algorithm.

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
from ecg_shock.data.readers import read_record
from ecg_shock.data.windows import amplitude_mv
from ecg_shock.preprocessing import hold_invalid, preprocess_strips

NOISE_DATABASE = "nstdb"
NO_SIGNAL_MV = 0.1  # asystole, Krasteva et al., Sensors 23:4500, 2023
REFERENCE_MV = 1.0
MAX_RATIO_TERM = 1000  # of two sampling rates; exact for whole numbers up to 1000 Hz

COMPRESSION_RATE = (100.0, 120.0)  # per minute, by resuscitation guidelines
# Our choice: artefacts from those of a steady machine to those of a tired rescuer.
COMPRESSION_HARMONICS = 5
HARMONIC_FALL = 0.5  # amplitude of each harmonic over that of the one below
HARMONIC_SPREAD = 0.3  # standard deviation over mean of that amplitude, from strip to strip
PERIOD_JITTER = 0.05  # standard deviation over mean, from compression to compression
AMPLITUDE_JITTER = 0.15
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
        If the record is not there.
    """
    recording = read_record(database_path(NOISE_DATABASE, folder, f"{record}.hea"))
    return resample(recording.signal[None, :, 0], recording.fs, fs)[0]


def resample(strips: np.ndarray, fs: float, to_fs: float) -> np.ndarray:
    """Resample strips, as a device with another sampling rate would have recorded them.

    Parameters
    ----------
    strips : numpy.ndarray
        Shape (n_strips, n), NaN where invalid. If `fs` and `to_fs` differ, invalid samples hold the last valid one.
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
    # An electrode's offset would cause a ripple, because the filter's phases differ in gain at 0 Hz, and steps at both
    # ends, where the filter has no samples.
    offset = held.mean(axis=1, keepdims=True)
    resampled = resample_poly(held - offset, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    return resampled[:, : round(strips.shape[1] * to_fs / fs)] + offset


def draw_noise(noise: np.ndarray, n_strips: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw strips from a longer noise, with random starts.

    Noise that is too short continues backwards from its end, and so on, so that it never jumps.

    Parameters
    ----------
    noise : numpy.ndarray
        Shape (m,).
    n_strips, n : int
        Number of strips, and of samples in each: the shape of the result.
    rng : numpy.random.Generator
        Generator of the starts.

    Raises
    ------
    ValueError
        If the noise is empty, of another shape, or holds NaN or infinite values.

    Examples
    --------
    >>> draw_noise(np.arange(3.0), 1, 8, np.random.default_rng(3))
    array([[1., 0., 0., 1., 2., 2., 1., 0.]])
    """
    if noise.ndim != 1 or not len(noise):
        raise ValueError(f"noise has shape {noise.shape}; give one dimension, with at least one sample.")
    if not np.isfinite(noise).all():
        raise ValueError("noise holds NaN or infinite values; cut them out first.")
    m = len(noise)
    starts = rng.integers(0, m - n + 1 if m >= n else 2 * m, n_strips)
    index = (starts[:, None] + np.arange(n)) % (2 * m)
    return noise[np.where(index < m, index, 2 * m - 1 - index)]


def add_noise(ecg: np.ndarray, noise: np.ndarray, snr_db: float, fs: float) -> np.ndarray:
    """Add noise at a signal-to-noise ratio, as defined by this module.

    Parameters
    ----------
    ecg : numpy.ndarray
        Shape (n_strips, n), mV, as recorded, at least 2 s; NaN where invalid, and in the result.
    noise : numpy.ndarray
        The same shape, in any unit.
    snr_db : float
        Signal-to-noise ratio in dB.
    fs : float
        Sampling rate of both in Hz.

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
    """Return the signal power of each strip in mV²: that of a sine of the ECG's amplitude."""
    amplitude = amplitude_mv(preprocess_strips(ecg, fs))
    return np.where(amplitude < NO_SIGNAL_MV, REFERENCE_MV, amplitude) ** 2 / 8


def _noise_power(noise: np.ndarray, fs: float) -> np.ndarray:
    """Return the mean square of each strip of noise about the mean of each second."""
    second = round(fs)
    seconds = noise.shape[1] // second
    return noise[:, : seconds * second].reshape(len(noise), seconds, second).var(axis=2).mean(axis=1)


def compressions(n_strips: int, n: int, fs: float, rng: np.random.Generator) -> np.ndarray:
    """Model the artefact of chest compressions.

    Parameters
    ----------
    n_strips, n : int
        Number of strips, and of samples in each.
    fs : float
        Sampling rate in Hz.
    rng : numpy.random.Generator
        Generator of each strip's compression rate and shape, and of their variation.

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
    """Make mains hum of 50 or 60 Hz: sines of random phase, 1 mV from peak to peak; see `compressions`.

    Raises
    ------
    ValueError
        If `fs` is too low for the frequency.
    """
    if not 0 < hz < fs / 2:
        raise ValueError(f"hz={hz!r} cannot be sampled at {fs:g} Hz; allowed is less than half of that.")
    phase = rng.uniform(0, 2 * np.pi, (n_strips, 1))
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(n) / fs + phase)


def _draw_factors(spread: float, count: int, rng: np.random.Generator) -> np.ndarray:
    return 1 + spread * np.clip(rng.standard_normal(count), -MAX_JITTER, MAX_JITTER)
