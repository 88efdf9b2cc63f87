"""Classical detectors: each feature against its definition written out as loops, flat and odd windows too."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecg_shock.evaluation import detectors
from ecg_shock.evaluation.detectors import DETECTORS

FS = 125
FEATURES = {detector.name: detector.feature for detector in DETECTORS}
every_feature = pytest.mark.parametrize("feature", FEATURES.values(), ids=FEATURES)


def pulses(period: int, width: int, length: int = 625, start: int = 0) -> np.ndarray:
    """Give rectangular pulses of 1 mV."""
    return ((np.arange(length) - start) % period < width).astype(float)


def sine(hz: float, length: int = 625) -> np.ndarray:
    """Give a sine of 1 mV."""
    return np.sin(2 * np.pi * hz * np.arange(length) / FS + 0.3)


@pytest.fixture
def windows(rng: np.random.Generator) -> np.ndarray:
    """Make windows of every kind: sines, pulses, beats with noise, noise, a decay, one with a constant second."""
    time = np.arange(700) / FS  # not a whole number of seconds
    beats = np.exp(-(((time % 0.8 - 0.4) / 0.02) ** 2)) + 0.05 * rng.normal(size=(6, 700))
    slow_noise = np.cumsum(rng.normal(size=(6, 700)), axis=1)
    halting = sine(4, 700)
    halting[125:300] = 0.7
    rows = [
        *(sine(hz, 700) for hz in (1.3, 4, 7.7)),
        *(pulses(period, width, 700) for period, width in ((100, 8), (60, 30), (31, 3), (650, 5))),
        *beats,
        *rng.normal(size=(6, 700)),
        *slow_noise,
        np.exp(-time),
        halting,
    ]
    return np.array(rows)


def centred(rows: np.ndarray) -> np.ndarray:
    """Subtract each row's mean."""
    return rows - rows.mean(axis=-1, keepdims=True)


@every_feature
def test_flat_windows_are_farthest_from_fibrillation(feature: Callable, windows: np.ndarray) -> None:
    """A flat window gets the same value for any offset, and it is the one farthest from fibrillation."""
    flat = feature(np.array([np.zeros(700), np.full(700, 0.1), np.full(700, -7e9)]))
    assert np.isfinite(flat).all()
    assert len(set(flat.tolist())) == 1
    others = feature(windows)
    assert (flat[0] <= others).all() or (flat[0] >= others).all()


def test_values_of_flat_windows() -> None:
    """Flat windows get the values that the docstrings give."""
    expected = {
        "TCI": 5000,
        "TCSC": 0,
        "leakage": 1,
        "count2": 0,
        "MAV": 0,
        "M": 20,
        "A2": 0,
        "PSR": 1 / 1600,
        "HILB": 1 / 1600,
        "complexity": 2 * np.log2(625) / 625,
        "SampEn": 0,
    }
    assert {name: feature(np.full((1, 625), 0.3))[0] for name, feature in FEATURES.items()} == expected


