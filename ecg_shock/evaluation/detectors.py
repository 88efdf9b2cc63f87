"""Compute the features of classical detectors of ventricular fibrillation.

Each detector advises a shock by one feature of a window and a threshold. `ecg_shock.evaluation.baselines` fits the
thresholds on training patients, and compares the detectors with the network. Deviations from all papers:

- Windows are filtered by `ecg_shock.preprocessing`, 1 to 30 Hz, and sampled at 125 Hz; the papers use other filters.
- Windows of 2 to 10 s are allowed. Some features depend on the length, so a threshold is valid for one length only.
- One feature decides alone. In some papers, a detector of asystole or of QRS complexes comes first.
- Published thresholds are not used.

Amplitude and offset do not change a feature: each window is first centred on its mean and divided by its largest
absolute value. A flat window (all samples equal) gets the value that is least typical of fibrillation, which each
function documents. All features have the parameters and errors of `tci`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import numpy as np

from ecg_shock.preprocessing import FS, MAX_WINDOW_S, MIN_WINDOW_S

Feature = Callable[[np.ndarray], np.ndarray]

SECOND = round(FS)  # samples
CHUNK = 128  # windows computed at a time, to limit memory

TCI_LEVEL = 0.2  # of the largest value in each second; Thakor et al. 1990

# Arafat et al. 2011
TCSC_SEGMENT_S = 3.0
TCSC_TAPER_S = 0.25
TCSC_LEVEL = 0.2

# Jekova and Krasteva 2004, at 250 Hz: y[i] = (14 y[i-1] - 7 y[i-2] + (x[i] - x[i-2]) / 2) / 8. Squaring its poles
# gives the same resonance at 125 Hz, again with integers over a power of two.
COUNT_NUMERATOR = (15 / 128, 0.0, -15 / 128)  # for a gain of 1 at the centre frequency
COUNT_DENOMINATOR = (1.0, -168 / 128, 98 / 128)
COUNT_FLOOR = 1e-6  # of the window's peak; smaller values are rounding errors

MAV_SEGMENT_S = 2.0  # Anas et al. 2010

# Barro et al. 1989, after Amann et al. 2005
SPECTRUM_FROM_HZ = 0.5
PEAK_TO_HZ = 9.0
SPECTRUM_FLOOR = 0.05  # of the peak's amplitude; smaller amplitudes are set to 0
SPECTRUM_TO_PEAKS = 20.0  # times the peak's frequency
A2_BAND_PEAKS = (0.7, 1.4)  # times the peak's frequency
ROUNDING_HZ = 1e-9  # so that a frequency on a limit is inside

GRID = 40  # boxes on each side; Amann et al. 2005 and 2007
GRID_STEP = 2  # samples, which gives 62.5 Hz; the papers have 50 Hz
PSR_DELAY_S = 0.5  # Amann et al. 2007

# Zhang et al. 1999
NEAR_ZERO = 0.1  # of the positive or negative peak
MAX_NEAR_ZERO = 0.4  # of the samples
COMPLEXITY_LEVEL = 0.2  # of the peak

TEMPLATE = 2  # samples; Richman and Moorman 2000, Li et al. 2014
TOLERANCE_SD = 0.2  # standard deviations


def _on_normalised_windows(feature: Feature) -> Feature:
    """Check and normalise the windows, and compute a feature of them chunk by chunk."""

    @wraps(feature)
    def of_windows(ecg: np.ndarray) -> np.ndarray:
        windows = _check_windows(ecg)
        chunks = [feature(_normalise(windows[first : first + CHUNK])) for first in range(0, len(windows), CHUNK)]
        return np.concatenate(chunks) if chunks else np.empty(0)

    return of_windows


def _check_windows(ecg: np.ndarray) -> np.ndarray:
    windows = np.asarray(ecg)
    if windows.dtype.kind not in "iuf":
        raise TypeError(f"ecg has dtype {windows.dtype}; give real numbers, in mV.")
    shortest, longest = round(MIN_WINDOW_S * FS), round(MAX_WINDOW_S * FS)
    if windows.ndim != 2 or not shortest <= windows.shape[1] <= longest:
        raise ValueError(
            f"ecg has shape {windows.shape}; allowed is (n_windows, n_samples) with {shortest} to {longest} samples "
            f"({MIN_WINDOW_S:g} to {MAX_WINDOW_S:g} s at {FS:g} Hz)."
        )
    bad = ~np.isfinite(windows).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(windows)} windows have NaN or infinite samples, the first is window "
            f"{int(np.argmax(bad))}; exclude them."
        )
    return windows


def _normalise(windows: np.ndarray) -> np.ndarray:
    # Scaled before centring as well as after, so that the mean cannot overflow.
    return _scale(_centre(_scale(windows.astype(np.float64))))


def _scale(rows: np.ndarray) -> np.ndarray:
    return _divide(rows, np.abs(rows).max(axis=-1, keepdims=True))


def _divide(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """Return the quotient, or `otherwise` where the denominator is 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.full(shape, otherwise), where=denominator != 0)


