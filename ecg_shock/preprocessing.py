"""The one way from recorded samples to what the network sees: resampling to 125 Hz, then a band-pass filter.

Everything is causal, so a device that filters sample by sample and a training run that filters a whole recording
see the same signal. The steps, in order:

1. Invalid samples (NaN, infinite or beyond 10 V) hold the last valid value; the value of the first valid sample
   is subtracted, which puts the filters into their steady state without a start-up transient (the band-pass has no
   gain at 0 Hz). After a second and more without a valid sample the signal goes on from the value that was held: an
   electrode that comes back has another offset, and a step of it would ring through the high-pass for two seconds.
2. A linear-phase low-pass resamples any rate from 100 to 2000 Hz to 125 Hz. Its impulse response is the same
   function of time at every rate, so copies of one analogue signal agree, and it delays by exactly 40 ms.
3. A Butterworth band-pass at 125 Hz, the same coefficients for every device, and a mains notch if asked for.
4. Rounding to the 2.5 µV grid of Krasteva et al. 2020 (doi:10.3390/s20102875), if asked for.

Both filters are convolutions, which NumPy computes: the band-pass by FFT with its impulse response, to the last bit
that double precision holds. `scipy.signal` takes longer to load than a first advice, or a sixth of a day's scan.

Amplitude is kept: without it, asystole and fine ventricular fibrillation cannot be told apart.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

FS = 125.0  # Hz, the network's rate
FS_RANGE_HZ = (100.0, 2000.0)
MIN_WINDOW_S, MAX_WINDOW_S = 2.0, 10.0  # of the strips and windows that are classified
LENGTH_TOLERANCE_SAMPLES = 0.5  # 2 s are 720 samples at 360.1 Hz, which is 1.99944 s
GRID_MV = 0.0025  # Krasteva et al. 2020: 2.5 µV per least significant bit

# Flat to 38 Hz, 60 dB down from 82 Hz on, in 80 ms. What lies between folds to 43 Hz and above, where the band-pass
# removes it.
RESAMPLER_DELAY_SAMPLES = 5  # at 125 Hz: half the low-pass
RESAMPLER_CUTOFF_HZ = 60.0
MAX_HIGH_HZ = 40.0  # the resampler's own pass band ends here
RESAMPLER_KAISER_BETA = 5.65  # 60 dB stop band
MAX_UP = 12_500  # meets rates of two decimals, such as 249.97 Hz, exactly, and any other to within 4e-5
NOTCH_Q = 30.0  # a notch 1.7 Hz wide at 50 Hz
POLE_IS_REAL = 1e-12  # imaginary part that is rounding
FFT_SIZE_STEP = 128  # sizes of many factors of two are fast
PIECE_SAMPLES = 2**15  # of a stream that are filtered at once, so that memory stays bounded
NEGLIGIBLE = 1e-18  # of an impulse response, relative to its beginning: below double precision

# No electrode gives 10 V: beyond is a fault, and held as if invalid. The high-pass would ring with it for seconds, and
# that looks like VF when the fault itself has left the window. The C code has the same limit.
MAX_MV = 1e4
GAP_S = 1.0  # of invalid samples, after which the offset of the electrode is taken anew
WARM_UP_S = 2.0  # mirrored lead-in of a strip: the 1 Hz high-pass has decayed to below 1 % of a step by then


@dataclass(frozen=True)
class Preprocessing:
    """Parameters of the filter, stored with every model.

    Parameters
    ----------
    low_hz, high_hz : float
        Corner frequencies (-3 dB) of the band-pass in Hz.
    order : int
        Order of the Butterworth low-pass prototype; the band-pass has twice as many poles.
    mains_hz : float or None
        Frequency of a notch in Hz, 50 or 60, or None for no notch.
    grid : bool
        Whether to round the result to steps of 2.5 µV.

    Examples
    --------
    >>> Preprocessing(mains_hz=50.0).high_hz
    30.0
    """

    __pydantic_config__ = {"extra": "forbid"}

    low_hz: float = 1.0
    high_hz: float = 30.0
    order: int = 2
    mains_hz: float | None = None
    grid: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.low_hz < self.high_hz <= MAX_HIGH_HZ:
            raise ValueError(
                f"low_hz={self.low_hz!r} and high_hz={self.high_hz!r} are no pass band: "
                f"0 < low_hz < high_hz <= {MAX_HIGH_HZ:g} Hz is needed."
            )
        if self.order not in (1, 2, 3, 4):
            raise ValueError(f"order={self.order!r} is not allowed; choose 1, 2, 3 or 4.")
        if self.mains_hz not in (None, 50.0, 60.0):
            raise ValueError(f"mains_hz={self.mains_hz!r} is not allowed; choose 50, 60 or None.")
        if not isinstance(self.grid, bool):
            raise TypeError(f"grid={self.grid!r} is not allowed; choose True or False.")

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters that differ from None, for a TOML file."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def sos(self) -> np.ndarray:
        """Second-order sections at 125 Hz, shape (n_sections, 6)."""
        return _sections(self)


class Preprocessor:
    """Preprocess a stream, in pieces of any size.

    Cutting a stream anywhere gives the same samples as passing it whole, within rounding.

    Parameters
    ----------
    preprocessing : Preprocessing
        The parameters.
    fs : float
        Sampling rate of the stream in Hz, 100 to 2000.

    Raises
    ------
    ValueError
        If `fs` is out of range.

    Examples
    --------
    >>> stream = Preprocessor(Preprocessing(), fs=250.0)
    >>> whole = np.sin(np.arange(1000) / 10)
    >>> pieces = [stream.process(piece) for piece in (whole[:123], whole[123:])]
    >>> np.allclose(np.concatenate(pieces), preprocess(whole, 250.0), rtol=0, atol=1e-12)
    True
    """

    def __init__(self, preprocessing: Preprocessing, fs: float) -> None:
        self.preprocessing = preprocessing
        self._up, self._down = rate_ratio(fs)
        self._gap = math.ceil(GAP_S * fs)
        self._missing = self._gap  # invalid samples in a row until now; a stream begins as if after a gap
        self._offset = 0.0
        self._held = 0.0  # the last valid sample, less the offset
        self._received = self._returned = 0
        # What the filters still need of the past; they start from rest.
        self._past = np.zeros(_weights(self._up, self._down).shape[1] - 1)
        self._past_resampled = np.zeros(_memory(preprocessing))

    def process(self, signal: np.ndarray) -> np.ndarray:
        """Take the next samples, and return those that are ready at 125 Hz.

        Parameters
        ----------
        signal : numpy.ndarray
            Shape (n,), mV, NaN where invalid.

        Returns
        -------
        numpy.ndarray
            Shape (m,), float64, mV; m is n · 125 / fs to within one sample.
        """
        signal = np.asarray(signal, dtype=np.float64)
        pieces = [signal[first : first + PIECE_SAMPLES] for first in range(0, len(signal), PIECE_SAMPLES)]
        filtered = np.concatenate([np.empty(0), *(self._band_pass(self._resample(self._hold(p))) for p in pieces)])
        return _to_grid(filtered) if self.preprocessing.grid else filtered

    def _resample(self, held: np.ndarray) -> np.ndarray:
        samples = np.concatenate([self._past, held])
        self._past = samples[len(held) :]
        first, before = self._returned, self._received
        self._received += len(held)
        self._returned = -(-self._received * self._up // self._down)  # those before the next sample's time
        resampled = np.empty(self._returned - first)
        _convolve(samples, *_newest_and_weights(self._up, self._down, first, self._returned, before), resampled)
        return resampled

    def _band_pass(self, resampled: np.ndarray) -> np.ndarray:
        past = len(self._past_resampled)
        samples = np.concatenate([self._past_resampled, resampled])
        self._past_resampled = samples[len(resampled) :]
        size = math.ceil(len(samples) / FFT_SIZE_STEP) * FFT_SIZE_STEP
        # The convolution is cyclic: what comes round ends before the new samples.
        spectrum = np.fft.rfft(samples, size) * _frequency_response(self.preprocessing, past + 1, size)
        return np.fft.irfft(spectrum, size)[past : len(samples)]

    def _hold(self, signal: np.ndarray) -> np.ndarray:
        """Subtract the offset, hold the last valid sample where there is none, and go on from it after a gap."""
        n = len(signal)
        valid = is_valid(signal)
        if self._missing < self._gap and valid.all():  # nothing to hold, which is most of the time
            relative = signal - self._offset
            self._held, self._missing = relative[-1], 0
            return relative
        last_valid = np.maximum.accumulate(np.where(valid, np.arange(n), -1 - self._missing))
        before = np.concatenate([[-1 - self._missing], last_valid[:-1]])
        relative = signal - self._offset
        returns = np.flatnonzero(valid & (np.arange(n) - before > self._gap))
        for i, end in zip(returns, np.append(returns, n)[1:], strict=True):
            self._offset = signal[i] - (relative[before[i]] if before[i] >= 0 else self._held)
            relative[i:end] = signal[i:end] - self._offset
        held = np.where(last_valid >= 0, relative[np.maximum(last_valid, 0)], self._held)
        self._held = held[-1]
        self._missing = n - 1 - int(last_valid[-1])
        return held


def preprocess(signal: np.ndarray, fs: float, preprocessing: Preprocessing | None = None) -> np.ndarray:
    """Preprocess a whole recording, as a device would that had listened from its first sample on.

    Parameters
    ----------
    signal : numpy.ndarray
        One lead, shape (n,), mV, NaN where invalid.
    fs : float
        Sampling rate in Hz, 100 to 2000.
    preprocessing : Preprocessing, optional
        The parameters; the defaults if not given.

    Returns
    -------
    numpy.ndarray
        Shape (ceil(n · 125 / fs),), float64, mV at 125 Hz. It lags the input by the filters' delay, 40 ms for the
        resampling and about 15 ms at 5 Hz for the band-pass.

    Examples
    --------
    >>> len(preprocess(np.zeros(3600), fs=360.0))
    1250
    """
    return Preprocessor(preprocessing or Preprocessing(), fs).process(signal)


def preprocess_strips(strips: np.ndarray, fs: float, preprocessing: Preprocessing | None = None) -> np.ndarray:
    """Preprocess strips of a few seconds, about which nothing earlier is known.

    A strip's first two seconds, mirrored, are put before it, so that the filters have settled when it begins.

    Parameters
    ----------
    strips : numpy.ndarray
        Shape (n_strips, n), mV, NaN where invalid; at least 2 s, to the nearest sample.
    fs : float
        Sampling rate in Hz, 100 to 2000.
    preprocessing : Preprocessing, optional
        The parameters; the defaults if not given.

    Returns
    -------
    numpy.ndarray
        Shape (n_strips, round(n · 125 / fs)), float64, mV at 125 Hz.

    Raises
    ------
    ValueError
        If the strips are shorter than 2 s.

    Examples
    --------
    >>> preprocess_strips(np.zeros((3, 1250)), fs=250.0).shape
    (3, 625)
    """
    preprocessing = preprocessing or Preprocessing()
    rate_ratio(fs)  # refuses what is no rate
    n = strips.shape[1]
    if n < WARM_UP_S * fs - LENGTH_TOLERANCE_SAMPLES:
        raise ValueError(f"strips of {n} samples at {fs:g} Hz are {n / fs:.6g} s; at least {WARM_UP_S:g} s are needed.")
    lead_in, first, wanted, newest, weights, response = _strip_filter(preprocessing, float(fs), n)
    held = hold_invalid(np.asarray(strips, dtype=np.float64))
    taps = weights.shape[1]
    padded = np.zeros((len(strips), taps + lead_in + n))  # the filter starts from rest
    lead_in_and_strip = padded[:, taps - 1 : -1]
    lead_in_and_strip[:, :lead_in] = held[:, lead_in - 1 :: -1]
    lead_in_and_strip[:, lead_in:] = held
    lead_in_and_strip -= held[:, lead_in - 1 : lead_in]
    resampled = np.empty((len(strips), wanted))
    for row, result in zip(padded, resampled, strict=True):
        _convolve(row, newest, weights, result)
    size = 2 * (len(response) - 1)
    spectrum = np.fft.rfft(resampled, size, axis=1)
    spectrum *= response
    filtered = np.fft.irfft(spectrum, size, axis=1)[:, first:wanted]
    return _to_grid(filtered) if preprocessing.grid else filtered


def is_valid(signal: np.ndarray) -> np.ndarray:
    """Say which samples are valid: those that are finite, and not beyond the 10 V that no electrode gives.

    Parameters
    ----------
    signal : numpy.ndarray
        Any shape, mV.

    Returns
    -------
    numpy.ndarray
        The same shape, booleans.

    Examples
    --------
    >>> is_valid(np.array([0.5, np.nan, -np.inf, 2e4]))
    array([ True, False, False, False])
    """
    return np.asarray(np.abs(signal) <= MAX_MV)  # NaN is not


def is_allowed_length(samples: int, fs: float) -> bool:
    """Say whether a strip lasts 2 to 10 s, to the nearest sample.

    Parameters
    ----------
    samples : int
        Length of the strip.
    fs : float
        Its sampling rate in Hz.

    Returns
    -------
    bool
        Whether it may be classified.

    Examples
    --------
    >>> is_allowed_length(720, 360.1), is_allowed_length(719, 360.1)
    (True, False)
    """
    shortest, longest = MIN_WINDOW_S * fs - LENGTH_TOLERANCE_SAMPLES, MAX_WINDOW_S * fs + LENGTH_TOLERANCE_SAMPLES
    return shortest <= samples <= longest


def hold_invalid(strips: np.ndarray) -> np.ndarray:
    """Replace invalid samples by the last valid one before them, or the first valid one after them.

    Parameters
    ----------
    strips : numpy.ndarray
        Shape (n_strips, n), mV; invalid is what `is_valid` says.

    Returns
    -------
    numpy.ndarray
        The same shape; a strip without any valid sample becomes 0.

    Examples
    --------
    >>> hold_invalid(np.array([[np.nan, 1.0, 2e4, 2.0]]))
    array([[1., 1., 1., 2.]])
    """
    valid = is_valid(strips)
    if valid.all():
        return strips
    first = np.argmax(valid, axis=1)[:, None]
    last_valid = np.maximum.accumulate(np.where(valid, np.arange(strips.shape[1]), first), axis=1)
    held = np.take_along_axis(strips, last_valid, axis=1)
    return np.where(valid.any(axis=1, keepdims=True), held, 0.0)


def rate_ratio(fs: float) -> tuple[int, int]:
    """Return 125 Hz over a sampling rate, as a ratio of integers.

    Parameters
    ----------
    fs : float
        Sampling rate in Hz, 100 to 2000.

    Returns
    -------
    up, down : int
        For 360 Hz, (25, 72).

    Raises
    ------
    TypeError
        If `fs` is not a number.
    ValueError
        If `fs` is out of range.

    Examples
    --------
    >>> rate_ratio(360)
    (25, 72)
    """
    if isinstance(fs, bool) or not isinstance(fs, (int, float, np.integer, np.floating)):
        raise TypeError(f"fs={fs!r} is not a number; give the sampling rate in Hz.")
    low, high = FS_RANGE_HZ
    if not low <= fs <= high:  # also refuses NaN
        raise ValueError(
            f"fs={fs!r} Hz is out of range; allowed are {low:g} to {high:g} Hz. Resample the signal first."
        )
    return _ratio(float(fs))


@lru_cache(maxsize=64)
def _ratio(fs: float) -> tuple[int, int]:
    down_over_up = Fraction(fs / FS).limit_denominator(MAX_UP)
    return down_over_up.denominator, down_over_up.numerator


def _to_grid(signal: np.ndarray) -> np.ndarray:
    return np.round(signal / GRID_MV) * GRID_MV


@lru_cache(maxsize=16)
def resampler_taps(up: int, down: int) -> np.ndarray:
    """Return the low-pass that resamples, on the common grid of both rates, 125 · down Hz.

    Parameters
    ----------
    up, down : int
        As `rate_ratio` returns them.

    Returns
    -------
    numpy.ndarray
        Shape (10 · down + 1,). Its shape in time does not depend on the rate.
    """
    half = RESAMPLER_DELAY_SAMPLES * down
    cycles = np.arange(-half, half + 1) * (RESAMPLER_CUTOFF_HZ / (FS * down))
    taps = np.sinc(2 * cycles) * np.kaiser(2 * half + 1, RESAMPLER_KAISER_BETA)
    # Every output takes each up-th tap. With a sum of 1 each, a drift of the electrode's offset leaves no trace; 60 dB
    # would not do, for at 128 Hz its image lies at 3 Hz.
    phase = np.arange(len(taps)) % up
    return taps / np.bincount(phase, taps)[phase]


@lru_cache(maxsize=8)
def _strip_filter(
    preprocessing: Preprocessing, fs: float, n: int
) -> tuple[int, int, int, slice | np.ndarray, np.ndarray, np.ndarray]:
    """Return what filters strips of n samples.

    These are the samples of the lead-in, the first and the number of the resampled ones up to the strip's end, for each
    of those the last input sample that it is made of, the weights of the samples up to it, and the spectrum of the
    band-pass.
    """
    up, down = _ratio(fs)
    lead_in = min(round(WARM_UP_S * fs), n)
    first = round(lead_in * up / down)
    wanted = first + round(n * up / down)
    newest, weights = _newest_and_weights(up, down, 0, wanted, 0)
    # The convolution is cyclic: what comes round ends before `first`.
    size = math.ceil((2 * wanted - first) / FFT_SIZE_STEP) * FFT_SIZE_STEP
    return lead_in, first, wanted, newest, weights, _frequency_response(preprocessing, wanted, size)


@lru_cache(maxsize=16)
def _weights(up: int, down: int) -> np.ndarray:
    """Return the resampler's weights of the samples up to the newest, one row for each phase of the common grid."""
    taps = resampler_taps(up, down)
    return np.ascontiguousarray(np.concatenate([taps, np.zeros(-len(taps) % up)]).reshape(-1, up).T[:, ::-1])


