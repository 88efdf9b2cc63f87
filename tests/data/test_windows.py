"""Windows keep to the label policy, and every second of a recording is in a window or is counted."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from ecg_shock.data.annotations import read_labelled
from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import (
    LabelPolicy,
    WindowSet,
    amplitude_mv,
    concatenate,
    cut_windows,
    rate_and_periodicity,
    rate_bpm,
)
from ecg_shock.preprocessing import Preprocessing, preprocess

DATABASES = ("vfdb", "cudb", "mitdb")


def record(
    signal: np.ndarray, *episodes: tuple[float, float, str], fs: float = 250.0, beats: dict[float, str] | None = None
) -> Recording:
    """Make a recording of one lead."""
    beats = beats or {}
    return Recording(
        signal=signal.reshape(len(signal), -1),
        fs=fs,
        leads=("II", "V5")[: signal.reshape(len(signal), -1).shape[1]],
        name="r",
        database="mine",
        patient="mine/r",
        episodes=tuple(Episode(*episode) for episode in episodes),
        beats_s=np.array(list(beats), dtype=float),
        beat_codes=tuple(beats.values()),
    )


def sine(hz: float, peak_to_peak_mv: float, seconds: float = 30.0, fs: float = 250.0) -> np.ndarray:
    """Return a sine."""
    return peak_to_peak_mv / 2 * np.sin(2 * np.pi * hz * np.arange(round(seconds * fs)) / fs)


def excluded(windows: WindowSet) -> dict[str, float]:
    """Sum the excluded seconds by reason."""
    seconds: dict[str, float] = defaultdict(float)
    for entry in windows.excluded:
        seconds[entry.reason] += entry.seconds
    return dict(seconds)


def check(windows: WindowSet, recording: Recording, guard_s: float) -> None:
    """Check all rules for the windows of a recording."""
    length = windows.window_s
    assert sum(excluded(windows).values()) + length * (windows.lead == recording.leads[0]).sum() == pytest.approx(
        recording.duration_s, abs=1e-6
    )
    assert all(seconds > 0 for seconds in excluded(windows).values())
    spans = []  # neighbours of one rhythm are one episode
    for episode in recording.episodes:
        if spans and spans[-1][2] == episode.rhythm and spans[-1][1] == episode.start_s:
            spans[-1] = (spans[-1][0], episode.end_s, episode.rhythm)
        else:
            spans.append((episode.start_s, episode.end_s, episode.rhythm))
    for lead in recording.leads:
        starts = windows.start_s[windows.lead == lead]
        assert (np.diff(np.round(starts * 125)) >= windows.ecg.shape[1]).all()
        for start in starts:
            ((first, last, rhythm),) = [span for span in spans if span[0] <= start + length / 2 < span[1]]
            assert rhythm not in ("noise", "unlabelled")
            assert first == 0 or start - first >= guard_s - 1e-9
            assert last >= recording.duration_s or last - start - length >= guard_s - 1e-9
            assert start >= first - 1e-9
            assert start + length <= last + 1e-6
            raw = recording.signal[round(start * recording.fs) : round((start + length) * recording.fs)]
            assert np.isfinite(raw[:, recording.leads.index(lead)]).all()


@pytest.fixture(scope="module")
def real(recordings_dir: Path) -> list[tuple[float, Recording]]:
    """Return all labelled recordings of the three databases, with their guard."""
    manifests = [load_manifest(name) for name in DATABASES]
    return [
        (manifest.guard_s, read_labelled(name, manifest, recordings_dir / manifest.name))
        for manifest in manifests
        for name in manifest.records
    ]


@pytest.mark.recordings
@pytest.mark.parametrize("window_s", [3.3, 10.0])
def test_real_recordings_are_accounted_for(real: list[tuple[float, Recording]], window_s: float) -> None:
    """In every recording of the three databases no second is lost, and no window breaks a rule."""
    for guard_s, recording in real:
        check(cut_windows(recording, window_s, guard_s=guard_s), recording, guard_s)


@pytest.mark.recordings
def test_real_windows_are_slices_of_the_preprocessed_recording(real: list[tuple[float, Recording]]) -> None:
    """A window is the filtered signal of its lead at its time."""
    for guard_s, recording in real[::20]:
        windows = cut_windows(recording, 5.0, guard_s=guard_s, leads="all")
        for column, lead in enumerate(recording.leads):
            filtered = preprocess(recording.signal[:, column], recording.fs).astype(np.float32)
            mine = windows.select(windows.lead == lead)
            expected = [filtered[round(start * 125) :][:625] for start in mine.start_s]
            np.testing.assert_array_equal(mine.ecg, expected)


@pytest.mark.recordings
def test_rate_agrees_with_annotated_beats(real: list[tuple[float, Recording]]) -> None:
    """In at least 98 % of mitdb's regular windows, the measured heart rate is within 10 % of the annotated one."""
    agree = []
    for guard_s, recording in real:
        if recording.database != "mitdb":
            continue
        windows = cut_windows(recording, 5.0, guard_s=guard_s)
        for ecg, start in zip(windows.ecg, windows.start_s, strict=True):
            beats = recording.beats_s[(recording.beats_s >= start) & (recording.beats_s < start + 5)]
            intervals = np.diff(beats)
            if len(intervals) >= 3 and np.ptp(intervals) < 0.1 * intervals.mean():
                agree.append(abs(rate_bpm(ecg) * intervals.mean() / 60 - 1) < 0.1)
    print(f"{len(agree)} windows, {np.mean(agree):.3f} within 10 %")
    assert len(agree) > 5000
    assert np.mean(agree) >= 0.98


