"""A stream gives the advice of a scan, however it is cut, and survives gaps, invalid samples and wrong clocks."""

from __future__ import annotations

import logging
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_shock import Advisor, AlarmRule, Stream, scan
from ecg_shock.data.recordings import Recording
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.inference.streaming import StreamAdvice, Windows
from ecg_shock.preprocessing import FS, preprocess


@pytest.fixture(scope="module")
def advisor() -> Advisor:
    """Load the model that comes with the package once."""
    return Advisor()


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Return a synthetic recording of several rhythms."""
    return next(iter(synthetic_recordings(1)))


@pytest.fixture(scope="module")
def beats(advisor: Advisor, recording: Recording) -> np.ndarray:
    """Return 10 s of simulated sinus rhythm, for which the model clearly advises no shock."""
    patient = list(synthetic_recordings(4))[3]
    sinus = next(episode for episode in patient.episodes if episode.code == "normal_sinus")
    strip = patient.strip(sinus.start_s, 10.0).signal[:, 0].astype(float)
    assert patient.fs == recording.fs
    assert max(step.advice.probability for step in Stream(patient.fs, model=advisor).push(strip)) < 0.2
    return strip


def resampled(recording: Recording, fs: float) -> np.ndarray:
    """Return the first lead at another sampling rate, by linear interpolation."""
    t = np.arange(round(recording.duration_s * fs)) / fs
    return np.interp(t, np.arange(len(recording.signal)) / recording.fs, recording.signal[:, 0])


def streamed(stream: Stream, signal: np.ndarray, edges: list[int]) -> list[StreamAdvice]:
    """Push a signal in pieces that end at these samples."""
    edges = [0, *sorted(min(edge, len(signal)) for edge in edges), len(signal)]
    return [step for first, last in zip(edges, edges[1:], strict=False) for step in stream.push(signal[first:last])]


@given(
    fs=st.sampled_from((100.0, 125.0, 128.0, 250.0, 333.33, 360.0)),
    step_s=st.sampled_from((0.1, 0.5, 1.0, 2.0, 7.0)),
    window_s=st.sampled_from((None, 2.0, 3.3)),
    cuts=st.lists(st.integers(0, 12_000), max_size=10),
    single=st.booleans(),
    gaps=st.lists(st.tuples(st.integers(0, 12_000), st.integers(1, 900)), max_size=3),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_stream_is_the_scan(advisor, recording, fs, step_s, window_s, cuts, single, gaps) -> None:
    """To 1e-6 in probability, and equal in everything else, with gaps, empty pieces and pieces of one sample."""
    signal = resampled(recording, fs)[: round(33 * fs)]
    for first, length in gaps:
        signal[first : first + length] = np.nan
    whole = scan(signal, fs, step_s=step_s, window_s=window_s, model=advisor)
    stream = Stream(fs, step_s=step_s, window_s=window_s, model=advisor)
    steps = streamed(stream, signal, [*cuts, *(range(700, 1100) if single else ())])
    np.testing.assert_allclose([s.start_s for s in steps], whole.start_s, rtol=0, atol=1e-9)
    np.testing.assert_allclose([s.advice.probability for s in steps], whole.probability, rtol=0, atol=1e-6)
    assert [s.advice.reason for s in steps] == whole.reason.tolist()
    assert [s.advice.shock for s in steps] == whole.shock.tolist()
    assert [s.alarm for s in steps] == whole.alarm.tolist()


@pytest.mark.parametrize(("fs", "step_s", "window_s"), [(250.0, 1.0, 5.0), (360.0, 0.1, 2.0), (249.97, 9.9, 3.0)])
def test_windows_are_those_of_the_whole_signal(advisor, rng, fs: float, step_s: float, window_s: float) -> None:
    """Window k begins at k steps, in the raw signal as in the filtered one, and is returned as early as possible."""
    signal = rng.normal(size=round(25 * fs))
    windows = Windows(advisor.bundle, fs, step_s, window_s)
    pieces = [windows.push(signal[i : i + 1]) for i in range(len(signal))]
    arrived = [i for i, (raw, _) in enumerate(pieces) for _ in raw]
    raw = np.concatenate([p[0] for p in pieces])
    filtered = np.concatenate([p[1] for p in pieces])
    step, samples = round(step_s * 125), round(window_s * 125)
    whole = preprocess(signal, fs)
    assert len(raw) == (len(whole) - samples) // step + 1
    for k in range(len(raw)):
        np.testing.assert_allclose(filtered[k], whole[k * step : k * step + samples], rtol=0, atol=1e-12)
        first = round(k * step * fs / 125)
        np.testing.assert_array_equal(raw[k], signal[first : first + round(samples * fs / 125)])
        assert abs(arrived[k] - (k * step + samples) * fs / 125) <= math.ceil(fs / FS)


def test_alarm_counts_the_last_n() -> None:
    """Against a plain count, for all rules up to 4 of 6."""
    rng = np.random.default_rng(0)
    for k in range(1, 5):
        for n in range(k, 7):
            shock = rng.random(60) < 0.5
            expected = [sum(shock[max(0, i - n + 1) : i + 1]) >= k for i in range(60)]
            assert AlarmRule(k, n).on(shock).tolist() == expected
    assert AlarmRule(1, 1).on(np.zeros(0, bool)).tolist() == []


@pytest.mark.parametrize(
    ("k", "n", "error"), [(0, 3, ValueError), (4, 3, ValueError), (1.5, 3, TypeError), (True, 3, TypeError)]
)
def test_alarm_that_is_not_possible(k, n, error: type[Exception]) -> None:
    """The rule says what is allowed."""
    with pytest.raises(error, match="alarm"):
        AlarmRule(k, n)


def test_lead_off_is_stated_and_the_stream_comes_back(advisor, recording) -> None:
    """While the lead is off nothing is shocked; with another offset after it, windows are usable again."""
    signal = recording.signal[: round(60 * recording.fs), 0].astype(float)
    fs = recording.fs
    stream = Stream(fs, model=advisor)
    assert stream.state == "filling"
    stream.push(signal[: round(20 * fs)])
    assert stream.state == "running"
    stream.push(np.full(round(0.9 * fs), np.nan))
    assert stream.state == "running"
    off = stream.push(np.full(round(9.1 * fs), np.nan))
    assert stream.state == "lead off"
    assert not any(step.advice.shock for step in off)
    assert all(step.advice.reason.startswith("missing") for step in off[1:])
    back = stream.push(signal[round(20 * fs) :] + 250.0)
    assert stream.state == "running"
    never_off = scan(signal[round(20 * fs) :], fs, model=advisor)
    later = [step.advice for step in back if step.start_s >= 30.0]
    assert [advice.usable for advice in later] == never_off.usable.tolist()
    assert sum(advice.usable for advice in later) > 20
    np.testing.assert_allclose([advice.probability for advice in later[3:]], never_off.probability[3:], atol=0.02)


def test_lost_samples_are_filled_in_by_the_clock(advisor, recording) -> None:
    """A lost packet is a gap of its own length, and windows stay at their times by the clock."""
    fs = recording.fs
    signal = recording.signal[: round(40 * fs), 0].astype(float)
    gappy = signal.copy()
    gappy[round(12 * fs) : round(14 * fs)] = np.nan
    stream = Stream(fs, model=advisor)
    steps = []
    for i in range(40):
        if i not in (12, 13):
            jitter = 0.03 * (-1) ** i
            steps += stream.push(signal[round(i * fs) : round((i + 1) * fs)], at_s=1e6 + i + jitter)
    whole = scan(gappy, fs, model=advisor)
    assert [s.advice.reason for s in steps] == whole.reason.tolist()
    usable = whole.usable
    np.testing.assert_allclose(
        np.array([s.advice.probability for s in steps])[usable], whole.probability[usable], atol=0.02
    )


@pytest.mark.parametrize("ppm", [-3000, 3000])
def test_rate_that_drifts_keeps_time(advisor, recording, ppm: int) -> None:
    """With a sampling rate 0.3 % off, the stream stays within 0.1 s of the clock for an hour, with usable windows."""
    fs = recording.fs
    second = np.tile(recording.signal[: round(60 * fs), 0].astype(float), 61)
    true_fs = fs * (1 + ppm * 1e-6)
    stream = Stream(fs, step_s=5.0, model=advisor)
    sent, steps = 0, []
    for i in range(3600):
        until = round((i + 1) * true_fs)
        steps += stream.push(second[sent:until], at_s=sent / true_fs)
        sent = until
    assert stream.received_s == pytest.approx(3600, abs=0.11)
    in_time = scan(second[: round(3600 * fs)], fs, step_s=5.0, model=advisor)
    assert np.mean([s.advice.usable for s in steps]) > in_time.usable.mean() - 0.02


@pytest.mark.parametrize(
    ("at_s", "error"),
    [
        (np.nan, ValueError),
        (np.inf, ValueError),
        (3602.0, ValueError),
        (10**400, ValueError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
def test_clock_that_makes_no_sense_takes_nothing(advisor, at_s, error: type[Exception]) -> None:
    """The stream is as it was before."""
    stream = Stream(250.0, model=advisor)
    stream.push(np.zeros(250), at_s=0.0)
    for samples in (np.zeros(250), np.empty(0)):
        with pytest.raises(error, match="at_s"):
            stream.push(samples, at_s=at_s)
    assert stream.received_s == 1.0


@pytest.mark.parametrize("change_s", [3600.0, -3600.0, -3599.95, -61.0, -86400.0, -20.0])
def test_clock_that_is_changed_makes_no_gap(
    advisor, recording, change_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Summer time begins and ends, and a clock goes back, without an hour of lead off; the log says what was done."""
    fs = recording.fs
    signal = recording.signal[: round(60 * fs), 0].astype(float)
    stream, unaware = Stream(fs, model=advisor), Stream(fs, model=advisor)
    steps, expected = [], []
    with caplog.at_level(logging.WARNING):
        for i in range(60):
            piece = signal[round(i * fs) : round((i + 1) * fs)]
            steps += stream.push(piece, at_s=1e5 + i + (change_s if i >= 20 else 0))
            # Going back by less than a minute, packets seem to come late for 2 s, which are missing.
            missing = change_s == -20.0 and i in (20, 21)
            expected += unaware.push(np.full_like(piece, np.nan) if missing else piece)
    assert stream.received_s == unaware.received_s
    np.testing.assert_equal([step.advice.probability for step in steps], [step.advice.probability for step in expected])
    assert [step.end_s for step in steps] == [step.end_s for step in expected]
    (record,) = caplog.records
    assert f"set {'forward' if change_s > 0 else 'back'} by {round(abs(change_s))}." in record.getMessage()


