"""Whether a strip can be judged at all: a transparent rule beside the network.

Monitors deliver saturated amplifiers, detached leads and broadband noise, which a network that was trained on ECG has
never seen. Each limit below was set between what clear ventricular fibrillation and tachycardia of vfdb, cudb and mitdb
reach, at 2 to 10 s and on all leads, and what the fault produces; a test repeats that check on every such window.
"""

from __future__ import annotations

import numpy as np

from ecg_shock.preprocessing import FS, hold_invalid

MAX_MISSING = 0.10  # share of invalid samples
MAX_RANGE_MV = 50.0  # the largest QRS complexes of the three databases reach 17 mV; a strip in µV reaches hundreds
MIN_RANGE_MV = 0.010  # an attached electrode has more noise than that; asystole in vfdb has 0.2 mV
MAX_CONSTANT_S = 1.0  # clear VF repeats one value for 0.25 s at most

# A saturated amplifier lingers at both ends of its range. Share of samples within 5 % of the range of either end:
RAIL_WIDTH = 0.05
MAX_AT_RAILS = 0.55  # VF: 0.42 at most; a clipped 1 Hz sine or rail-to-rail steps: 0.6 and more
MIN_AT_EACH_RAIL = 0.10  # a flat line with one spike is near one end only
CLIP_RUN = 3  # samples of exactly the extreme value that make a clipped peak
MAX_CLIPPED = 0.35  # share of samples in clipped peaks; VF: 0.21 at most

# Broadband noise: of the power from 3 Hz on, root-mean-square frequency, and flatness (geometric over arithmetic mean,
# 3 to 25 Hz). White noise after the band-pass has 20 Hz and 0.57; VF has 5.6 Hz and 0.04, never over both limits.
NOISE_FROM_HZ = 3.0
NOISE_FLAT_TO_HZ = 25.0
NOISE_RMS_HZ = 16.5
NOISE_FLATNESS = 0.45

SPECTRUM_FLOOR = 1e-12


def unusable_reasons(strips: np.ndarray, fs: float, filtered: np.ndarray) -> np.ndarray:
    """Say for each strip why it cannot be judged.

    Parameters
    ----------
    strips : numpy.ndarray
        Shape (n_strips, n), mV, as recorded; NaN or infinite where invalid.
    fs : float
        Sampling rate of `strips` in Hz.
    filtered : numpy.ndarray
        Shape (n_strips, m): the same strips after `ecg_shock.preprocessing.preprocess_strips`.

    Returns
    -------
    numpy.ndarray
        Shape (n_strips,), strings, empty where the strip is usable.

    Examples
    --------
    >>> flat = np.zeros((1, 1250))
    >>> str(unusable_reasons(flat, 250.0, flat[:, ::2])[0])
    'flat: the strip spans 0.000 mV, less than 0.010 mV'
    """
    held = hold_invalid(strips)
    missing = 1.0 - np.isfinite(strips).mean(axis=1)
    low, high = held.min(axis=1), held.max(axis=1)
    span = high - low
    constant = _holds_run(np.diff(held, axis=1) == 0, round(MAX_CONSTANT_S * fs))
    near_low = (held <= (low + RAIL_WIDTH * span)[:, None]).mean(axis=1)
    near_high = (held >= (high - RAIL_WIDTH * span)[:, None]).mean(axis=1)
    at_rails = (near_low + near_high > MAX_AT_RAILS) & (np.minimum(near_low, near_high) > MIN_AT_EACH_RAIL)
    clipped = _clipped_share(held, low, high)
    rms_hz, flatness = _noise_measures(filtered)
    noisy = (rms_hz > NOISE_RMS_HZ) & (flatness > NOISE_FLATNESS)

    reasons = []
    for i in range(len(strips)):
        if missing[i] > MAX_MISSING:
            reason = f"missing: {missing[i]:.0%} of the samples are invalid, more than {MAX_MISSING:.0%}"
        elif span[i] > MAX_RANGE_MV:
            reason = f"out of range: the strip spans {span[i]:.0f} mV, more than {MAX_RANGE_MV:g} mV; check the units"
        elif span[i] < MIN_RANGE_MV:
            reason = f"flat: the strip spans {span[i]:.3f} mV, less than {MIN_RANGE_MV:.3f} mV"
        elif constant[i]:
            reason = f"flat: one value repeats for {MAX_CONSTANT_S:g} s or more"
        elif clipped[i] > MAX_CLIPPED or at_rails[i]:
            reason = f"saturated: {near_low[i] + near_high[i]:.0%} of the samples lie at the ends of the range"
        elif noisy[i]:
            reason = f"noise: broadband, {rms_hz[i]:.1f} Hz root mean square"
        else:
            reason = ""
        reasons.append(reason)
    return np.array(reasons, dtype=str)


def _holds_run(flags: np.ndarray, length: int) -> np.ndarray:
    """Say which rows hold a run of at least `length` true flags."""
    if flags.shape[1] < length:
        return np.zeros(len(flags), dtype=bool)
    counts = np.cumsum(flags, axis=1, dtype=np.int32)
    counts = np.concatenate([np.zeros((len(flags), 1), dtype=np.int32), counts], axis=1)
    return (counts[:, length:] - counts[:, :-length] == length).any(axis=1)


def _clipped_share(strips: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Share of samples in runs of at least `CLIP_RUN` at exactly the lowest or highest value."""
    share = np.zeros(len(strips))
    for extreme in (low, high):
        at = strips == extreme[:, None]
        starts = at[:, : -CLIP_RUN + 1].copy()
        for k in range(1, CLIP_RUN):
            starts &= at[:, k : k - CLIP_RUN + 1 or None]
        covered = np.zeros_like(at)
        for k in range(CLIP_RUN):
            covered[:, k : k - CLIP_RUN + 1 or None] |= starts
        share += covered.mean(axis=1)
    return share


def _noise_measures(filtered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root-mean-square frequency in Hz, and spectral flatness, from `NOISE_FROM_HZ` on."""
    n = filtered.shape[1]
    centred = filtered - filtered.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(centred * np.hanning(n), axis=1)) ** 2 + SPECTRUM_FLOOR
    frequency = np.fft.rfftfreq(n, 1 / FS)
    upper = power[:, frequency >= NOISE_FROM_HZ]
    upper_hz = frequency[frequency >= NOISE_FROM_HZ]
    rms_hz = np.sqrt((upper * upper_hz**2).sum(axis=1) / upper.sum(axis=1))
    band = power[:, (frequency >= NOISE_FROM_HZ) & (frequency < NOISE_FLAT_TO_HZ)]
    flatness = np.exp(np.log(band).mean(axis=1)) / band.mean(axis=1)
    return rms_hz, flatness