def test_synthetic_recordings_are_accounted_for() -> None:
    """The same holds for synthetic patients, also at lengths that are not a whole number of samples."""
    for recording in synthetic_recordings(6, 1):
        for window_s, guard_s in ((2.0, 0.0), (2.508, 0.3), (5.0, 1.0)):
            check(cut_windows(recording, window_s, guard_s=guard_s, leads="all"), recording, guard_s)


def test_odd_rates_are_accounted_for() -> None:
    """A recording whose sampling rate is only approximated still gives complete windows, to its last second."""
    for fs in (100.0, 124.997, 128.0, 333.33):
        n = math.ceil(600 * fs)
        recording = record(sine(5, 1, n / fs, fs), (0, n / fs, "vf"), fs=fs)
        windows = cut_windows(recording, 5.0)
        check(windows, recording, 0.0)
        assert len(windows) >= 119
        assert windows.ecg.shape[1:] == (625,)


def test_guard_keeps_away_from_changes_but_not_from_the_ends() -> None:
    """With a guard of 1 s: 0-10 s gives windows from 0 on, 10-27 s from 11 on, to the end; the rest is counted."""
    recording = record(sine(5, 1, 27), (0, 10, "normal_sinus"), (10, 27, "vf"))
    windows = cut_windows(recording, 4.0, guard_s=1.0)
    assert windows.start_s.tolist() == [0, 4, 11, 15, 19, 23]
    assert windows.rhythm.tolist() == ["normal_sinus"] * 2 + ["vf"] * 4
    assert excluded(windows) == {"within the guard, or shorter than a window": pytest.approx(3.0)}


def test_neighbours_of_one_rhythm_are_one_episode() -> None:
    """Another code for the same rhythm changes nothing: 2 · 8 s give four windows of 4 s, across the border."""
    episodes = (Episode(0, 10, "vf", "(VF"), Episode(10, 18, "vf", "(VFL"), Episode(18, 30, "unlabelled"))
    signal = sine(5, 1)[:, None]
    recording = Recording(signal, 250.0, ("II",), episodes=episodes)
    assert cut_windows(recording, 4.0, guard_s=1.0).start_s.tolist() == [0, 4, 8, 12]


def test_what_is_excluded_is_counted_by_reason() -> None:
    """Seconds of noise, without label, without episode and with invalid samples are counted separately."""
    signal = sine(5, 1, 60)
    signal[round(41 * 250)] = np.nan
    recording = record(signal, (0, 10, "noise"), (10, 20, "unlabelled"), (20, 50, "vf"))
    windows = cut_windows(recording, 5.0)
    # The window that begins less than a second after the invalid sample, which disturbs the filter, would go too.
    assert windows.start_s.tolist() == [20, 25, 30, 35, 45]
    assert excluded(windows) == pytest.approx({"labelled noise": 10, "no label": 20, "invalid samples": 5})
    signal[round(44.5 * 250)] = np.nan
    assert cut_windows(record(signal, (20, 50, "vf")), 5.0).start_s.tolist() == [20, 25, 30, 35]