@pytest.mark.parametrize("true_fs", [300, 360, 500, 1000])
def test_rate_that_the_clock_contradicts(advisor, recording, true_fs: int) -> None:
    """A stream with another sampling rate than `fs` is refused within seconds, rather than cut to fit."""
    stream = Stream(250.0, model=advisor)

    def push(seconds: int) -> None:
        for i in range(seconds):
            stream.push(recording.signal[:true_fs, 0].astype(float), at_s=float(i))

    with pytest.raises(ValueError, match="fs=250 Hz"):
        push(10)


def test_single_time_that_is_wrong(advisor, recording) -> None:
    """A packet with a time of another year is accepted, and so are later packets with right times."""
    stream = Stream(recording.fs, model=advisor)
    second = recording.signal[: round(recording.fs), 0].astype(float)
    for i in range(20):
        stream.push(second, at_s=0.0 if i == 10 else 1e9 + i)
    assert stream.received_s == 20.0


def test_packets_that_come_late_or_twice_are_dropped(advisor, recording, caplog: pytest.LogCaptureFixture) -> None:
    """If two packets are swapped or one is repeated, late samples are dropped, and the clock is not changed."""
    fs = recording.fs
    signal = recording.signal[: round(30 * fs), 0].astype(float)
    stream = Stream(fs, model=advisor)
    with caplog.at_level(logging.WARNING):
        for i in (*range(10), 11, 10, *range(12, 20), 19, 19, *range(20, 30)):
            stream.push(signal[round(i * fs) : round((i + 1) * fs)], at_s=float(i))
    assert stream.received_s == 30.0
    assert caplog.records == []


