"""Synthetic recordings are reproducible, fully labelled, and each rhythm has its heart rate and amplitude."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, periodogram, sosfiltfilt

from ecg_shock.data.recordings import Recording
from ecg_shock.data.synthetic import KINDS, synthetic_recordings
from ecg_shock.rhythms import RHYTHMS, UNUSABLE

GUARD_S = 2.0


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    """Twelve patients: every kind of rhythm occurs at least three times."""
    return list(synthetic_recordings(patients=12, seed=7))


def strips(recordings: list[Recording], code: str) -> list[np.ndarray]:
    """Cut out every episode of a kind, 1 to 30 Hz, without the seconds next to other rhythms."""
    band = butter(2, (1.0, 30.0), btype="bandpass", fs=recordings[0].fs, output="sos")
    cut = []
    for recording in recordings:
        filtered = sosfiltfilt(band, recording.signal[:, 0])
        for episode in recording.episodes:
            if episode.code == code:
                start, end = episode.start_s + GUARD_S, episode.end_s - GUARD_S
                cut.append(filtered[round(start * recording.fs) : round(end * recording.fs)])
    return cut


def intervals(recordings: list[Recording], code: str) -> list[np.ndarray]:
    """Return the RR intervals of every episode of a kind, from its annotated beats."""
    return [
        np.diff(recording.beats_s[(recording.beats_s >= e.start_s) & (recording.beats_s < e.end_s)])
        for recording in recordings
        for e in recording.episodes
        if e.code == code
    ]


def period_s(strip: np.ndarray, fs: float, shortest_s: float, longest_s: float) -> float:
    """Return the lag of the highest autocorrelation in a range of lags."""
    correlation = np.correlate(strip, strip, mode="full")[len(strip) - 1 :]
    first = round(shortest_s * fs)
    return (first + np.argmax(correlation[first : round(longest_s * fs)])) / fs


def test_patient_does_not_depend_on_how_many_there_are(recordings):
    """The first patients of a large set are those of a small one, bit by bit; another seed gives others."""
    few = list(synthetic_recordings(patients=2, seed=7))
    for one, other in zip(few, recordings, strict=False):
        np.testing.assert_array_equal(one.signal, other.signal)
        np.testing.assert_array_equal(one.beats_s, other.beats_s)
        assert (one.episodes, one.beat_codes, one.patient) == (other.episodes, other.beat_codes, other.patient)
    assert not np.array_equal(few[0].signal, few[1].signal)
    assert not np.array_equal(few[0].signal, next(synthetic_recordings(patients=1, seed=8)).signal)


def test_patients_differ(recordings):
    """No two patients have the same heart rate in sinus rhythm, and their beats differ in height."""
    assert len({round(rr_s.mean(), 6) for rr_s in intervals(recordings, "normal_sinus")}) == len(recordings)
    heights = [np.ptp(strip) for strip in strips(recordings, "normal_sinus")]
    assert max(heights) > 2 * min(heights)


@pytest.mark.parametrize(("seconds", "fs"), [(15.0, 250.0), (5.0, 125.0), (7.3, 360.0)])
def test_labels_cover_recording(seconds, fs):
    """Episodes follow each other from the first sample to the last, at any length and sampling rate."""
    for recording in synthetic_recordings(patients=4, seed=1, seconds_per_rhythm=seconds, fs=fs):
        ends = [episode.end_s for episode in recording.episodes]
        assert [0.0, *ends[:-1]] == [episode.start_s for episode in recording.episodes]
        assert ends[-1] == pytest.approx(recording.duration_s)
        assert recording.duration_s == pytest.approx(8 * seconds, abs=8 / fs)
        assert {episode.rhythm for episode in recording.episodes} <= {*RHYTHMS, *UNUSABLE}
        assert recording.patient == f"synthetic/{recording.name}"


def test_every_rhythm_occurs_in_any_four_patients(recordings):
    """Any four patients in a row have every kind of rhythm between them, and several orders occur."""
    codes = [[episode.code for episode in recording.episodes] for recording in recordings]
    for first in range(len(codes) - 3):
        assert set(sum(codes[first : first + 4], [])) == set(KINDS)
    assert len({tuple(each) for each in codes}) == len(codes)


def test_signal_is_finite_and_in_the_range_of_the_recorder(recordings):
    """Samples are finite, within ±10.24 mV, on a grid of 5 µV, and never flat over an organised rhythm."""
    for recording in recordings:
        assert np.isfinite(recording.signal).all()
        assert np.abs(recording.signal).max() <= 10.24
        steps = recording.signal / 0.005
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    assert min(np.ptp(strip) for strip in strips(recordings, "normal_sinus")) > 0.2


def test_beats_are_in_order_and_named(recordings):
    """Beat times rise within the recording, each with a code; VF, asystole and noise have none."""
    for recording in recordings:
        assert len(recording.beats_s) == len(recording.beat_codes)
        assert (np.diff(recording.beats_s) > 0).all()
        assert 0 <= recording.beats_s[0] < recording.beats_s[-1] < recording.duration_s
        assert set(recording.beat_codes) <= {"N", "V", "A", "/"}
    for code in ("coarse_vf", "fine_vf", "flutter", "asystole", "noise"):
        assert sum(map(len, intervals(recordings, code))) == 0


@pytest.mark.parametrize(
    ("code", "low_bpm", "high_bpm"),
    [
        ("normal_sinus", 53, 123),
        ("sinus_bradycardia", 27, 52),
        ("svt", 148, 222),
        ("slow_vt", 113, 149),
        ("rapid_vt", 155, 255),
    ],
)
def test_rate_of_beat_marks(recordings, code, low_bpm, high_bpm):
    """The mean heart rate of every episode's beats is in the range of its rhythm."""
    for rr_s in intervals(recordings, code):
        assert low_bpm < 60 / rr_s.mean() < high_bpm


