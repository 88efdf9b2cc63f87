"""The rules for unusable strips never exclude ventricular fibrillation, and catch the faults of monitors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfilt

from ecg_shock.data.annotations import read_labelled
from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.windows import amplitude_mv, cut_windows
from ecg_shock.inference import quality
from ecg_shock.inference.quality import unusable_reasons
from ecg_shock.preprocessing import preprocess_strips

LENGTHS_S = (2, 3, 5, 10)
VF_OR_VT = ("coarse_vf", "fine_vf", "rapid_vt")
# All records of mitdb with an episode of VF or VT; of those without, every sixth is enough.
MITDB_VF_OR_VT = ("106", "200", "203", "205", "207", "210", "213", "214", "215", "217", "221", "223", "233")
EVERY = 10  # of the other windows, one in so many


def find_reasons(strips: np.ndarray, fs: float) -> np.ndarray:
    """Return the reasons as `predict` computes them."""
    return unusable_reasons(strips, fs, preprocess_strips(strips, fs))


@pytest.fixture(scope="module")
def real_strips(recordings_dir: Path) -> dict[int, list[tuple[float, np.ndarray, np.ndarray]]]:
    """Return sampling rate, raw strips and classes for each length: all VF and rapid VT on all leads, some others."""
    found: dict[int, list[tuple[float, np.ndarray, np.ndarray]]] = {length: [] for length in LENGTHS_S}
    for name in ("vfdb", "cudb", "mitdb"):
        manifest = load_manifest(name)
        for record in manifest.records:
            if name == "mitdb" and record not in MITDB_VF_OR_VT + manifest.records[::6]:
                continue
            recording = read_labelled(record, manifest, recordings_dir / name)
            for length in LENGTHS_S:
                windows = cut_windows(recording, length, guard_s=manifest.guard_s, leads="all")
                chosen = np.isin(windows.aha_class, (*VF_OR_VT, "asystole"))
                chosen[::EVERY] = True
                windows = windows.select(chosen)
                n = round(length * recording.fs)
                first = np.round(windows.start_s * recording.fs).astype(int)
                columns = [recording.leads.index(lead) for lead in windows.lead]
                strips = [recording.signal[f : f + n, c] for f, c in zip(first, columns, strict=True)]
                if strips:
                    found[length].append((recording.fs, np.array(strips, dtype=float), windows.aha_class))
    return found


@pytest.mark.recordings
@pytest.mark.parametrize("length", LENGTHS_S)
def test_no_vf_is_hidden(real_strips: dict, length: int) -> None:
    """Every VF and rapid VT of the three databases, on every lead, is usable; the nearest to each limit is printed."""
    count = 0
    nearest: dict[str, float] = {}
    for fs, strips, classes in real_strips[length]:
        vf = strips[np.isin(classes, VF_OR_VT)]
        if not len(vf):
            continue
        count += len(vf)
        assert (find_reasons(vf, fs) == "").all()
        filtered = preprocess_strips(vf, fs)
        rms_hz, mains = quality._measure_rms_hz_and_mains(filtered)
        flatness = quality._measure_flatness(filtered)
        steady = (quality._measure_steadiness(filtered) > quality.NOISE_STEADINESS) & (
            amplitude_mv(filtered) > quality.NOISE_MIN_MV
        )
        values = {
            "span mV": np.ptp(vf, axis=1).max(),
            "growth": (np.ptp(filtered, axis=1) / np.ptp(vf, axis=1)).max(),
            "-span mV": -np.ptp(vf, axis=1).min(),
            "clipped": max(quality._measure_clipped(strip, strip.min(), strip.max()) for strip in vf),
            "mains": mains.max(),
            "steady rms Hz": np.where(steady, rms_hz, 0).max(),
            "steady flatness over 16.5 Hz": np.where(steady & (rms_hz > quality.WHITE_RMS_HZ), flatness, 0).max(),
        }
        nearest = {name: max(value, nearest.get(name, -np.inf)) for name, value in values.items()}
    print(f"{length} s, {count} strips:", {name: round(float(value), 3) for name, value in nearest.items()})
    assert count > 1000


@pytest.mark.recordings
@pytest.mark.parametrize("length", LENGTHS_S)
def test_other_rhythms_are_usable(real_strips: dict, length: int) -> None:
    """At least 99 % of the strips of every other class are usable."""
    classes = np.concatenate([classes for _, _, classes in real_strips[length]])
    usable = np.concatenate([find_reasons(strips, fs) == "" for fs, strips, _ in real_strips[length]])
    for aha_class in np.unique(classes):
        share = usable[classes == aha_class].mean()
        print(f"{length} s {aha_class}: {share:.4f} of {(classes == aha_class).sum()} usable")
        assert share >= 0.99


def faults(fs: float, seconds: float, rng: np.random.Generator) -> Iterator[tuple[str, float, np.ndarray, str]]:
    """Yield name, minimum proportion to catch, 100 strips and reason for each fault of a monitor."""
    n = round(seconds * fs)
    t = np.arange(n) / fs
    phase = 2 * np.pi * rng.random((100, 1))
    slow_hz = rng.uniform(0.5, 3, (100, 1))
    size_mv = np.exp(rng.uniform(np.log(0.2), np.log(5), (100, 1)))
    white = rng.standard_normal((100, n))
    square = np.sign(np.sin(2 * np.pi * slow_hz * t + phase))
    hum = np.sin(2 * np.pi * 50 * t + phase)
    muscle = sosfilt(butter(2, (20, 100), "bandpass", fs=fs, output="sos"), white)
    yield "white noise", 0.95 if seconds > 2 else 0.9, size_mv * white, "noise"
    yield "uniform noise", 0.95 if seconds > 2 else 0.9, size_mv * rng.uniform(-1, 1, (100, n)), "noise"
    yield "muscle noise", 0.95, size_mv * muscle, "noise"
    yield "mains hum", 1, size_mv * hum, "noise|saturated"
    yield "mains hum at the rails", 1, np.clip(20 * hum, -5, 5), "saturated"
    yield "lead off", 1, np.full((100, n), 3.3), "flat"
    yield "lead off, one bit toggles", 1, 0.005 * (white > 0), "flat"
    yield "rails", 1, 5 * square, "saturated|flat"
    yield "rails with noise", 0.95, 5 * square + 0.1 * white, "saturated"
    yield "saturated sine", 1, np.clip(15 * np.sin(2 * np.pi * slow_hz * t + phase), -5, 5), "saturated"
    yield "saturated sine with noise", 0.95, np.clip(15 * np.sin(2 * np.pi * slow_hz * t), -5, 5) + 0.02 * white, "sat"
    yield "saturated noise", 1, np.clip(20 * white, -5, 5), "saturated"
    yield "drift into one rail", 1, np.minimum(8 * t / seconds + 0.3 * np.sin(2 * np.pi * 4 * t + phase), 4), "flat|sat"
    yield "missing", 1, np.where(rng.random((100, n)) < 0.15, np.nan, np.sin(2 * np.pi * 5 * t)), "missing"
    yield "microvolt taken as millivolt", 1, 500 * np.sin(2 * np.pi * 5 * t + phase), "out of range"


@pytest.mark.parametrize("seconds", [2.0, 5.0, 10.0])
@pytest.mark.parametrize("fs", [250.0, 500.0])
def test_faults_are_caught(fs: float, seconds: float, rng: np.random.Generator) -> None:
    """Each fault is unusable, for the right reason."""
    for name, least, strips, reason in faults(fs, seconds, rng):
        reasons = find_reasons(strips, fs)
        caught = sum(any(r.startswith(option) for option in reason.split("|")) for r in reasons)
        assert caught >= least * 100, (name, caught, sorted(set(reasons))[:3])


def test_white_noise_is_caught_at_2_s(rng: np.random.Generator) -> None:
    """At 2 s, where the spectrum is coarsest, at least 95 % of 2000 strips of white noise are caught."""
    caught = np.mean(find_reasons(rng.standard_normal((2000, 500)), 250.0) != "")
    print(f"{caught:.4f} of white noise caught at 2 s")
    assert caught >= 0.95


def vf(amplitude_mv: float, fs: float = 250.0) -> np.ndarray:
    """Return a strip of 5 s that looks like VF: a carrier of 5 Hz that wanders and swells."""
    t = np.arange(round(5 * fs)) / fs
    swell = 1 + 0.4 * np.sin(2 * np.pi * 0.6 * t)
    return amplitude_mv / 2 * swell * np.sin(2 * np.pi * 5 * t + 1.5 * np.sin(2 * np.pi * 0.7 * t))


@pytest.mark.parametrize("amplitude_mv", [0.15, 0.3, 1.0, 5.0])
def test_vf_stays_usable_under_what_disturbs_it(amplitude_mv: float, rng: np.random.Generator) -> None:
    """Hum, some noise, wander, an offset, clipped peaks and a lost tenth of the samples do not hide VF."""
    clean = vf(amplitude_mv)
    t = np.arange(len(clean)) / 250
    lost = clean.copy()
    lost[100:220] = np.nan
    for strip in (
        clean,
        clean + 2 * np.sin(2 * np.pi * 50 * t) * min(1, amplitude_mv / 0.3),
        clean + 0.1 * amplitude_mv * rng.standard_normal(len(t)),
        clean + 3 * np.sin(2 * np.pi * 0.2 * t) + 4,
        np.clip(clean, -0.4 * amplitude_mv, 0.4 * amplitude_mv),
        lost,
    ):
        assert find_reasons(strip[None], 250.0)[0] == ""


@pytest.mark.parametrize(
    ("strip", "reason"),
    [
        (np.where(np.arange(1250) < 126, np.nan, vf(1)), "missing: 10% of the samples are invalid, more than 10%"),
        (vf(1) * 1000, r"out of range: the strip spans \d+ mV, more than 50 mV; check the units"),
        (vf(1) * 0.005, r"flat: the strip spans 0\.00\d mV, less than 0\.010 mV"),
        (
            np.where((np.arange(1250) >= 400) & (np.arange(1250) < 651), 0.3, vf(1)),
            "flat: one value repeats for 1 s or",
        ),
        (np.clip(vf(1), -0.1, 0.1), r"saturated: \d+% of the samples are at the ends of the range"),
    ],
)
def test_reason_says_what_and_how_much(strip: np.ndarray, reason: str) -> None:
    """Just over a limit the reason names the measure and the limit."""
    assert re.match(reason, str(find_reasons(strip[None], 250.0)[0]))


def test_limits_are_where_they_say() -> None:
    """Just within each limit a strip is usable."""
    index = np.arange(1250)
    within = (
        np.where(index < 124, np.nan, vf(1)),
        vf(1) * 49 / np.ptp(vf(1)),
        vf(1) * 0.0105 / np.ptp(vf(1)),
        np.where((index >= 400) & (index < 649), 0.3, vf(1)),
    )
    for strip in within:
        assert find_reasons(strip[None], 250.0)[0] == ""


def test_strips_do_not_affect_each_other(rng: np.random.Generator) -> None:
    """Every row gets its own reason, whatever the other rows."""
    strips = np.stack([vf(1), np.zeros(1250), rng.standard_normal(1250), vf(0.3), vf(1) * 1000])
    together = find_reasons(strips, 250.0)
    assert [reason.split(":")[0] for reason in together] == ["", "flat", "noise", "", "out of range"]
    assert together.tolist() == [find_reasons(strip[None], 250.0)[0] for strip in strips]
    assert find_reasons(strips[:0], 250.0).shape == (0,)


def literal_reason(strip: np.ndarray, fs: float, filtered: np.ndarray) -> str:
    """Apply the rules to one strip as they are documented, sample by sample and without any shortcut."""
    n = len(strip)
    held = strip.copy()
    valid = np.flatnonzero(np.isfinite(strip))
    for i in range(n):
        if not np.isfinite(strip[i]):
            before = valid[valid < i]
            held[i] = strip[before[-1]] if len(before) else strip[valid[0]]
    low, high = min(held), max(held)
    span = high - low
    longest, repeats, clipped, peak = 0, 0, 0, {low: 0, high: 0}
    for i in range(n):
        repeats = repeats + 1 if i and held[i] == held[i - 1] else 0
        longest = max(longest, repeats)
        for end in peak:
            peak[end] = peak[end] + 1 if held[i] == end else 0
            clipped += {3: 3}.get(peak[end], int(peak[end] > 3))  # the third sample makes a peak of all three
    near_low = sum(held <= low + 0.05 * span) / n
    near_high = sum(held >= high - 0.05 * span) / n
    power = np.abs(np.fft.rfft((filtered - filtered.mean()) * np.hanning(len(filtered)))) ** 2 + 1e-12
    hz = np.fft.rfftfreq(len(filtered), 1 / 125)
    band, flat = (hz >= 3) & (hz < 40), power[(hz >= 3) & (hz < 25)]
    rms_hz = np.sqrt(np.average(hz[band] ** 2, weights=power[band]))
    flatness = np.exp(np.log(flat).mean()) / flat.mean()
    mains = power[hz >= 45].sum() / power[hz >= 1].sum()
    energy = [np.mean(np.diff(filtered)[k : k + 25] ** 2) for k in range(0, len(filtered) - 25, 25)]
    steadiness = np.median(energy) / (np.mean(energy) + 1e-12)
    amplitude = np.median([np.ptp(filtered[k : k + 125]) for k in range(0, len(filtered) - 124, 125)])
    if 1 - len(valid) / n > 0.10:
        return f"missing: {1 - len(valid) / n:.0%} of the samples are invalid, more than 10%"
    if span > 50:
        return f"out of range: the strip spans {span:.0f} mV, more than 50 mV; check the units"
    if max(-low, high) > 1e4:
        return f"out of range: the strip reaches {max(-low, high):.0f} mV, more than 10000 mV; check the units"
    if span < 0.010:
        return f"flat: the strip spans {span:.3f} mV, less than 0.010 mV"
    if longest >= round(fs):
        return "flat: one value repeats for 1 s or more"
    if clipped / n > 0.35 or (near_low + near_high > 0.55 and min(near_low, near_high) > 0.10):
        return f"saturated: {near_low + near_high:.0%} of the samples are at the ends of the range"
    if np.ptp(filtered) > 4 * span:
        return "noise: the filter still rings from an earlier artefact"
    if mains > 0.5:
        return f"noise: {mains:.0%} of the power is mains hum"
    like_noise = (rms_hz > 16.5 and flatness > 0.44) or rms_hz > 21
    if like_noise and steadiness > 0.5 and amplitude > 0.12:
        return f"noise: broadband, {rms_hz:.1f} Hz root mean square"
    return ""


@st.composite
def disturbed_strips(draw: st.DrawFn) -> tuple[float, np.ndarray]:
    """Draw a sampling rate and a strip of ECG, VF, noise or hum, with clipping, flat runs, steps and lost samples."""
    fs = draw(st.sampled_from((100.0, 125.0, 250.0, 257.0, 333.33, 360.0, 500.0)))
    seconds = draw(st.sampled_from((2.0, 3.3, 5.0)))
    n = int(np.ceil(seconds * fs))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    t = np.arange(n) / fs
    beats = np.exp(-0.5 * (((t + rng.random()) % 0.8 - 0.4) / 0.012) ** 2)
    hum = np.sin(2 * np.pi * 50 * t) * (fs > 100)
    kind = draw(st.sampled_from(("beats", "vf", "white", "square", "hum")))
    strip = {"beats": beats, "vf": vf(1, fs)[:n], "white": rng.standard_normal(n), "hum": hum}.get(
        kind, np.sign(np.sin(2 * np.pi * rng.uniform(0.3, 3) * t + rng.random()))
    )
    strip = strip + draw(st.sampled_from((0, 0, 0.01, 0.1, 0.5))) * rng.standard_normal(n)
    strip = strip + draw(st.sampled_from((0, 0, 1, 5))) * hum
    strip *= draw(st.sampled_from((0.004, 0.05, 0.3, 1, 5, 49, 200))) / (np.ptp(strip) or 1)  # no hum at 100 Hz
    clip = draw(st.sampled_from((0, 0, 0.1, 0.3, 0.49)))
    low, high = strip.min(), strip.max()
    strip = np.clip(strip, low + clip * (high - low) * draw(st.booleans()), high - clip * (high - low))
    step = draw(st.sampled_from((0, 0, 0.0025, 0.04)))
    if step:
        strip = np.round(strip / step) * step
    if draw(st.booleans()):
        length = round(fs) + draw(st.sampled_from((-10, -1, 0, 1, 2, 30)))
        first = draw(st.integers(0, max(n - length, 0)))
        strip[first : first + length] = draw(st.sampled_from((strip[first], strip.max(), strip.min())))
    lost = draw(st.sampled_from((0, 0, 0, 0.02, 0.099, 0.1, 0.101, 0.3)))
    if lost:
        count = round(lost * n)
        first = draw(st.integers(0, n - count))
        where = slice(first, first + count) if draw(st.booleans()) else rng.choice(n, count, replace=False)
        strip[where] = draw(st.sampled_from((np.nan, np.inf, -np.inf)))
    return fs, strip + draw(st.sampled_from((0.0, -300.0)))


@given(disturbed_strips(), st.booleans())
@settings(max_examples=600, deadline=None, derandomize=True)
def test_shortcuts_change_no_reason(disturbed: tuple[float, np.ndarray], among_others: bool) -> None:
    """Whatever disturbs a strip, alone or among others, its reason equals that of the literal rules."""
    fs, strip = disturbed
    strips = np.stack([np.zeros_like(strip), strip, np.full_like(strip, np.nan)]) if among_others else strip[None]
    filtered = preprocess_strips(strips, fs)
    row = int(among_others)
    assert unusable_reasons(strips, fs, filtered)[row] == literal_reason(strip, fs, filtered[row])


@pytest.mark.parametrize("fs", [100.0, 250.0, 333.33, 2000.0])
def test_run_of_one_second_is_found_wherever_it_begins(fs: float) -> None:
    """A value that repeats over one second is found at every position, and one sample less nowhere."""
    second = round(fs)
    strip = vf(1, fs)[: round(2.2 * fs)] + 5
    firsts = np.arange(0, len(strip) - second, max(second // 100, 1))
    for repeats, reason in ((second, "flat: one value repeats for 1 s or more"), (second - 1, "")):
        strips = np.repeat(strip[None], len(firsts), axis=0)
        for row, first in zip(strips, firsts, strict=True):
            row[first : first + repeats + 1] = 5.05
        assert set(find_reasons(strips, fs)) == {reason}


def test_views_give_the_same_reasons_as_copies(rng: np.random.Generator) -> None:
    """Overlapping windows of one signal get the same reasons as alone."""
    signal = np.concatenate([np.tile(vf(1), 2), np.zeros(1000), rng.standard_normal(2500), 1000 * vf(1)])
    signal[3000:3100] = np.nan
    windows = np.lib.stride_tricks.sliding_window_view(signal, 1250)[::125]
    reasons = find_reasons(windows, 250.0)
    assert {reason.split(":")[0] for reason in reasons} == {"", "flat", "noise", "out of range"}
    assert reasons.tolist() == [find_reasons(window[None].copy(), 250.0)[0] for window in windows]