def test_nothing_usable_gives_an_empty_set() -> None:
    """A recording of noise alone has no windows, but keeps the shape, and joins with others."""
    empty = cut_windows(record(sine(5, 1), (0, 30, "noise")), 5.0)
    assert (len(empty), empty.ecg.shape) == (0, (0, 625))
    full = cut_windows(record(sine(5, 1), (0, 30, "vf")), 5.0)
    joined = concatenate([empty, full])
    np.testing.assert_array_equal(joined.ecg, full.ecg)
    assert joined.excluded == empty.excluded


@pytest.mark.parametrize(("peak_to_peak_mv", "expected"), [(0.3, "coarse_vf"), (0.15, "fine_vf")])
def test_vf_parts_by_amplitude(peak_to_peak_mv: float, expected: str) -> None:
    """VF over 0.2 mV is coarse, under it fine; the limit is a parameter."""
    recording = record(sine(5, peak_to_peak_mv), (0, 30, "vf"))
    assert set(cut_windows(recording, 5.0).aha_class) == {expected}
    for limit, other in ((peak_to_peak_mv * 0.9, "coarse_vf"), (peak_to_peak_mv * 1.1, "fine_vf")):
        assert set(cut_windows(recording, 5.0, policy=LabelPolicy(coarse_vf_mv=limit)).aha_class) == {other}


def test_slow_vf_is_slow_and_periodic(rng: np.random.Generator) -> None:
    """The rule separates VF that is slow *and* periodic, by its limits, and is off by default."""
    rule = LabelPolicy(slow_vf_bpm=150.0)
    for bpm, expected in ((90, "slow_vf"), (140, "slow_vf"), (165, "coarse_vf"), (300, "coarse_vf")):
        recording = record(sine(bpm / 60, 1.0), (0, 30, "vf"))
        assert set(cut_windows(recording, 5.0, policy=rule).aha_class[1:]) == {expected}
        assert set(cut_windows(recording, 5.0).aha_class) == {"coarse_vf"}
    small = record(sine(1.5, 0.15), (0, 30, "vf"))
    assert set(cut_windows(small, 5.0, policy=rule).aha_class) == {"fine_vf"}

    hz = 1.5 + np.repeat(rng.uniform(-0.8, 0.8, 60), 125)  # slow, but another frequency every half second
    irregular = record(0.5 * np.sin(2 * np.pi * np.cumsum(hz) / 250), (0, 30, "vf"))
    windows = cut_windows(irregular, 5.0, policy=rule)
    periodicity = [rate_and_periodicity(ecg)[1] for ecg in windows.ecg]
    assert min(periodicity, default=0) < 0.6 or np.isnan(periodicity).any()
    for ecg, aha_class in zip(windows.ecg, windows.aha_class, strict=True):
        bpm, found = rate_and_periodicity(ecg)
        assert (aha_class == "slow_vf") == (bpm < 150 and found >= 0.6)
    strict = LabelPolicy(slow_vf_bpm=150.0, slow_vf_periodicity=1.0)
    assert set(cut_windows(irregular, 5.0, policy=strict).aha_class) == {"coarse_vf"}


def test_short_windows_of_vf_are_measured_with_the_signal_around_them(rng: np.random.Generator) -> None:
    """In 2 s, irregular VF is often periodic by chance: the rule measures 5 s of the same episode around the window."""
    hz = 1.7 + np.repeat(rng.uniform(-0.7, 0.7, 120), 125)
    irregular = record(0.5 * np.sin(2 * np.pi * np.cumsum(hz) / 250), (0, 60, "vf"))
    rule = LabelPolicy(slow_vf_bpm=150.0)
    short = cut_windows(irregular, 2.0, policy=rule)
    filtered = preprocess(irregular.signal[:, 0], irregular.fs)

    def is_slow(ecg: np.ndarray) -> bool:
        bpm, found = rate_and_periodicity(ecg)
        return bool(bpm < 150 and found >= 0.6)

    firsts = [round(125 * min(max(start_s - 1.5, 0.0), 55.0)) for start_s in short.start_s]
    around = [filtered[first : first + 625] for first in firsts]
    expected = [is_slow(ecg) for ecg in around]
    assert [aha_class == "slow_vf" for aha_class in short.aha_class] == expected
    assert sum(map(is_slow, short.ecg)) > sum(expected)


def test_vt_that_breaks_off_is_excluded() -> None:
    """VT that falls to a third of its amplitude inside a window is excluded from that window, if the rule is on."""
    signal = sine(3.0, 1.0)
    signal[int(12.5 * 250) :] /= 3
    recording = record(signal, (0, 30, "vt"))
    assert len(cut_windows(recording, 5.0)) == 6
    windows = cut_windows(recording, 5.0, policy=LabelPolicy(vt_amplitude_ratio=2.0))
    assert windows.start_s.tolist() == [0, 5, 15, 20, 25]
    assert excluded(windows) == {"VT whose amplitude changes": 5.0}