@pytest.mark.parametrize("rubbish", [1e308, -1e308, np.inf, 1e9, 3e38])
def test_rubbish_is_no_shock_and_is_forgotten(advisor, recording, rubbish: float) -> None:
    """Samples that cannot be an ECG make their windows unusable, and have no effect ten seconds later."""
    fs = recording.fs
    signal = recording.signal[: round(60 * fs), 0].astype(float)
    stream = Stream(fs, model=advisor)
    clean = [s.advice.probability for s in Stream(fs, model=advisor).push(signal)]
    signal[round(20 * fs) : round(21 * fs)] = rubbish
    steps = stream.push(signal)
    touched = [s for s in steps if s.start_s < 20.4 and s.end_s > 20.6]
    assert touched
    assert not any(s.advice.usable or s.advice.shock for s in touched)
    np.testing.assert_allclose([s.advice.probability for s in steps[35:]], clean[35:], atol=0.01)


@pytest.mark.parametrize("fault", [2e4, -(2.0**31) / 1000, 1e8])
def test_windows_after_a_fault_are_no_ventricular_fibrillation(advisor, recording, beats, fault: float) -> None:
    """A second of values beyond any electrode, such as a converter's reserved value, does not ring on like VF."""
    fs = recording.fs
    signal = np.concatenate([beats, np.full(round(fs), fault), beats])
    steps = Stream(fs, step_s=0.1, model=advisor).push(signal)
    after = [step.advice for step in steps if step.start_s > 11.1]
    assert len(after) > 40
    assert all(advice.usable for advice in after)
    assert not any(step.advice.shock for step in steps)


