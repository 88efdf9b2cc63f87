"""An analogue ECG gives the same signal at 125 Hz at any sampling rate, and wherever the stream is cut."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, firwin, iirnotch, sosfilt, tf2sos, upfirdn

from ecg_shock.preprocessing import (
    FS,
    Preprocessing,
    Preprocessor,
    hold_invalid,
    is_allowed_length,
    preprocess,
    preprocess_strips,
    rate_ratio,
    resampler_taps,
)

RATES_HZ = (100.0, 125.0, 128.0, 250.0, 257.0, 333.33, 360.0, 500.0, 1000.0, 2000.0)
DELAY_S = 0.04


def gain_db(hz: float, fs: float, preprocessing: Preprocessing | None = None) -> float:
    """Measure the steady-state gain of a sine as the ratio of root mean squares."""
    sine = np.sin(2 * np.pi * hz * np.arange(round(60 * fs)) / fs)
    filtered = preprocess(sine, fs, preprocessing)[round(20 * FS) :]
    return float(20 * np.log10(filtered.std() / sine[round(20 * fs) :].std()))


def sines(t: np.ndarray) -> np.ndarray:
    """Return an analogue signal of four sines on an offset, in mV."""
    parts = ((0.4, 0.5, 0.0), (3.0, 1.0, 1.0), (11.0, 0.3, 2.0), (23.0, 0.2, 3.0))
    return 1.7 + sum(mv * np.sin(2 * np.pi * hz * t + phase) for hz, mv, phase in parts)


def ecg(t: np.ndarray) -> np.ndarray:
    """Return an analogue sinus rhythm of 75 bpm: R and T waves as Gaussians, and baseline wander, in mV."""
    from_beat = (t % 0.8) - 0.4
    waves = 1.5 * np.exp(-0.5 * (from_beat / 0.012) ** 2) + 0.3 * np.exp(-0.5 * ((from_beat - 0.25) / 0.04) ** 2)
    return waves + 0.2 * np.sin(2 * np.pi * 0.2 * t)


@pytest.mark.parametrize("fs", [125.0, 250.0, 360.0, 1000.0])
def test_pass_band_keeps_amplitude(fs: float) -> None:
    """From 5 to 20 Hz the gain is within 1 dB; the corners are at -3 dB."""
    assert all(abs(gain_db(hz, fs)) < 1 for hz in (5, 7, 10, 15, 20))
    assert gain_db(1.0, fs) == pytest.approx(-3.01, abs=0.1)
    assert gain_db(30.0, fs) == pytest.approx(-3.01, abs=0.1)


@pytest.mark.parametrize("fs", [250.0, 360.0, 1000.0])
def test_stop_band_is_rejected(fs: float) -> None:
    """Baseline wander, mains hum and aliases are rejected; a notch removes the rest of the hum."""
    assert gain_db(0.05, fs) < -45
    assert gain_db(50.0, fs) < -20
    assert gain_db(60.0, fs) < -50
    for mains_hz in (50.0, 60.0):
        assert gain_db(mains_hz, fs, Preprocessing(mains_hz=mains_hz)) < -70
        assert abs(gain_db(20.0, fs, Preprocessing(mains_hz=mains_hz))) < 1
    assert max(gain_db(hz, fs) for hz in np.arange(80, min(121, fs / 2))) < -55
    assert max(gain_db(hz, 1000.0) for hz in (105, 120, 130, 145, 230, 255, 380, 490)) < -55


@pytest.mark.parametrize("analogue", [sines, ecg])
@pytest.mark.parametrize("fs", RATES_HZ)
def test_copies_of_one_analogue_signal_agree(fs: float, analogue) -> None:
    """The same 20 s recorded at any rate differ by less than 3 µV from the copy at 250 Hz."""
    copy = preprocess(analogue(np.arange(round(20 * fs)) / fs), fs)
    reference = preprocess(analogue(np.arange(5000) / 250), 250.0)
    assert len(copy) == math.ceil(round(20 * fs) * 125 / fs)
    # In the first 80 ms the first sample stands for all earlier ones.
    assert np.abs(copy[10:2500] - reference[10:]).max() < 0.003
    assert np.abs(reference).max() > 0.5


@pytest.mark.parametrize("fs", RATES_HZ)
def test_resampling_delays_by_40_ms(fs: float) -> None:
    """The delay of an 8 Hz sine, less that of the band-pass, is 40 ms at every sampling rate."""
    hz = 8.0
    filtered = preprocess(np.sin(2 * np.pi * hz * np.arange(round(20 * fs)) / fs), fs)[1250:]
    t = np.arange(1250, 1250 + len(filtered)) / FS
    phase = np.angle((filtered * np.exp(-2j * np.pi * hz * t)).sum() * 1j)
    z = np.exp(2j * np.pi * hz / FS)
    band_pass = np.prod([np.polyval(s[:3], z) / np.polyval(s[3:], z) for s in Preprocessing().sos])
    assert (np.angle(band_pass) - phase) / (2 * np.pi * hz) == pytest.approx(DELAY_S, abs=1e-4)


def test_impulse_comes_out_after_it_went_in() -> None:
    """The response to an impulse is causal, and peaks about 40 ms later."""
    impulse = np.zeros(5000)
    impulse[2500] = 1.0
    response = preprocess(impulse, 250.0)
    assert np.abs(response[:1250]).max() < 1e-15
    assert 0.04 <= np.argmax(response) / FS - 10 <= 0.06


@given(
    fs=st.sampled_from((125.0, 128.0, 250.0, 257.0, 333.33, 360.0, 2000.0)),
    cuts=st.lists(st.integers(0, 900), max_size=12),
    single=st.booleans(),
    invalid=st.lists(st.integers(0, 899), max_size=8),
    gap=st.tuples(st.integers(0, 899), st.integers(0, 600)),
    mains_hz=st.sampled_from((None, 50.0)),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_stream_cut_anywhere_equals_the_whole(
    fs: float, cuts: list[int], single: bool, invalid: list[int], gap: tuple[int, int], mains_hz: float | None
) -> None:
    """They agree within 1e-12 mV, also for empty pieces, single samples, invalid samples and long gaps."""
    signal = np.random.default_rng(len(cuts)).normal(3, 1, 900)
    signal[invalid] = np.nan
    signal[gap[0] : sum(gap)] = np.nan
    preprocessing = Preprocessing(mains_hz=mains_hz)
    edges = [0, *range(1, 20), *range(500, 520)] if single else [0]
    edges = sorted([*edges, *cuts, 900])
    stream = Preprocessor(preprocessing, fs)
    pieces = [stream.process(signal[first:last]) for first, last in pairwise(edges)]
    whole = preprocess(signal, fs, preprocessing)
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-12)


def test_stream_returns_every_complete_sample() -> None:
    """After n samples the stream has returned all outputs up to the last input."""
    stream = Preprocessor(Preprocessing(), 360.0)
    returned = 0
    for received in range(1, 500):
        returned += len(stream.process(np.ones(1)))
        assert returned == sum(k / 125 < received / 360 - 1e-9 for k in range(200))


@pytest.mark.parametrize("offset", [-300.0, 0.5, 12.0])
def test_offset_does_not_matter(offset: float, rng: np.random.Generator) -> None:
    """An electrode's offset leaves no trace, not even at the start."""
    signal = rng.normal(size=2000)
    np.testing.assert_allclose(preprocess(signal + offset, 250.0), preprocess(signal, 250.0), atol=1e-10)
    strips = signal.reshape(2, -1)
    np.testing.assert_allclose(preprocess_strips(strips + offset, 250.0), preprocess_strips(strips, 250.0), atol=1e-10)