@pytest.mark.parametrize("code", ["normal_sinus", "svt", "slow_vt", "rapid_vt"])
def test_signal_beats_at_the_rate_of_its_marks(recordings, code):
    """The signal's own period, by autocorrelation, is the annotated RR interval: annotations and waves match."""
    fs = recordings[0].fs
    for strip, rr_s in zip(strips(recordings, code), intervals(recordings, code), strict=True):
        found = period_s(strip, fs, 0.7 * rr_s.mean(), 1.4 * rr_s.mean())
        assert found == pytest.approx(rr_s.mean(), rel=0.06)


def test_flutter_is_fast_and_regular(recordings):
    """Most of flutter's power lies at one frequency between 200 and 350 per minute and its overtones."""
    for strip in strips(recordings, "flutter"):
        hz, power = periodogram(strip, recordings[0].fs)
        peak = hz[np.argmax(power)]
        assert 195 / 60 < peak < 2 * 355 / 60
        assert power[np.abs(hz - peak) < 0.5].sum() > 0.3 * power.sum()


def test_atrial_fibrillation_is_irregular(recordings):
    """RR intervals vary several times as much in atrial fibrillation as in any sinus rhythm."""

    def variation(code: str) -> list[float]:
        return [rr_s.std() / rr_s.mean() for rr_s in intervals(recordings, code)]

    assert min(variation("atrial_fibrillation")) > 2 * max(variation("normal_sinus"))


def test_premature_beats_are_early_with_a_pause(recordings):
    """A ventricular beat in sinus rhythm comes early, and the next beat late."""
    early, late = [], []
    for recording in recordings:
        for episode in recording.episodes:
            if episode.code != "ventricular_ectopy":
                continue
            inside = (recording.beats_s >= episode.start_s) & (recording.beats_s < episode.end_s)
            rr_s = np.diff(recording.beats_s[inside])
            ectopic = np.flatnonzero(np.array(recording.beat_codes)[inside][1:-1] == "V")
            early.extend(rr_s[ectopic])
            late.extend(rr_s[ectopic + 1])
    assert len(early) > 5
    assert (np.array(early) < 0.8 * np.array(late)).all()