def _centre(rows: np.ndarray) -> np.ndarray:
    """Subtract each row's mean; a constant row becomes exactly 0, without rounding errors."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    centred[np.ptp(rows, axis=-1) == 0] = 0.0
    return centred


def _split_into_seconds(ecg: np.ndarray) -> np.ndarray:
    """Cut rows into complete seconds, shape (n_windows, n_seconds, 125)."""
    count = ecg.shape[1] // SECOND
    return ecg[:, : count * SECOND].reshape(len(ecg), count, SECOND)


def _split_into_segments(ecg: np.ndarray, length_s: float) -> np.ndarray:
    """Cut rows into segments that start a second apart; a shorter row is one segment. Returns a read-only view."""
    length = min(round(length_s * FS), ecg.shape[1])
    return np.lib.stride_tricks.sliding_window_view(ecg, length, axis=1)[:, ::SECOND]


@_on_normalised_windows
def tci(ecg: np.ndarray) -> np.ndarray:
    """Compute the threshold crossing interval: the mean time between pulses that exceed 20 % of the peak [1]_.

    Parameters
    ----------
    ecg : numpy.ndarray
        Shape (n_windows, n_samples): preprocessed windows of 2 to 10 s in mV, at 125 Hz.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), in ms: short in fibrillation, and the length of the window if flat.

    Raises
    ------
    TypeError
        If `ecg` does not hold real numbers.
    ValueError
        If the shape is not allowed, or a sample is NaN or infinite.

    Notes
    -----
    Deviations from the paper:

    - The result is the mean over all complete seconds of the window; the paper evaluates three seconds at a time.
    - The pauses before the first and after the last pulse count as half an interval each.
    - A second without a pulse counts as one interval of the window's length.
    - An incomplete second at the end of a window is ignored.

    References
    ----------
    .. [1] Thakor, Zhu and Pan, IEEE Trans. Biomed. Eng. 37:837-843, 1990, doi:10.1109/10.55683

    Examples
    --------
    >>> print(tci(np.sin(2 * np.pi * 5 * np.arange(625) / 125)[None]).round(-1))
    [200.]
    """
    seconds = _centre(_split_into_seconds(ecg))
    above = seconds > TCI_LEVEL * seconds.max(axis=2, keepdims=True)
    pulses = above[..., 0] + (above[..., 1:] & ~above[..., :-1]).sum(axis=2)
    # Samples from the edges of each second to its first and last pulse, and to the nearest pulses in other seconds
    first, last = np.argmax(above, axis=2), np.argmax(above[..., ::-1], axis=2)
    known = pulses > 0
    ahead, behind = _pauses(last, known), _pauses(first[:, ::-1], known[:, ::-1])[:, ::-1]
    intervals = np.where(
        known, pulses - 1 + _pause_fraction_inside(first, ahead) + _pause_fraction_inside(last, behind), 0.0
    )
    window_s = ecg.shape[1] / FS
    return (1000 / np.maximum(intervals, 1 / window_s)).mean(axis=1)


def _pauses(tail: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Count the samples from the last pulse before each second to the start of that second; NaN if there is none."""
    pauses = np.empty(tail.shape)
    pause: np.ndarray = np.full(len(tail), np.nan)
    for second in range(tail.shape[1]):
        pauses[:, second] = pause
        pause = np.where(known[:, second], tail[:, second], pause + SECOND)
    return pauses