@every_feature
def test_many_windows_get_the_advice_of_one_by_one(feature: Callable, windows: np.ndarray) -> None:
    """Other windows and chunks have no influence, except for the rounding of a Fourier transform."""
    many = np.tile(windows, (2 + detectors.CHUNK // len(windows), 1)).astype(np.float32)
    alone = np.concatenate([feature(window[np.newaxis]) for window in windows.astype(np.float32)])
    np.testing.assert_allclose(feature(many), np.resize(alone, len(many)), rtol=1e-12)
    assert len(many) > detectors.CHUNK


@every_feature
def test_amplitude_and_offset_play_no_part(feature: Callable, windows: np.ndarray) -> None:
    """From the smallest to the largest amplitudes a window gets the same value; an offset changes only rounding."""
    expected = feature(windows)
    for factor in (2.0**-1000, 0.5, 2.0**1016):
        np.testing.assert_array_equal(feature(factor * windows), expected)
    kept = np.ones(len(windows), dtype=bool)
    kept[3:7] = kept[-1] = False  # their many equal samples all fall to either side of a limit together
    shifted = feature(3.7 * windows[kept] + 11)
    np.testing.assert_allclose(shifted, expected[kept], rtol=1e-2)


@every_feature
def test_input_is_not_written_to(feature: Callable, windows: np.ndarray) -> None:
    """The same windows serve all detectors."""
    before = windows.copy()
    windows.flags.writeable = False
    feature(windows)
    np.testing.assert_array_equal(windows, before)


@every_feature
@pytest.mark.parametrize("samples", [250, 251, 312, 1250])
def test_every_length_that_is_allowed(feature: Callable, samples: int, rng: np.random.Generator) -> None:
    """Lengths of 2 to 10 s, no windows, and integers are allowed."""
    assert np.isfinite(feature(rng.normal(size=(3, samples)))).all()
    assert feature(np.empty((0, samples))).shape == (0,)
    assert feature(rng.integers(-500, 500, (2, samples))).shape == (2,)


@every_feature
@pytest.mark.parametrize("shape", [(625,), (2, 249), (2, 1251), (2, 625, 1)])
def test_other_shapes_are_refused(feature: Callable, shape: tuple[int, ...]) -> None:
    """The error says what came and what is allowed."""
    with pytest.raises(ValueError, match=r"allowed is \(n_windows, n_samples\) with 250 to 1250 samples"):
        feature(np.zeros(shape))


@every_feature
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_missing_samples_are_refused(feature: Callable, value: float, rng: np.random.Generator) -> None:
    """The error names the first such window, and says how many there are."""
    ecg = rng.normal(size=(300, 625))
    ecg[[200, 250], [3, 624]] = value
    with pytest.raises(ValueError, match="2 of 300 windows have NaN or infinite samples, the first is window 200"):
        feature(ecg)


@every_feature
@pytest.mark.parametrize("dtype", [complex, bool, object, "U3"])
def test_what_is_no_number_is_refused(feature: Callable, dtype: type) -> None:
    """Complex numbers, booleans, objects and text are refused."""
    with pytest.raises(TypeError, match="give real numbers"):
        feature(np.zeros((1, 625)).astype(dtype))


def slow_tci(window: np.ndarray) -> float:
    """Walk from pulse to pulse; at the ends of the window a pause counts half."""
    n_seconds = len(window) // FS
    above = []
    for second in np.split(window[: n_seconds * FS], n_seconds):
        level = 0.2 * (second - second.mean()).max()
        above += [np.ptp(second) > 0 and value - second.mean() > level for value in second]
    values = []
    for begin in range(0, n_seconds * FS, FS):
        inside = [i for i in range(begin, begin + FS) if above[i]]
        if not inside:
            values.append(1000 * len(window) / FS)
            continue
        intervals = sum(above[i + 1] and not above[i] for i in range(inside[0], inside[-1]))
        earlier = [i for i in range(begin) if above[i]]
        later = [i for i in range(begin + FS, len(above)) if above[i]]
        if inside[0] > begin:
            intervals += (inside[0] - begin) / (inside[0] - earlier[-1] - 1) if earlier else 0.5
        if inside[-1] < begin + FS - 1:
            intervals += (begin + FS - 1 - inside[-1]) / (later[0] - inside[-1] - 1) if later else 0.5
        values.append(min(1000 / intervals if intervals else np.inf, 1000 * len(window) / FS))
    return float(np.mean(values))


def test_tci_walks_from_pulse_to_pulse(windows: np.ndarray) -> None:
    """Every kind of window agrees with a loop over its samples, including a second without pulses."""
    np.testing.assert_allclose(detectors.tci(windows), [slow_tci(window) for window in windows], rtol=1e-9)


@pytest.mark.parametrize("period", [25, 50, 100])
def test_tci_of_regular_pulses_is_their_period(period: int) -> None:
    """Narrow pulses in the middle of each period give the period exactly."""
    ecg = pulses(period, 3, 1000, start=period // 2)
    assert detectors.tci(ecg[np.newaxis])[0] == pytest.approx(1000 * period / FS, rel=0.02)


def test_tcsc_counts_sample_by_sample(windows: np.ndarray) -> None:
    """The proportion above a fifth of the peak agrees with a count over tapered segments."""
    expected = []
    for window in centred(windows):
        shares = []
        for begin in range(0, len(window) - 375 + 1, FS):
            tapered = []
            for i in range(375):
                seconds = min(i, 374 - i) / FS
                weight = 0.5 * (1 - np.cos(4 * np.pi * seconds)) if seconds < 0.25 else 1.0
                tapered.append(abs(weight * window[begin + i]))
            shares.append(sum(value > 0.2 * max(tapered) for value in tapered) / 375)
        expected.append(np.mean(shares))
    np.testing.assert_allclose(detectors.tcsc(windows), expected, atol=1e-3)  # one sample at the limit is 0.0009


@pytest.mark.parametrize("hz", [2.5, 3.125, 5.0, 6.25])
def test_leakage_of_a_sine_is_none(hz: float) -> None:
    """The leakage of a sine is small; it is not 0, since half a period is not an integer number of samples."""
    assert detectors.leakage(sine(hz)[np.newaxis])[0] < 0.07


def test_leakage_of_narrow_pulses_is_large() -> None:
    """Pulses that never meet each other half a mean period later cancel nothing."""
    assert detectors.leakage(pulses(100, 5)[np.newaxis])[0] > 0.75


def test_leakage_follows_its_formula(windows: np.ndarray) -> None:
    """Sums written out sample by sample give the same."""
    expected = []
    for window in centred(windows):
        slope = sum(abs(window[i] - window[i - 1]) for i in range(1, len(window)))
        shift = min(max(int(np.pi * sum(abs(window)) / slope + 0.5), 1), len(window) // 2)
        pairs = [(window[i], window[i - shift]) for i in range(shift, len(window))]
        expected.append(sum(abs(a + b) for a, b in pairs) / sum(abs(a) + abs(b) for a, b in pairs))
    np.testing.assert_allclose(detectors.leakage(windows), expected, rtol=1e-9)


def test_count2_runs_its_filter_sample_by_sample(windows: np.ndarray) -> None:
    """The recursion and the counts, written as a loop with integer coefficients, give the same proportions."""
    expected = []
    for window in centred(windows):
        window /= np.abs(window).max()
        x = [0.0, 0.0, *(window - window[0])]
        y = [0.0, 0.0]
        for i in range(2, len(x)):
            y.append((168 * y[i - 1] - 98 * y[i - 2] + 15 * (x[i] - x[i - 2])) / 128)
        shares = []
        for begin in range(2, len(window) // FS * FS, FS):
            second = np.abs(y[begin : begin + FS])
            shares.append(np.mean([value >= np.mean(second) and value > 1e-6 for value in second]))
        expected.append(np.mean(shares))
    np.testing.assert_allclose(detectors.count2(windows), expected, atol=2e-3)  # one sample at the limit is 0.0016


def test_count2_filter_is_the_published_one_at_half_the_rate() -> None:
    """Poles at 125 Hz are those at 250 Hz squared; centre, width and gain agree."""

    def response(numerator: list[float], denominator: list[float], fs: float, hz: np.ndarray) -> np.ndarray:
        z = np.exp(-2j * np.pi * hz / fs)
        return np.abs(np.polyval(numerator[::-1], z) / np.polyval(denominator[::-1], z))

    def centre_and_width(numerator: list[float], denominator: list[float], fs: float) -> tuple[float, float, float]:
        hz = np.linspace(5, 30, 25_001)
        gain = response(numerator, denominator, fs, hz)
        passed = hz[gain >= gain.max() / np.sqrt(2)]
        return hz[np.argmax(gain)], passed[-1] - passed[0], gain.max()

    published = [1 / 16, 0, -1 / 16], [1, -14 / 8, 7 / 8]
    ours = list(detectors.COUNT_NUMERATOR), list(detectors.COUNT_DENOMINATOR)
    np.testing.assert_allclose(np.sort(np.roots(ours[1])), np.sort(np.roots(published[1]) ** 2))
    np.testing.assert_allclose(centre_and_width(*ours, FS), centre_and_width(*published, 2 * FS), rtol=0.04)
    assert centre_and_width(*ours, FS)[0] == pytest.approx(14.6, abs=0.05)


def test_mav_takes_means_of_segments(windows: np.ndarray) -> None:
    """Segments cut by hand give the same."""
    expected = []
    for window in centred(windows):
        segments = [np.abs(window[begin : begin + 250]) for begin in range(0, len(window) - 249, FS)]
        expected.append(np.mean([segment.mean() / segment.max() for segment in segments]))
    np.testing.assert_allclose(detectors.mav(windows), expected, rtol=1e-9)
    assert detectors.mav(sine(5)[np.newaxis])[0] == pytest.approx(2 / np.pi, rel=0.02)


def test_spectrum_by_its_definition(windows: np.ndarray) -> None:
    """A Fourier transform written as sums, and conditions as the paper words them, give M and A2."""
    n = windows.shape[1]
    index = np.arange(n)
    hamming = 0.54 - 0.46 * np.cos(2 * np.pi * index / (n - 1))
    expected_m, expected_a2 = [], []
    for window in centred(windows) * hamming:
        lines = {}
        for k in range(n // 2 + 1):
            angle = 2 * np.pi * k * index / n
            if Fraction(k * FS, n) >= Fraction("0.5"):
                lines[Fraction(k * FS, n)] = abs((window * np.cos(angle)).sum()) + abs((window * np.sin(angle)).sum())
        largest, peak = max((a, f) for f, a in lines.items() if f <= 9)
        counted = {f: a for f, a in lines.items() if a >= 0.05 * largest and f <= 20 * peak}
        total = sum(counted.values())
        expected_m.append(sum(float(f / peak) * a for f, a in counted.items()) / total)
        expected_a2.append(sum(a for f, a in counted.items() if 7 * peak <= 10 * f <= 14 * peak) / total)
    np.testing.assert_allclose(detectors.spectral_m(windows), expected_m, rtol=1e-9)
    np.testing.assert_allclose(detectors.spectral_a2(windows), expected_a2, rtol=1e-9)


def test_spectrum_of_a_sine() -> None:
    """All of a sine lies around its peak."""
    ecg = sine(5)[np.newaxis]
    assert detectors.spectral_m(ecg)[0] == pytest.approx(1, abs=0.02)
    assert detectors.spectral_a2(ecg)[0] == pytest.approx(1)


def share_of_boxes(across: np.ndarray, up: np.ndarray, range_across: np.ndarray, range_up: np.ndarray) -> float:
    """Collect boxes one point at a time."""
    boxes = set()
    for a, b in zip(across, up, strict=True):
        place = [
            min(int(40 * (value - scale.min()) / (scale.max() - scale.min())), 39)
            for value, scale in ((a, range_across), (b, range_up))
        ]
        boxes.add(tuple(place))
    return len(boxes) / 1600


def test_psr_collects_boxes_point_by_point(windows: np.ndarray) -> None:
    """A loop over points half a second apart visits as many boxes."""
    expected = []
    for window in windows[:, ::2]:
        expected.append(share_of_boxes(window[31:], window[:-31], window, window))
    np.testing.assert_allclose(detectors.psr(windows), expected, atol=1.5 / 1600)  # a point on a line


def test_hilb_collects_boxes_point_by_point(windows: np.ndarray) -> None:
    """With the Hilbert transform as a phase shift by a quarter period, as many boxes are visited."""
    expected = []
    for window in centred(windows):
        turned = np.fft.ifft(-1j * np.sign(np.fft.fftfreq(len(window))) * np.fft.fft(window)).real[::2]
        expected.append(share_of_boxes(window[::2], turned, window[::2], turned))
    np.testing.assert_allclose(detectors.hilb(windows), expected, atol=3.5 / 1600)  # points on lines


def slow_words(text: bytes) -> int:
    """Count words by searching for each of them in all earlier samples."""
    words, begin, length = 0, 0, 1
    while begin + length <= len(text):
        if text[begin : begin + length] in text[: begin + length - 1]:
            length += 1
        else:
            words, begin, length = words + 1, begin + length, 1
    return words + (begin < len(text))


@example(bits=[0] * 50)
@example(bits=[1, 0] * 30)
@given(bits=st.lists(st.integers(0, 1), max_size=80))
def test_words_of_any_sequence(bits: list[int]) -> None:
    """Constant, alternating and arbitrary sequences have as many words as by the definition."""
    assert detectors._count_words(bytes(bits)) == slow_words(bytes(bits))


def test_words_of_long_random_sequences(rng: np.random.Generator) -> None:
    """Sequences as long as a window agree too; Lempel and Ziv's own example has 6 words."""
    for share in (0.02, 0.3, 0.5):
        text = (rng.random(1250) < share).astype(np.uint8).tobytes()
        assert detectors._count_words(text) == slow_words(text)
    assert detectors._count_words(bytes(map(int, "0001101001000101"))) == 6


def test_complexity_by_its_definition(windows: np.ndarray, rng: np.random.Generator) -> None:
    """The threshold that turns samples into bits, written as conditions, and the words give the same."""
    expected, kinds = [], set()
    phase = np.arange(700) % 100
    beats = np.exp(-(((phase - 20) / 6) ** 2)) - np.exp(-(((phase - 70) / 6) ** 2))
    noise = rng.exponential(np.linspace(0.01, 0.2, 60)[:, np.newaxis], (60, 700)) * np.resize([[1], [-1]], (60, 1))
    windows = np.vstack([windows, beats + noise])
    for window in centred(windows):
        n, high, low = len(window), window.max(), window.min()
        above = sum(0 < value < 0.1 * high for value in window)
        below = sum(0.1 * low < value < 0 for value in window)
        kind = "zero" if above + below < 0.4 * n else "high" if above < below else "low"
        threshold = {"zero": 0.0, "high": 0.2 * high, "low": 0.2 * low}[kind]
        expected.append(slow_words((window >= threshold).tobytes()) / (n / np.log2(n)))
        kinds.add(kind)
    np.testing.assert_allclose(detectors.complexity(windows), expected, rtol=1e-9)
    assert kinds == {"zero", "high", "low"}


def slow_sample_entropy(window: np.ndarray) -> float:
    """Compare every pair of templates."""
    n, tolerance = len(window) - 2, 0.2 * window.std()
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    shorter = [(i, j) for i, j in pairs if max(abs(window[i : i + 2] - window[j : j + 2])) <= tolerance]
    longer = [(i, j) for i, j in shorter if abs(window[i + 2] - window[j + 2]) <= tolerance]
    return float(np.log((len(shorter) or len(pairs)) / max(len(longer), 1)))


def test_sample_entropy_compares_every_pair(windows: np.ndarray, rng: np.random.Generator) -> None:
    """Two nested loops over templates give the same."""
    some = np.array([*windows[[0, 8, 14, 20]], rng.normal(size=700)])[:, :250]
    expected = [slow_sample_entropy(window) for window in some]
    np.testing.assert_allclose(detectors.sample_entropy(some), expected, rtol=1e-9)


def test_sample_entropy_where_nothing_agrees(rng: np.random.Generator) -> None:
    """Two levels in random order have one bit of entropy, and a signal that never repeats has a finite value."""
    coin = rng.integers(0, 2, (5, 1250))
    np.testing.assert_allclose(detectors.sample_entropy(coin), np.log(2), rtol=0.02)
    ramp = np.linspace(-1, 1, 250) ** 3 * np.where(np.arange(250) % 2, 1, -1) * 1e3
    rough = rng.permutation(np.sign(ramp) * np.abs(ramp) ** 0.5)
    assert detectors.sample_entropy(rough[np.newaxis])[0] == pytest.approx(slow_sample_entropy(rough))


def test_every_detector_says_where_it_comes_from() -> None:
    """Names are unique, and each detector has a citation."""
    assert len(FEATURES) == len(DETECTORS) == 11
    assert all("doi:10." in detector.citation for detector in DETECTORS)