def test_vf_is_a_narrow_band_without_beats(recordings):
    """VF has its dominant frequency at 3 to 9 Hz, and less of it in one line than flutter has."""
    fs = recordings[0].fs

    def share_of_peak(strip: np.ndarray) -> float:
        power = periodogram(strip, fs)[1]
        return power.max() / power.sum()

    for strip in strips(recordings, "coarse_vf"):
        hz, power = periodogram(strip, fs)
        centroid = np.average(hz[hz < 12], weights=power[hz < 12])
        assert 2.5 < centroid < 9.5
        assert power[(hz > 2) & (hz < 10)].sum() > 0.6 * power.sum()
    vf = np.median([share_of_peak(strip) for strip in strips(recordings, "coarse_vf")])
    assert vf < np.median([share_of_peak(strip) for strip in strips(recordings, "flutter")])


def test_amplitudes_keep_to_their_side_of_the_limits(recordings):
    """In every 5 s: asystole below 0.08 mV; fine VF mostly above 0.1, always below 0.2 mV; coarse VF above it."""
    n = round(5 * recordings[0].fs)

    def peak_to_peak(code: str) -> np.ndarray:
        return np.array([np.ptp(s[i : i + n]) for s in strips(recordings, code) for i in (0, n)])

    assert peak_to_peak("asystole").max() < 0.08
    assert np.median(peak_to_peak("fine_vf")) > 0.1
    assert peak_to_peak("fine_vf").max() < 0.2
    assert peak_to_peak("coarse_vf").min() > 0.2


def test_ventricular_beats_are_wider_than_sinus_beats(recordings):
    """VT has less of its power above 8 Hz than SVT of a similar heart rate, because its complexes are wide."""

    def fast_share(code: str) -> float:
        shares = []
        for strip in strips(recordings, code):
            hz, power = periodogram(strip, recordings[0].fs)
            shares.append(power[hz > 8].sum() / power.sum())
        return float(np.median(shares))

    assert fast_share("rapid_vt") < 0.2 * fast_share("svt")


def test_blocked_p_waves_outnumber_beats(recordings):
    """Heart block beats more slowly than its atria: pauses of more than 60 / 55 s occur in every episode."""
    for rr_s in intervals(recordings, "heart_block"):
        assert rr_s.max() > 60 / 55


@pytest.mark.parametrize("code", ["normal_sinus", "sinus_bradycardia", "atrial_fibrillation", "heart_block"])
def test_steep_waves_stand_at_the_beat_marks(recordings, code):
    """Power at 8 to 25 Hz is several times higher within 0.1 s of an annotated beat, for most patients."""
    fs = recordings[0].fs
    band = butter(2, (8.0, 25.0), btype="bandpass", fs=fs, output="sos")
    ratios = []
    for recording in recordings:
        power = sosfiltfilt(band, recording.signal[:, 0]) ** 2
        at_s = np.arange(len(power)) / fs
        for episode in recording.episodes:
            if episode.code == code:
                inside = (at_s >= episode.start_s + GUARD_S) & (at_s < episode.end_s - GUARD_S)
                near = np.abs(at_s[:, None] - recording.beats_s).min(axis=1) < 0.1
                ratios.append(power[inside & near].mean() / power[inside & ~near].mean())
    assert np.median(ratios) > 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 0}, "patients=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seconds_per_rhythm": 4.0}, "seconds_per_rhythm=4.0"),
        ({"seconds_per_rhythm": float("nan")}, "seconds_per_rhythm=nan"),
        ({"fs": 100.0}, "fs=100.0"),
        ({"fs": float("nan")}, "fs=nan"),
    ],
)
def test_arguments_out_of_range_are_refused_at_once(arguments, message):
    """The error names the argument and comes with the call, not with the first recording."""
    with pytest.raises(ValueError, match=message):
        synthetic_recordings(**arguments)