def _pause_fraction_inside(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return which part of each pause, 0 to 1, lies inside its second, if the pause crosses an end of the second."""
    return np.where(np.isnan(outside) & (inside > 0), 0.5, _divide(inside, inside + np.nan_to_num(outside)))


@_on_normalised_windows
def tcsc(ecg: np.ndarray) -> np.ndarray:
    """Compute the threshold crossing sample count: the proportion of samples above 20 % of the peak [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: large in fibrillation, 0 if flat.

    Notes
    -----
    The result is the mean over segments of 3 s that start one second apart. Both ends of a segment are tapered over
    0.25 s.
    Deviations from the paper:

    - A window shorter than 3 s is one segment.
    - The paper gives the count in %.

    References
    ----------
    .. [1] Arafat, Chowdhury and Hasan, Signal Image Video Process. 5:1-10, 2011, doi:10.1007/s11760-009-0137-9
    """
    segments = _split_into_segments(ecg, TCSC_SEGMENT_S)
    taper = np.ones(segments.shape[2])
    slope = 0.5 - 0.5 * np.cos(np.pi * np.arange(round(TCSC_TAPER_S * FS)) / (TCSC_TAPER_S * FS))
    taper[: len(slope)], taper[-len(slope) :] = slope, slope[::-1]
    size = np.abs(segments * taper)
    return (size > TCSC_LEVEL * size.max(axis=2, keepdims=True)).mean(axis=(1, 2))


@_on_normalised_windows
def leakage(ecg: np.ndarray) -> np.ndarray:
    """Compute the VF filter leakage: the signal left after adding the window, delayed by half a period, to itself [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: 0 for a sine, small in fibrillation, 1 if flat.

    Notes
    -----
    The result is relative to the sum of both amplitudes. The mean period is computed from the ratio of mean amplitude
    to mean slope, as in [2]_. Deviations from the papers:

    - The whole window is one segment.
    - Half a period is at most half the window.

    References
    ----------
    .. [1] Kuo and Dillman, Computers in Cardiology, 347-349, 1978
    .. [2] Amann, Tratnig and Unterkofler, Biomed. Eng. Online 4:60, 2005, doi:10.1186/1475-925X-4-60
    """
    size = np.abs(ecg)
    slope = np.abs(np.diff(ecg, axis=1)).sum(axis=1)
    half_period = np.floor(_divide(np.pi * size.sum(axis=1), slope) + 0.5)
    half_period = np.clip(half_period, 1, ecg.shape[1] // 2).astype(int)[:, np.newaxis]
    index = np.arange(ecg.shape[1])
    inside = index >= half_period
    earlier = np.take_along_axis(ecg, np.maximum(index - half_period, 0), axis=1)
    remains = np.abs(ecg + earlier, where=inside, out=np.zeros_like(ecg)).sum(axis=1)
    total = np.add(size, np.abs(earlier), where=inside, out=np.zeros_like(ecg)).sum(axis=1)
    return _divide(remains, total, otherwise=1.0)


@_on_normalised_windows
def count2(ecg: np.ndarray) -> np.ndarray:
    """Compute Count2: the proportion of samples whose size exceeds the mean, after a band-pass around 14.6 Hz [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: the mean over all complete seconds; large in fibrillation, 0 if flat.

    Notes
    -----
    Deviations from the paper:

    - The paper's filter has integer coefficients for 250 Hz. Here its poles are squared, which gives the same centre
      frequency and decay at 125 Hz: y[i] = (168 y[i-1] - 98 y[i-2] + 15 (x[i] - x[i-2])) / 128.
    - Numbers are not rounded to integers. Samples below a millionth of the window's peak are not counted.
    - The filter starts at the window's first sample, and its start-up transient lasts about 0.2 s.
    - The result is a proportion, because a count would depend on the sampling rate.

    References
    ----------
    .. [1] Jekova and Krasteva, Physiol. Meas. 25:1167-1178, 2004, doi:10.1088/0967-3334/25/5/007
    """
    from scipy.signal import lfilter  # slow to import

    filtered = lfilter(COUNT_NUMERATOR, COUNT_DENOMINATOR, ecg - ecg[:, :1], axis=1)
    size = np.abs(_split_into_seconds(filtered))
    return ((size >= size.mean(axis=2, keepdims=True)) & (size > COUNT_FLOOR)).mean(axis=(1, 2))


@_on_normalised_windows
def mav(ecg: np.ndarray) -> np.ndarray:
    """Compute the mean absolute value, divided by the largest absolute value [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: the mean over segments of 2 s that start one second apart; large in fibrillation, 0
        if flat.

    Notes
    -----
    Deviation from the paper: this feature decides alone; in the paper it is the first of several tests.

    References
    ----------
    .. [1] Anas, Lee and Hasan, Biomed. Eng. Online 9:43, 2010, doi:10.1186/1475-925X-9-43
    """
    size = np.abs(_split_into_segments(ecg, MAV_SEGMENT_S))
    return _divide(size.mean(axis=2), size.max(axis=2)).mean(axis=1)


@_on_normalised_windows
def spectral_m(ecg: np.ndarray) -> np.ndarray:
    """Compute the normalised first moment of the spectrum: its mean frequency divided by its peak frequency [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 20: near 1 in fibrillation, 20 if flat.

    Notes
    -----
    The spectrum is computed as in [2]_:

    - A Hamming window is applied.
    - An amplitude is the sum of the absolute values of the real and the imaginary part.
    - The peak is the largest amplitude from 0.5 to 9 Hz. Amplitudes below 5 % of it are set to 0.
    - The spectrum ends at 20 times the peak frequency, at most at 62.5 Hz. Deviation: the paper's limit is 100 Hz.

    References
    ----------
    .. [1] Barro et al., J. Biomed. Eng. 11:320-328, 1989, doi:10.1016/0141-5425(89)90067-8
    .. [2] Amann, Tratnig and Unterkofler, Biomed. Eng. Online 4:60, 2005, doi:10.1186/1475-925X-4-60
    """
    frequency, amplitude, peak = _spectrum(ecg)
    mean = _divide((amplitude * frequency).sum(axis=1), amplitude.sum(axis=1))
    return np.where(mean > 0, mean / peak, SPECTRUM_TO_PEAKS)


@_on_normalised_windows
def spectral_a2(ecg: np.ndarray) -> np.ndarray:
    """Compute the proportion of the spectrum around its peak, from 0.7 to 1.4 times the peak frequency.

    Notes and references are those of `spectral_m`.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: large in fibrillation, 0 if flat.
    """
    frequency, amplitude, peak = _spectrum(ecg)
    low, high = (factor * peak[:, np.newaxis] for factor in A2_BAND_PEAKS)
    around = (frequency >= low - ROUNDING_HZ) & (frequency <= high + ROUNDING_HZ)
    return _divide((amplitude * around).sum(axis=1), amplitude.sum(axis=1))


def _spectrum(ecg: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the frequencies in Hz, each window's amplitudes, and each window's peak frequency in Hz."""
    length = ecg.shape[1]
    transform = np.fft.rfft(ecg * np.hamming(length), axis=1)
    frequency = np.fft.rfftfreq(length, 1 / FS)
    band = frequency >= SPECTRUM_FROM_HZ - ROUNDING_HZ
    frequency, transform = frequency[band], transform[:, band]
    amplitude = np.abs(transform.real) + np.abs(transform.imag)
    candidates = amplitude[:, frequency <= PEAK_TO_HZ + ROUNDING_HZ]
    peak = frequency[np.argmax(candidates, axis=1)]
    counted = amplitude >= SPECTRUM_FLOOR * candidates.max(axis=1, keepdims=True)
    counted &= frequency <= SPECTRUM_TO_PEAKS * peak[:, np.newaxis] + ROUNDING_HZ
    return frequency, np.where(counted, amplitude, 0.0), peak


@_on_normalised_windows
def psr(ecg: np.ndarray) -> np.ndarray:
    """Compute the area that a window covers when plotted against itself with a delay of half a second [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: the proportion of the boxes of a 40 by 40 grid that hold a point; large in
        fibrillation, 1/1600 if flat. The grid spans the range of the window.

    Notes
    -----
    Deviations from the paper:

    - The sampling rate is 62.5 Hz (every second sample), and the delay 31 of these samples, 0.496 s; the paper samples
      at 50 Hz.
    - Windows have 2 to 10 s, in the paper 8 s. A longer window covers more boxes.

    References
    ----------
    .. [1] Amann, Tratnig and Unterkofler, IEEE Trans. Biomed. Eng. 54:174-177, 2007, doi:10.1109/TBME.2006.880909
    """
    row = _grid_index(ecg[:, ::GRID_STEP])
    delay = round(PSR_DELAY_S * FS / GRID_STEP)
    return _visited_proportion(row[:, delay:], row[:, :-delay])


@_on_normalised_windows
def hilb(ecg: np.ndarray) -> np.ndarray:
    """Compute the area that a window covers when plotted against its Hilbert transform [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: the proportion of the boxes of a 40 by 40 grid that hold a point; large in
        fibrillation, 1/1600 if flat.

    Notes
    -----
    Deviations from the paper:

    - The sampling rate is 62.5 Hz (every second sample); the paper samples at 50 Hz.
    - One side of the grid spans the range of the window, the other that of its Hilbert transform.
    - Windows have 2 to 10 s, in the paper 8 s. A longer window covers more boxes.

    References
    ----------
    .. [1] Amann, Tratnig and Unterkofler, Biomed. Eng. Online 4:60, 2005, doi:10.1186/1475-925X-4-60
    """
    from scipy.signal import hilbert  # slow to import

    transformed = hilbert(ecg, axis=1).imag
    return _visited_proportion(_grid_index(ecg[:, ::GRID_STEP]), _grid_index(transformed[:, ::GRID_STEP]))


def _grid_index(signal: np.ndarray) -> np.ndarray:
    """Return the row or column of the grid for each sample, 0 to 39."""
    above_lowest = signal - signal.min(axis=1, keepdims=True)
    position = _divide(above_lowest, above_lowest.max(axis=1, keepdims=True))
    return np.minimum((GRID * position).astype(int), GRID - 1)


def _visited_proportion(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    visited = np.zeros((len(row), GRID * GRID), dtype=bool)
    np.put_along_axis(visited, GRID * row + column, True, axis=1)
    return visited.mean(axis=1)


@_on_normalised_windows
def complexity(ecg: np.ndarray) -> np.ndarray:
    """Compute the Lempel-Ziv complexity [1]_ of a window as a binary sequence, relative to a random sequence [2]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,): near 1 for a random sequence; larger in fibrillation than in sinus rhythm, and smallest if
        flat.

    Notes
    -----
    A sample becomes 1 if it reaches the threshold, else 0. A sample is *near zero* if it is positive and below 10 % of
    the positive peak, or negative and above 10 % of the negative peak.

    - If fewer than 40 % of the samples are near zero, the threshold is 0.
    - Otherwise the threshold is 20 % of the positive peak if fewer of the samples near zero are positive than negative,
      else 20 % of the negative peak.

    References
    ----------
    .. [1] Lempel and Ziv, IEEE Trans. Inf. Theory 22:75-81, 1976, doi:10.1109/TIT.1976.1055501
    .. [2] Zhang et al., IEEE Trans. Biomed. Eng. 46:548-555, 1999, doi:10.1109/10.759055
    """
    length = ecg.shape[1]
    high, low = ecg.max(axis=1, keepdims=True), ecg.min(axis=1, keepdims=True)
    near_above = ((ecg > 0) & (ecg < NEAR_ZERO * high)).sum(axis=1, keepdims=True)
    near_below = ((ecg < 0) & (ecg > NEAR_ZERO * low)).sum(axis=1, keepdims=True)
    level = COMPLEXITY_LEVEL * np.where(near_above < near_below, high, low)
    threshold = np.where(near_above + near_below < MAX_NEAR_ZERO * length, 0.0, level)
    words = [_count_words(row.tobytes()) for row in ecg >= threshold]
    return np.array(words) * np.log2(length) / length


def _count_words(text: bytes) -> int:
    """Count the words of Lempel and Ziv: each is the shortest sequence that has not occurred before."""
    words, start = 0, 0
    while start < len(text):
        words += 1
        place, end = 0, start + 1
        while end <= len(text) and (place := text.find(text[start:end], place, end - 1)) >= 0:
            while end < len(text) and text[place + end - start] == text[end]:
                end += 1
            place, end = place + 1, end + 1
        start = end
    return words


@_on_normalised_windows
def sample_entropy(ecg: np.ndarray) -> np.ndarray:
    """Compute sample entropy: how rarely two segments that agree in two samples also agree in the third [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), in nats: larger in fibrillation than in sinus rhythm [2]_, 0 if flat.

    Notes
    -----
    Two samples agree if they differ by at most 0.2 standard deviations of the window. If no pair of segments agrees in
    three samples, one pair is counted. If no pair agrees in two samples, the result is the largest possible value for
    the length.

    References
    ----------
    .. [1] Richman and Moorman, Am. J. Physiol. Heart Circ. Physiol. 278:H2039-H2049, 2000,
       doi:10.1152/ajpheart.2000.278.6.H2039
    .. [2] Li, Rajagopalan and Clifford, IEEE Trans. Biomed. Eng. 61:1607-1613, 2014, doi:10.1109/TBME.2013.2275000
    """
    templates = ecg.shape[1] - TEMPLATE
    tolerance = TOLERANCE_SD * ecg.std(axis=1, keepdims=True)
    shorter, longer = np.zeros(len(ecg)), np.zeros(len(ecg))
    for lag in range(1, templates):
        distance = ecg[:, lag:] - ecg[:, :-lag]
        agree = np.abs(distance, out=distance) <= tolerance
        both = agree[:, :-2] & agree[:, 1:-1]
        shorter += np.count_nonzero(both, axis=1)
        longer += np.count_nonzero(both & agree[:, 2:], axis=1)
    pairs = templates * (templates - 1) / 2
    return np.log(np.where(shorter > 0, shorter, pairs) / np.maximum(longer, 1))


@dataclass(frozen=True)
class Detector:
    """A classical detector, which compares one feature of a window with a threshold.

    Parameters
    ----------
    name : str
        The name of the detector in the literature.
    feature : callable
        The function that computes the feature, such as `tci`.
    citation : str
        The publication of the detector.
    """

    name: str
    feature: Feature
    citation: str


DETECTORS = (
    Detector("TCI", tci, "Thakor et al. 1990, doi:10.1109/10.55683"),
    Detector("TCSC", tcsc, "Arafat et al. 2011, doi:10.1007/s11760-009-0137-9"),
    Detector("leakage", leakage, "Kuo and Dillman 1978; Amann et al. 2005, doi:10.1186/1475-925X-4-60"),
    Detector("count2", count2, "Jekova and Krasteva 2004, doi:10.1088/0967-3334/25/5/007"),
    Detector("MAV", mav, "Anas et al. 2010, doi:10.1186/1475-925X-9-43"),
    Detector("M", spectral_m, "Barro et al. 1989; Amann et al. 2005, doi:10.1186/1475-925X-4-60"),
    Detector("A2", spectral_a2, "Barro et al. 1989; Amann et al. 2005, doi:10.1186/1475-925X-4-60"),
    Detector("PSR", psr, "Amann et al. 2007, doi:10.1109/TBME.2006.880909"),
    Detector("HILB", hilb, "Amann et al. 2005, doi:10.1186/1475-925X-4-60"),
    Detector("complexity", complexity, "Zhang et al. 1999, doi:10.1109/10.759055"),
    Detector("SampEn", sample_entropy, "Richman and Moorman 2000; Li et al. 2014, doi:10.1109/TBME.2013.2275000"),
)
