"""Whether a strip can be judged at all: a transparent rule beside the network.

Monitors deliver saturated amplifiers, detached leads and broadband noise, which a network that was trained on ECG has
never seen. Each limit below was set between what clear ventricular fibrillation and tachycardia of vfdb, cudb and mitdb
reach, at 2 to 10 s and on all leads, and what the fault produces; a test repeats that check on every such window.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ecg_shock.data.windows import amplitude_mv
from ecg_shock.preprocessing import FS, MAX_MV, hold_invalid

MAX_MISSING = 0.10  # share of invalid samples
MAX_RANGE_MV = 50.0  # the largest QRS complexes of the three databases reach 17 mV; a strip in µV reaches hundreds
MIN_RANGE_MV = 0.010  # an attached electrode has more noise than that; asystole in vfdb has 0.2 mV
MAX_CONSTANT_S = 1.0  # clear VF repeats one value for 0.25 s at most
COARSE = 8  # samples of that second which are compared first

# A saturated amplifier lingers at both ends of its range. Share of samples within 5 % of the range of either end:
RAIL_WIDTH = 0.05
MAX_AT_RAILS = 0.55  # VF: 0.42 at most; a clipped 1 Hz sine or rail-to-rail steps: 0.6 and more
MIN_AT_EACH_RAIL = 0.10  # a flat line with one spike is near one end only
CLIP_RUN = 3  # samples of exactly the extreme value that make a clipped peak
MAX_CLIPPED = 0.35  # share of samples in clipped peaks; VF: 0.21 at most

# In a window of a stream the filter may still ring with what came before, such as an artefact of 1 V, and that looks
# like VF. Range after the filter over range before it; clear VF that is filtered by itself: 1.44 at most.
MAX_GROWTH = 4.0

# Noise is judged after the filter, and only where it is larger than asystole, which is little else than noise: median
# peak-to-peak amplitude of the strip's seconds. Asystole in vfdb with as much noise: 0.114 mV at most.
NOISE_MIN_MV = 0.12
# It goes on without a pause, while QRS complexes stand apart: energy of the slope in blocks of 0.2 s, median over mean.
# White noise has 0.57 and more; 9 of 10 sinus strips that are over the other limits of white noise have less than 0.5.
NOISE_BLOCK_S = 0.2
NOISE_STEADINESS = 0.5
# Root-mean-square frequency (3 to 40 Hz) and flatness (geometric over arithmetic mean, 3 to 25 Hz) of the spectrum.
# White noise has 19 Hz and 0.57, muscle noise from 20 Hz on has 26 Hz and 0.19; steady VF has 6 Hz and 0.04. The VF
# that comes closest (cudb cu29, 2 s) has 20.1 Hz and 0.43; no other is over 17.2 Hz.
NOISE_BAND_HZ = (3.0, 40.0)
FLATNESS_BAND_HZ = (3.0, 25.0)
WHITE_RMS_HZ, WHITE_FLATNESS = 16.5, 0.44
MUSCLE_RMS_HZ = 21.0

# What the filter leaves of mains hum, as a share of the power from 1 Hz on. VF: 0.002 at most; hum alone: 0.999.
# VF of 0.3 mV under 2 mV of 50 Hz has 0.2 and stays usable.
ECG_FROM_HZ, MAINS_FROM_HZ = 1.0, 45.0
MAX_MAINS = 0.5

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
    low, high = strips.min(axis=1), strips.max(axis=1)
    if np.isfinite([low, high]).all():  # as any invalid sample would show in one of the two
        held, missing = strips, np.zeros(len(strips))
    else:
        held, missing = hold_invalid(strips), 1.0 - np.isfinite(strips).mean(axis=1)
        low, high = held.min(axis=1), held.max(axis=1)
    span = high - low
    constant = _is_constant(held, round(MAX_CONSTANT_S * fs))
    near_low = _share(held <= (low + RAIL_WIDTH * span)[:, None])
    near_high = _share(held >= (high - RAIL_WIDTH * span)[:, None])
    at_rails = (near_low + near_high > MAX_AT_RAILS) & (np.minimum(near_low, near_high) > MIN_AT_EACH_RAIL)
    rings = filtered.max(axis=1) - filtered.min(axis=1) > MAX_GROWTH * span
    saturated = at_rails | _is_clipped(held, low, high, near_low + near_high)
    rms_hz, mains = _rms_hz_and_mains(filtered)
    noisy = rms_hz > min(WHITE_RMS_HZ, MUSCLE_RMS_HZ)
    if noisy.any():
        noisy[noisy] = _is_noise(filtered[noisy], rms_hz[noisy])

    reasons = np.full(len(strips), "", dtype=object)
    reach = np.maximum(-low, high)
    bad_range = (missing > MAX_MISSING) | (span > MAX_RANGE_MV) | (span < MIN_RANGE_MV) | (reach > MAX_MV)
    for i in np.flatnonzero(bad_range | constant | saturated | rings | (mains > MAX_MAINS) | noisy):
        if missing[i] > MAX_MISSING:
            reason = f"missing: {missing[i]:.0%} of the samples are invalid, more than {MAX_MISSING:.0%}"
        elif span[i] > MAX_RANGE_MV:
            reason = f"out of range: the strip spans {span[i]:.0f} mV, more than {MAX_RANGE_MV:g} mV; check the units"
        elif reach[i] > MAX_MV:
            reason = f"out of range: the strip reaches {reach[i]:.0f} mV, more than {MAX_MV:g} mV; check the units"
        elif span[i] < MIN_RANGE_MV:
            reason = f"flat: the strip spans {span[i]:.3f} mV, less than {MIN_RANGE_MV:.3f} mV"
        elif constant[i]:
            reason = f"flat: one value repeats for {MAX_CONSTANT_S:g} s or more"
        elif saturated[i]:
            reason = f"saturated: {near_low[i] + near_high[i]:.0%} of the samples lie at the ends of the range"
        elif rings[i]:
            reason = "noise: the filter still rings with what came before"
        elif mains[i] > MAX_MAINS:
            reason = f"noise: {mains[i]:.0%} of the power is mains hum"
        else:
            reason = f"noise: broadband, {rms_hz[i]:.1f} Hz root mean square"
        reasons[i] = reason
    return reasons.astype(str)


def _share(flags: np.ndarray) -> np.ndarray:
    """Share of true flags in each row; packed into bits, they are counted four times as fast as by `mean`."""
    return np.bitwise_count(np.packbits(flags, axis=1)).sum(axis=1, dtype=np.intp) / flags.shape[1]


def _is_constant(strips: np.ndarray, steps: int) -> np.ndarray:
    """Say which rows repeat one value for at least so many steps of one sample."""
    # Such a run holds at least COARSE samples of every stride-th, all equal; few ECGs get beyond that.
    coarse = strips[:, :: max(steps // COARSE, 1)]
    found = (coarse[:, 1:] == coarse[:, :-1]).sum(axis=1) >= COARSE - 1
    if found.any():
        found[found] = _holds_run(np.diff(strips[found], axis=1) == 0, steps)
    return found


def _is_clipped(strips: np.ndarray, low: np.ndarray, high: np.ndarray, near_ends: np.ndarray) -> np.ndarray:
    """Say which rows have more than `MAX_CLIPPED` in clipped peaks, given the share near the ends of the range."""
    # Clipped samples are at the ends of the range, and so near them: a share that is small leaves nothing to look for.
    found = near_ends > MAX_CLIPPED
    if found.any():
        found[found] = _clipped_share(strips[found], low[found], high[found]) > MAX_CLIPPED
    return found


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
        share += _share(covered)
    return share


def _power(filtered: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft((filtered - filtered.mean(axis=1, keepdims=True)) * _hann(filtered.shape[1]), axis=1)
    return spectrum.real**2 + spectrum.imag**2 + SPECTRUM_FLOOR


def _rms_hz_and_mains(filtered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root-mean-square frequency in Hz, and the share of mains hum."""
    power, n = _power(filtered), filtered.shape[1]
    band = _bins(n, *NOISE_BAND_HZ)
    rms_hz = np.sqrt((power[:, band] * _squared_hz(n)[band]).sum(axis=1) / power[:, band].sum(axis=1))
    mains = power[:, _bins(n, MAINS_FROM_HZ, FS)].sum(axis=1) / power[:, _bins(n, ECG_FROM_HZ, FS)].sum(axis=1)
    return rms_hz, mains