def test_windows_may_overlap() -> None:
    """With a step, windows begin every step; those at multiples of the window length are the usual ones."""
    recording = record(sine(3.0, 1.0), (0, 12, "vt"), (12, 30, "vf"))
    usual = cut_windows(recording, 5.0, guard_s=0.5)
    dense = cut_windows(recording, 5.0, guard_s=0.5, step_s=1.0)
    assert np.isin(usual.start_s, dense.start_s).all()
    assert np.diff(dense.start_s[dense.rhythm == "vf"]) == pytest.approx(1.0)
    assert dense.excluded == ()
    with pytest.raises(ValueError, match="step_s=6"):
        cut_windows(recording, 5.0, step_s=6.0)


@pytest.mark.parametrize(("bpm", "expected"), [(140, "other_vt"), (160, "rapid_vt"), (250, "rapid_vt")])
@pytest.mark.parametrize("window_s", [2.0, 5.0, 10.0])
def test_vt_parts_by_rate(bpm: float, expected: str, window_s: float) -> None:
    """VT from 150 bpm on is rapid, measured in the window; the wave has the second harmonic of real VT."""
    signal = sine(bpm / 60, 2.0) + sine(2 * bpm / 60, 0.7)
    windows = cut_windows(record(signal, (0, 30, "vt")), window_s)
    assert set(windows.aha_class[1:]) == {expected}
    for ecg in windows.ecg[1:]:
        assert rate_bpm(ecg) == pytest.approx(bpm, rel=0.03)
    slower = cut_windows(record(signal, (0, 30, "vt")), window_s, policy=LabelPolicy(rapid_vt_bpm=100))
    assert set(slower.aha_class[1:]) == {"rapid_vt"}


def test_vt_without_a_period_is_excluded(rng: np.random.Generator) -> None:
    """VT without a measurable heart rate is neither rapid nor other VT."""
    windows = cut_windows(record(rng.normal(size=7500), (0, 30, "vt")), 5.0)
    assert len(windows) == 0
    assert excluded(windows) == {"VT without a measurable heart rate": pytest.approx(30)}
    assert np.isnan(rate_bpm(np.zeros(625)))


def test_only_small_asystole_is_asystole() -> None:
    """Labelled asystole is used at 0.05 mV, and excluded at 0.3 mV."""
    signal = np.concatenate([sine(3, 0.05, 15), sine(3, 0.3, 15)])
    windows = cut_windows(record(signal, (0, 30, "asystole")), 5.0)
    assert windows.start_s.tolist() == [0, 5, 10]
    assert set(windows.aha_class) == {"asystole"}
    assert excluded(windows) == {"labelled asystole, but over 0.1 mV": pytest.approx(15)}


def test_amplitude_is_the_median_second() -> None:
    """One agonal beat in five seconds does not change the amplitude; three do."""
    window = sine(5, 0.1, 5, 125.0)
    assert amplitude_mv(window) == pytest.approx(0.1, rel=0.02)
    for second in (1, 3):
        window[second * 125 + 60] = 2.0
    assert amplitude_mv(window) == pytest.approx(0.1, rel=0.02)
    window[60] = 2.0
    assert amplitude_mv(window) > 2


def test_ectopic_beats_make_sinus_rhythm_another_one() -> None:
    """Only the windows with a ventricular or an atrial ectopic beat change, and ventricular beats take precedence."""
    beats = {0.5 + 0.8 * k: "N" for k in range(37)}
    times = list(beats)
    beats[times[8]] = "V"  # at 6.9 s
    beats[times[15]] = "A"  # at 12.5 s
    beats[times[20]], beats[times[21]] = "S", "F"  # at 16.5 and 17.3 s
    beats[times[33]] = "L"  # bundle branch block is still sinus rhythm
    windows = cut_windows(record(sine(5, 1), (0, 30, "normal_sinus"), beats=beats), 5.0)
    expected = ["normal_sinus", "ventricular_ectopy", "atrial_ectopy", "ventricular_ectopy", *["normal_sinus"] * 2]
    assert windows.rhythm.tolist() == expected
    assert windows.aha_class.tolist() == [r if r == "normal_sinus" else "other_nonshockable" for r in expected]
    other = cut_windows(record(sine(5, 1), (0, 30, "atrial_fibrillation"), beats=beats), 5.0)
    assert set(other.rhythm) == {"atrial_fibrillation"}