@pytest.mark.parametrize("artefact", [60.0, -500.0, 2e3, 9.9e3])
@pytest.mark.parametrize("seconds", [0.01, 1.0])
def test_a_filter_that_rings_is_no_vf(advisor, recording, beats, artefact: float, seconds: float) -> None:
    """After an artefact within an electrode's range no window advises a shock; four seconds later all are usable."""
    fs = recording.fs
    signal = np.concatenate([beats, np.full(math.ceil(seconds * fs), artefact), beats])
    steps = Stream(fs, step_s=0.1, model=advisor).push(signal)
    assert not any(step.advice.shock for step in steps)
    later = [step.advice.usable for step in steps if step.start_s > 14 + seconds]
    assert later
    assert all(later)


def test_an_offset_beyond_any_electrode_is_not_classified(advisor, recording) -> None:
    """Samples that all count as invalid leave a flat line after the filter; it is unusable, not nonshockable."""
    signal = recording.signal[: round(10 * recording.fs), 0].astype(float)
    assert not scan(signal + 2e4, recording.fs, model=advisor).usable.any()
    assert scan(signal + 9e3, recording.fs, model=advisor).usable.all()
    (advice,) = advisor.predict_many(signal[None, : round(5 * recording.fs)] - 2e4, recording.fs)
    assert advice.reason.startswith("out of range: the strip reaches 2")


@pytest.mark.parametrize(
    ("samples", "error"),
    [
        (np.zeros((2, 5)), ValueError),
        (["a"], TypeError),
        (np.zeros(5, complex), TypeError),
        (1.0, ValueError),
        (None, TypeError),
    ],
)
def test_samples_that_are_none(advisor, samples, error: type[Exception]) -> None:
    """Samples that cannot be one lead are refused, and the stream continues."""
    stream = Stream(250.0, model=advisor)
    with pytest.raises(error):
        stream.push(samples)
    assert len(stream.push(np.zeros(1250))) == 1


@pytest.mark.parametrize("units", ["mV", "uV", "V"])
def test_numbers_that_no_ecg_has_are_quiet(advisor, units: str) -> None:
    """Numbers that overflow in mV and signalling NaNs raise no warning, and make the window unusable."""
    samples = np.full(1250, 1e308)
    samples[::2] = np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf4\x7f", "<f8")[0]
    samples[0] = 0.0
    (step,) = Stream(250.0, units=units, model=advisor).push(samples)
    assert not step.advice.usable
    assert not scan(samples, 250.0, units=units, model=advisor).usable.any()
    assert not advisor.predict(samples, 250.0, units=units).usable


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"fs": 99.0}, ValueError),
        ({"fs": "250"}, TypeError),
        ({"units": "mv"}, ValueError),
        ({"step_s": 0.05}, ValueError),
        ({"step_s": np.nan}, ValueError),
        ({"step_s": "1"}, TypeError),
        ({"window_s": 1.9}, ValueError),
        ({"window_s": 10.1}, ValueError),
        ({"window_s": True}, TypeError),
        ({"alarm": 3}, TypeError),
        ({"alarm": (3, 5)}, TypeError),
    ],
)
def test_settings_out_of_range(advisor, wrong: dict, error: type[Exception]) -> None:
    """Wrong arguments are refused before the first sample."""
    with pytest.raises(error):
        Stream(**{"fs": 250.0, "model": advisor} | wrong)


def test_units_scale(advisor, recording) -> None:
    """Microvolts give the advice of millivolts."""
    signal = recording.signal[: round(10 * recording.fs), 0].astype(float)
    mv = Stream(recording.fs, model=advisor).push(signal)
    uv = Stream(recording.fs, units="uV", model=advisor).push(signal * 1000)
    np.testing.assert_allclose([s.advice.probability for s in uv], [s.advice.probability for s in mv], atol=1e-6)


def test_memory_is_bounded(advisor, rng) -> None:
    """Ten minutes in pieces leave nothing behind, and an hour in one piece needs less than half of its windows."""
    stream = Stream(125.0, step_s=0.5, model=advisor)
    second = rng.normal(size=125)
    for _ in range(60):
        stream.push(second)
    tracemalloc.start()
    for _ in range(600):
        stream.push(second)
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    stream.push(np.tile(second, 3600))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < 200_000
    assert peak < 3600 / 0.5 * (625 + 625) * 8 / 2