@pytest.mark.parametrize("fs", RATES_HZ)
def test_offset_that_drifts_leaves_no_trace(fs: float) -> None:
    """Three seconds after an electrode's offset has changed by 100 mV, less than 1 µV is left."""
    signal = np.repeat([0.0, 100.0], round(10 * fs))
    assert np.abs(preprocess(signal, fs)[round(13 * FS) :]).max() < 0.001


@pytest.mark.parametrize("scale", [-1.0, 0.01, 7.0])
def test_amplitude_is_kept(scale: float, rng: np.random.Generator) -> None:
    """The filter is linear: it does not normalise the amplitude."""
    signal = rng.normal(size=2000)
    np.testing.assert_allclose(preprocess(scale * signal, 360.0), scale * preprocess(signal, 360.0), atol=1e-12)


def test_invalid_samples_hold_the_last_valid_one() -> None:
    """Invalid samples have the same effect as copies of the last valid one, and the result holds no NaN."""
    signal = sines(np.arange(1500) / 250)
    gappy = signal.copy()
    gappy[:100] = np.nan
    gappy[400] = np.inf
    gappy[420] = 2e4
    gappy[700:760] = np.nan
    gappy[1490:] = -np.inf
    filled = signal.copy()
    filled[:100] = signal[100]
    filled[400] = signal[399]
    filled[420] = signal[419]
    filled[700:760] = signal[699]
    filled[1490:] = signal[1489]
    np.testing.assert_allclose(preprocess(gappy, 250.0), preprocess(filled, 250.0), atol=1e-12)
    np.testing.assert_allclose(
        preprocess_strips(gappy[None], 250.0), preprocess_strips(filled[None], 250.0), atol=1e-12
    )
    np.testing.assert_array_equal(hold_invalid(gappy[None])[0], filled)