def _is_noise(filtered: np.ndarray, rms_hz: np.ndarray) -> np.ndarray:
    """Say which rows are broadband noise, given their root-mean-square frequency."""
    like_noise = ((rms_hz > WHITE_RMS_HZ) & (_flatness(filtered) > WHITE_FLATNESS)) | (rms_hz > MUSCLE_RMS_HZ)
    return like_noise & (_steadiness(filtered) > NOISE_STEADINESS) & (amplitude_mv(filtered) > NOISE_MIN_MV)


def _flatness(filtered: np.ndarray) -> np.ndarray:
    power = _power(filtered)[:, _bins(filtered.shape[1], *FLATNESS_BAND_HZ)]
    return np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)


@lru_cache(maxsize=16)
def _hann(n: int) -> np.ndarray:
    return np.hanning(n)


@lru_cache(maxsize=16)
def _squared_hz(n: int) -> np.ndarray:
    return np.fft.rfftfreq(n, 1 / FS) ** 2


@lru_cache(maxsize=64)
def _bins(n: int, low_hz: float, high_hz: float) -> slice:
    """Return those of the spectrum of n samples at 125 Hz that lie in a band, its upper edge excluded."""
    return slice(*np.searchsorted(np.fft.rfftfreq(n, 1 / FS), (low_hz, high_hz)).tolist())


def _steadiness(filtered: np.ndarray) -> np.ndarray:
    """Energy of the slope in short blocks, median over mean: 1 for a steady tone, near 0 for spikes."""
    slope = np.diff(filtered, axis=1)
    energy = _in_blocks(slope**2, round(NOISE_BLOCK_S * FS)).mean(axis=2)
    return np.median(energy, axis=1) / (energy.mean(axis=1) + SPECTRUM_FLOOR)


def _in_blocks(rows: np.ndarray, length: int) -> np.ndarray:
    """Cut rows into whole blocks, shape (n_rows, n_blocks, length)."""
    count = rows.shape[1] // length
    return rows[:, : count * length].reshape(len(rows), count, length)