def _newest_and_weights(
    up: int, down: int, first: int, last: int, before: int
) -> tuple[slice | np.ndarray, np.ndarray]:
    """Return for each of some outputs its newest input, counted after the inputs `before`, and the weights up to it."""
    weights = _weights(up, down)
    if up == 1:  # one row of weights, and views instead of copies
        return slice(first * down - before, last * down - before, down), weights
    time = np.arange(first, last) * down  # on the common grid
    return time // up - before, weights[time % up]


def _convolve(samples: np.ndarray, newest: slice | np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Weight the samples up to each newest one, of which as many lie before the first as a row has weights but one."""
    taps = weights.shape[1]
    # The view that sliding_window_view returns, made in a tenth of its time.
    every = np.ndarray((len(samples) - taps + 1, taps), samples.dtype, samples, strides=samples.strides * 2)
    np.einsum("ij,ij->i", every[newest], weights, out=out)


def _memory(preprocessing: Preprocessing) -> int:
    """Return for how many samples the band-pass remembers its input, as far as double precision can tell."""
    poles = np.concatenate([np.roots(section[3:]) for section in preprocessing.sos])
    return math.ceil(math.log(NEGLIGIBLE) / math.log(np.abs(poles).max()))


@lru_cache(maxsize=16)
def _frequency_response(preprocessing: Preprocessing, n: int, size: int) -> np.ndarray:
    """Return the discrete Fourier transform, of `size` samples, of the first n samples of the impulse response."""
    return np.fft.rfft(_impulse_response(preprocessing, n), size)


@lru_cache(maxsize=16)
def _impulse_response(preprocessing: Preprocessing, n: int) -> np.ndarray:
    response = [1.0] + [0.0] * (n - 1)
    for b0, b1, b2, _, a1, a2 in preprocessing.sos.tolist():
        once = twice = 0.0
        for i, x in enumerate(response):
            y = response[i] = b0 * x + once
            once = b1 * x - a1 * y + twice
            twice = b2 * x - a2 * y
    return np.array(response)


@lru_cache(maxsize=16)
def _sections(preprocessing: Preprocessing) -> np.ndarray:
    """Design the filter: poles in the plane of s, bilinear transform with warped corners, then pairs of poles."""
    order = preprocessing.order
    low, high = np.tan(np.pi * np.array([preprocessing.low_hz, preprocessing.high_hz]) / FS)
    prototype = -np.exp(1j * np.pi * np.arange(1 - order, order, 2) / (2 * order))
    middle = prototype * (high - low) / 2
    apart = np.sqrt(middle**2 - low * high)
    s = np.concatenate([middle + apart, middle - apart])
    gain = np.prod((high - low) / (1 - s[:order]) / (1 - s[order:])).real
    poles = (1 + s) / (1 - s)
    real = np.abs(poles.imag) < POLE_IS_REAL
    pairs = [(pole, pole.conj()) for pole in poles[~real & (poles.imag > 0)]]
    if real.any():
        pairs.append(tuple(sorted(poles[real].real, key=_from_unit_circle)))
    # The pair nearest to the unit circle comes last and takes the zeros that are nearest to it, as in scipy.signal:
    # so no section amplifies much.
    zeros = np.repeat([1.0, -1.0], order)
    sections: list[list[float]] = []
    for pole, other in sorted(pairs, key=lambda pair: _from_unit_circle(pair[0])):
        nearest = np.argsort(np.abs(zeros - pole), kind="stable")[:2]
        numerator = [1.0, -zeros[nearest].sum(), zeros[nearest].prod()]
        sections.insert(0, [*numerator, 1.0, -(pole + other).real, (pole * other).real])
        zeros = np.delete(zeros, nearest)
    sections[0][:3] = [gain * b for b in sections[0][:3]]
    if preprocessing.mains_hz is not None:
        hz = preprocessing.mains_hz
        share = 1 / (1 + math.tan(math.pi * hz / FS / NOTCH_Q))
        cosine = math.cos(2 * math.pi * hz / FS)
        sections.append([share, -2 * share * cosine, share, 1.0, -2 * share * cosine, 2 * share - 1])
    return np.array(sections)


def _from_unit_circle(pole: complex) -> float:
    return abs(1 - abs(pole))