@pytest.mark.parametrize("fs", [125.0, 250.0, 360.0])
def test_electrode_that_comes_back_with_another_offset_leaves_no_trace(fs: float) -> None:
    """After a gap of 1 s the signal continues from its last value; after a shorter gap it steps."""
    signal = sines(np.arange(round(12 * fs)) / fs)
    first = round(5 * fs)
    for missing, steps in ((math.ceil(fs), False), (math.ceil(fs) - 1, True)):
        gappy = signal.copy()
        gappy[first : first + missing] = np.nan
        gappy[first + missing :] += 300.0
        joined = gappy.copy()
        joined[first : first + missing] = signal[first - 1]
        joined[first + missing :] -= gappy[first + missing] - signal[first - 1]
        difference = np.abs(preprocess(gappy, fs) - preprocess(joined, fs)).max()
        assert difference > 10 if steps else difference < 1e-9


def test_no_valid_sample_gives_zero() -> None:
    """Without any valid sample the result is zero, and a stream starts at its first valid sample."""
    assert not preprocess(np.full(500, np.nan), 250.0).any()
    assert not preprocess_strips(np.full((2, 500), np.nan), 250.0).any()
    stream = Preprocessor(Preprocessing(), 250.0)
    stream.process(np.full(250, np.nan))
    assert not stream.process(np.full(250, 4.0)).any()


@pytest.mark.parametrize("fs", RATES_HZ)
def test_strips_join_the_continuous_signal(fs: float) -> None:
    """A strip agrees with the continuous signal within 20 µV from 0.6 s on, and ever better later."""
    whole = ecg(np.arange(round(20 * fs)) / fs)
    start = round(round(8.0 * FS) * fs / FS)
    strip = preprocess_strips(whole[None, start : start + round(5 * fs)], fs)[0]
    continuous = preprocess(whole, fs)[1000 : 1000 + len(strip)]
    distance = np.abs(strip - continuous)
    assert distance[75:].max() < 0.02
    # At 333.33 Hz the strip's samples lie between those of the recording.
    assert distance[375:].max() < (0.006 if fs == 333.33 else 0.0001)


@pytest.mark.parametrize("fs", RATES_HZ)
def test_drifting_strip_begins_without_a_jump(fs: float) -> None:
    """A baseline that drifts by 3 mV in 5 s leaves at most 0.2 mV, also at the strip's start."""
    drift = 3 * np.sin(2 * np.pi * 0.05 * np.arange(round(5 * fs)) / fs)
    assert np.abs(preprocess_strips(drift[None], fs)).max() < 0.2


@pytest.mark.parametrize("fs", [*RATES_HZ, 249.97, 180.0])
@pytest.mark.parametrize("seconds", [2.0, 3.3, 5.0, 10.0])
def test_strip_has_its_length_at_125_hz(fs: float, seconds: float) -> None:
    """A strip of n samples becomes one of n · 125 / fs, rounded."""
    n = math.ceil(seconds * fs)
    assert preprocess_strips(np.zeros((2, n)), fs).shape == (2, round(n * 125 / fs))