def test_organised_needs_beats_that_are_not_too_fast() -> None:
    """Where cudb names no rhythm, a window needs a beat at least every 3 s, and a heart rate below 150 bpm."""
    slow = {round(0.2 + 0.8 * k, 3): "N" for k in range(19)}  # to 14.6 s
    fast = {round(22 + 0.375 * k, 3): "N" for k in range(21)}  # 160 bpm, to 29.5 s
    windows = cut_windows(record(sine(5, 1), (0, 30, "organised"), beats=slow | fast), 2.0)
    expected = [2.0 * k for k in range(15)]
    nearest = [t for t in expected if any(t - 3 <= b <= t for b in slow) and t + 2 <= 14.6 + 3]
    assert windows.start_s.tolist() == [t for t in nearest if t + 2 <= 14.6]
    assert set(windows.aha_class) == {"other_nonshockable"}
    reasons = excluded(windows)
    assert reasons["rhythm not named, and fast enough for VT"] >= 6
    assert reasons["rhythm not named, and no beats annotated"] >= 6


def test_organised_with_a_gap_between_beats_is_excluded() -> None:
    """Beats up to 6.2 s and again from 10.2 s: no window overlaps the 4 s between them."""
    beats = {round(t, 3): "N" for t in [*np.arange(0.2, 6.3, 0.8), *np.arange(10.2, 29, 0.8)]}
    windows = cut_windows(record(sine(5, 1), (0, 30, "organised"), beats=beats), 2.0)
    assert not {6.0, 8.0} & set(windows.start_s)
    assert {12.0, 14.0, 26.0} <= set(windows.start_s)


def test_leads_come_in_order_and_are_labelled_by_themselves() -> None:
    """With all leads, the first comes first, and what is fine VF on one may be coarse on the other."""
    signal = np.stack([sine(5, 0.15), sine(5, 1.0)], axis=1)
    windows = cut_windows(record(signal, (0, 30, "vf")), 10.0, leads="all")
    assert windows.lead.tolist() == ["II"] * 3 + ["V5"] * 3
    assert windows.aha_class.tolist() == ["fine_vf"] * 3 + ["coarse_vf"] * 3
    assert set(cut_windows(record(signal, (0, 30, "vf")), 10.0).lead) == {"II"}


def test_preprocessing_is_the_one_asked_for() -> None:
    """Another filter gives other windows: its own."""
    signal = sine(20, 1) + sine(2, 1)
    preprocessing = Preprocessing(low_hz=5.0)
    windows = cut_windows(record(signal, (0, 30, "vf")), 10.0, preprocessing=preprocessing)
    np.testing.assert_array_equal(windows.ecg[1], preprocess(signal, 250.0, preprocessing)[1250:2500].astype("f4"))


def test_what_is_not_allowed_is_refused() -> None:
    """An unknown rhythm, a length beyond 2 to 10 s, other leads, mixed lengths: each error names what came."""
    recording = record(sine(5, 1), (0, 30, "vf"))
    with pytest.raises(ValueError, match=r"unknown rhythm 'torsade'; known are \['asystole'"):
        cut_windows(record(sine(5, 1), (0, 30, "torsade")), 5.0)
    for window_s in (1.9, 10.1, float("nan")):
        with pytest.raises(ValueError, match="allowed are 2 to 10 s"):
            cut_windows(recording, window_s)
    with pytest.raises(ValueError, match="leads='second'"):
        cut_windows(recording, 5.0, leads="second")
    with pytest.raises(ValueError, match=r"\[2\.0, 5\.0\]"):
        concatenate([cut_windows(recording, 2.0), cut_windows(recording, 5.0)])
    with pytest.raises(ValueError, match="of the same length"):
        concatenate([])
    for wrong in ({"slow_vf_bpm": 20.0}, {"slow_vf_periodicity": 0.1}, {"vt_amplitude_ratio": 0.5}):
        with pytest.raises(ValueError, match="allowed"):
            LabelPolicy(**wrong)
    for wrong in ({"asystole_mv": 0.3}, {"asystole_mv": 0.0}, {"rapid_vt_bpm": 30.0}, {"coarse_vf_mv": float("nan")}):
        with pytest.raises(ValueError, match="choose|allowed"):
            LabelPolicy(**wrong)