@given(
    fs=st.sampled_from((100.0, 125.0, 128.0, 250.0, 257.0, 333.33, 360.0, 500.0, 1000.0, 249.97, 2000.0)),
    seconds=st.floats(2.0, 10.0),
    band=st.sampled_from(((1.0, 30.0), (0.3, 40.0), (0.05, 35.0), (2.5, 20.0))),
    order=st.integers(1, 4),
    mains_hz=st.sampled_from((None, 50.0, 60.0)),
    grid=st.booleans(),
    size_mv=st.sampled_from((0.1, 1.0, 3.0)),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_strip_and_recording_are_filtered_as_scipy_does(
    fs: float,
    seconds: float,
    band: tuple[float, float],
    order: int,
    mains_hz: float | None,
    grid: bool,
    size_mv: float,
) -> None:
    """Recordings, and strips behind their mirrored lead-in, agree with SciPy within 1e-9 mV."""
    rng = np.random.default_rng(round(1000 * seconds))
    n = math.ceil(seconds * fs)
    strips = size_mv * (rng.standard_normal((2, n)) + 0.1 * rng.standard_normal((2, n)).cumsum(axis=1)) - 200
    strips[1, 300:320] = np.nan
    preprocessing = Preprocessing(*band, order, mains_hz, grid)
    lead_in = round(2 * fs)
    held = hold_invalid(strips)
    with_lead_in = np.concatenate([held[:, :lead_in][:, ::-1], held], axis=1)
    first = round(lead_in * FS / fs)
    result = preprocess_strips(strips, fs, preprocessing)
    for strip, stream in zip(result, with_lead_in, strict=True):
        up, down = rate_ratio(fs)
        resampled = upfirdn(resampler_taps(up, down), stream - stream[0], up, down)[
            : math.ceil(len(stream) * up / down)
        ]
        expected = sosfilt(preprocessing.sos, resampled)
        if grid:
            expected = np.round(expected / 0.0025) * 0.0025
        np.testing.assert_allclose(preprocess(stream, fs, preprocessing), expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(strip, expected[first : first + len(strip)], rtol=0, atol=1e-9)
    assert np.abs(result).max() > 0.01 * size_mv


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("low_hz", [0.05, 0.5, 1.0, 3.0, 10.0, 20.0])
@pytest.mark.parametrize("high_hz", [11.0, 25.0, 30.0, 40.0])
def test_filter_is_that_of_scipy(low_hz: float, high_hz: float, order: int) -> None:
    """Each section has the coefficients of `scipy.signal`, with and without a notch."""
    if low_hz > high_hz:
        low_hz, high_hz = high_hz, low_hz
    expected = butter(order, (low_hz, high_hz), btype="bandpass", fs=FS, output="sos")
    np.testing.assert_allclose(Preprocessing(low_hz, high_hz, order).sos, expected, rtol=0, atol=1e-12)
    for hz in (50.0, 60.0):
        notch = tf2sos(*iirnotch(hz, 30, fs=FS))
        sos = Preprocessing(low_hz, high_hz, order, hz).sos
        np.testing.assert_allclose(sos, np.vstack([expected, notch]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("fs", [*RATES_HZ, 249.97])
def test_resampler_is_a_kaiser_low_pass(fs: float) -> None:
    """The taps are those of `scipy.signal.firwin`, up to the scale of each phase."""
    up, down = rate_ratio(fs)
    expected = firwin(10 * down + 1, 60.0, window=("kaiser", 5.65), fs=FS * down)
    for phase in range(min(up, 200)):
        expected[phase::up] /= expected[phase::up].sum()
        np.testing.assert_allclose(resampler_taps(up, down)[phase::up], expected[phase::up], rtol=0, atol=1e-12)


def test_strips_are_independent(rng: np.random.Generator) -> None:
    """A strip's result does not depend on its neighbours."""
    strips = rng.normal(size=(5, 800))
    together = preprocess_strips(strips, 250.0)
    for strip, result in zip(strips, together, strict=True):
        np.testing.assert_array_equal(preprocess_strips(strip[None], 250.0)[0], result)


def test_strip_with_a_sample_beyond_any_electrode_joins_the_continuous_signal() -> None:
    """A sample of 20 V counts as invalid, in a strip as in a recording."""
    signal = np.sin(2 * np.pi * 5 * np.arange(3000) / 250)
    signal[1700] = 2e4
    strip, continuous = preprocess_strips(signal[None, 1500:2750], 250.0)[0], preprocess(signal, 250.0)[750:1375]
    assert np.abs(strip - continuous)[375:].max() < 1e-4  # 3 s on, as for any strip
    assert np.abs(strip[375:]).max() < 1.1


def test_too_short_a_strip_is_refused() -> None:
    """A strip of less than two seconds is an error that says how long it is."""
    with pytest.raises(ValueError, match=r"499 samples at 250 Hz last 1\.996 s; at least 2 s"):
        preprocess_strips(np.zeros((1, 499)), 250.0)


def test_allowed_lengths_are_rounded_to_samples_at_every_rate() -> None:
    """From 100 to 1000 Hz, 2 s and 10 s are allowed, and one sample less or more is not."""
    for fs in np.arange(1000, 10001) / 10:
        shortest, longest = round(2 * fs), round(10 * fs)
        assert is_allowed_length(shortest, fs)
        assert is_allowed_length(longest, fs)
        assert not is_allowed_length(math.floor(2 * fs) - 1, fs)
        assert not is_allowed_length(math.ceil(10 * fs) + 1, fs)


@pytest.mark.parametrize("fs", [100.2, 125.75, 249.9, 360.1, 999.7])
def test_shortest_strip_is_filtered(fs: float, rng: np.random.Generator) -> None:
    """A strip of 2 s, rounded down to samples, is filtered like its mirrored lead-in and itself in a stream."""
    n = math.ceil(2 * fs - 0.5)
    strip = rng.normal(size=(1, n))
    whole = preprocess(np.concatenate([strip[0, ::-1], strip[0]]), fs)
    first = round(n * 125 / fs)
    result = preprocess_strips(strip, fs)[0]
    assert result.shape == (round(n * 125 / fs),)
    np.testing.assert_allclose(result, whole[first : first + len(result)], rtol=0, atol=1e-9)


def test_grid_rounds_to_2_5_microvolt(rng: np.random.Generator) -> None:
    """With the grid every sample is rounded to the nearest multiple of 2.5 µV."""
    signal = rng.normal(size=2000)
    exact = preprocess(signal, 250.0)
    rounded = preprocess(signal, 250.0, Preprocessing(grid=True))
    np.testing.assert_allclose(rounded / 0.0025, np.round(rounded / 0.0025), atol=1e-9)
    assert 0.001 < np.abs(rounded - exact).max() <= 0.00125 + 1e-12
    strips = preprocess_strips(signal[None], 250.0, Preprocessing(grid=True)) / 0.0025
    np.testing.assert_allclose(strips, np.round(strips), atol=1e-9)


@pytest.mark.parametrize("fs", [0, -250, 99.9, 2000.1, math.nan, math.inf, np.float32(50)])
def test_rate_out_of_range(fs: float) -> None:
    """A sampling rate outside 100 to 2000 Hz is an error that names it and what is allowed."""
    with pytest.raises(ValueError, match="100 to 2000 Hz") as refusal:
        preprocess(np.zeros(1000), fs)
    assert repr(fs) in str(refusal.value)


@pytest.mark.parametrize("fs", ["250", True, 250j, None, [250]])
def test_rate_that_is_not_a_number(fs: object) -> None:
    """A sampling rate that is not a number is a TypeError."""
    with pytest.raises(TypeError, match="not a number"):
        Preprocessor(Preprocessing(), fs)


@pytest.mark.parametrize(
    "wrong",
    [{"low_hz": 0.0}, {"low_hz": 30.0}, {"high_hz": 41.0}, {"high_hz": math.nan}, {"order": 5}, {"mains_hz": 55.0}],
)
def test_parameters_out_of_range(wrong: dict) -> None:
    """A pass band that the resampler would attenuate, and other invalid values, are errors."""
    with pytest.raises(ValueError, match="allowed|pass band"):
        Preprocessing(**wrong)


def test_parameters_survive_a_dictionary() -> None:
    """The parameters stored with a model restore the same filter."""
    for preprocessing in (Preprocessing(), Preprocessing(0.5, 40.0, 4, 60.0, True)):
        assert Preprocessing(**preprocessing.to_dict()) == preprocessing
