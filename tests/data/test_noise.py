"""Noise has the requested ratio, and the ECG under it does not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecg_shock.data.annotations import read_labels
from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.noise import (
    _noise_power,
    _signal_power,
    add_noise,
    compressions,
    draw_noise,
    mains,
    read_noise,
    resample,
)
from ecg_shock.data.readers import read_record
from ecg_shock.preprocessing import Preprocessing, Preprocessor

FS = 250.0


@pytest.fixture
def ecg(rng: np.random.Generator) -> np.ndarray:
    """Four strips of 5 s with an offset: sines of 4 Hz, from 0.4 to 3 mV peak to peak."""
    time_s = np.arange(1250) / FS
    phase = rng.uniform(0, 2 * np.pi, (4, 1))
    return 1.5 + np.array([[0.2], [0.5], [1.0], [1.5]]) * np.sin(2 * np.pi * 4 * time_s + phase)


def measured_snr_db(ecg: np.ndarray, added: np.ndarray) -> float:
    """Measure the ratio of one strip second by second, with the filter of a stream instead of that of strips."""
    lead_in = ecg[: round(2 * FS)][::-1]
    stream = Preprocessor(Preprocessing(), fs=FS)
    filtered = stream.process(np.concatenate([lead_in, ecg]))[250:]
    heights = [np.ptp(filtered[i : i + 125]) for i in range(0, 625, 125)]
    powers = [np.mean((part - part.mean()) ** 2) for part in np.split(added, 5)]
    return float(10 * np.log10(np.median(heights) ** 2 / 8 / np.mean(powers)))


@pytest.mark.parametrize("snr_db", [24.0, 0.0, -6.0])
def test_ratio_is_what_was_asked(ecg: np.ndarray, rng: np.random.Generator, snr_db: float) -> None:
    """The ratio measured in the result is right to 1e-6 dB, whatever the amplitude of the given noise."""
    noise = rng.standard_normal(ecg.shape) * np.array([[1e-3], [1.0], [30.0], [1e6]])
    noisy = add_noise(ecg, noise, snr_db, FS)
    for before, after in zip(ecg, noisy, strict=True):
        assert measured_snr_db(before, after - before) == pytest.approx(snr_db, abs=1e-6)


def test_sine_has_the_power_of_a_sine(ecg: np.ndarray) -> None:
    """For a sine, which is like coarse VF, the signal power is its mean square, except for the filter's ripple."""
    expected = np.array([0.2, 0.5, 1.0, 1.5]) ** 2 / 2
    assert _signal_power(ecg, FS) == pytest.approx(expected, rel=0.05)


def test_asystole_gets_the_noise_of_an_ordinary_ecg(rng: np.random.Generator) -> None:
    """Below 0.1 mV, and without any signal at all, noise is that of an ECG of 1 mV; just above, that of the ECG."""
    time_s = np.arange(1250) / FS
    heights = np.array([[0.0], [0.09], [0.12]])
    strips = heights / 2 * np.sin(2 * np.pi * 4 * time_s)
    added = add_noise(strips, rng.standard_normal(strips.shape), 6.0, FS) - strips
    power = [np.mean([part.var() for part in np.split(strip, 5)]) for strip in added]
    assert power[:2] == pytest.approx([1 / 8 / 10**0.6] * 2)
    assert power[2] == pytest.approx(0.12**2 / 8 / 10**0.6, rel=0.1)


def test_invalid_samples_stay_invalid(ecg: np.ndarray, rng: np.random.Generator) -> None:
    """NaN of the recorder is neither filled nor spread, and a strip of NaN only is not an error here."""
    noise = rng.standard_normal(ecg.shape)
    ecg[1, 100:150] = np.nan
    ecg[2] = np.nan
    noisy = add_noise(ecg, noise, 6.0, FS)
    np.testing.assert_array_equal(np.isnan(noisy), np.isnan(ecg))


@pytest.mark.parametrize(
    ("noise", "snr_db", "message"),
    [
        (np.ones((4, 1250)), 6.0, "constant"),
        (np.full((4, 1250), np.nan), 6.0, "NaN"),
        (np.ones((4, 1249)), 6.0, "shape"),
        (np.ones((4, 1250)), np.nan, "not finite"),
        (np.ones((4, 1250)), np.inf, "not finite"),
    ],
)
def test_what_cannot_be_added_is_refused(ecg: np.ndarray, noise: np.ndarray, snr_db: float, message: str) -> None:
    """Each refusal says what is wrong."""
    with pytest.raises(ValueError, match=message):
        add_noise(ecg, noise, snr_db, FS)


def test_strips_are_pieces_of_the_noise(rng: np.random.Generator) -> None:
    """Noise that is long enough is cut and never reversed; all starts occur, the last one too."""
    strips = draw_noise(np.arange(12.0), 500, 10, rng)
    assert (np.diff(strips, axis=1) == 1).all()
    assert set(strips[:, 0]) == {0, 1, 2}


@pytest.mark.parametrize("m", [1, 2, 7, 99])
def test_short_noise_goes_on_without_a_seam(rng: np.random.Generator, m: int) -> None:
    """At a seam one sample repeats: no step is larger than the largest within the noise, and all samples occur."""
    noise = rng.standard_normal(m).cumsum()
    strips = draw_noise(noise, 20, 400, rng)
    largest = np.abs(np.diff(noise)).max() if m > 1 else 0.0
    assert np.abs(np.diff(strips, axis=1)).max() == largest
    for strip in strips:
        assert set(strip) == set(noise)
        repeats = np.flatnonzero(np.diff(strip) == 0)
        assert m == 1 or (np.diff(repeats) == m).all()


@pytest.mark.parametrize(
    "noise", [np.empty(0), np.zeros((2, 5)), np.array([0.0, np.nan, 1.0]), np.array([0.0, np.inf])]
)
def test_noise_without_sense_is_not_drawn(rng: np.random.Generator, noise: np.ndarray) -> None:
    """Nothing, two dimensions, NaN and infinity are refused."""
    with pytest.raises(ValueError, match="noise h"):
        draw_noise(noise, 2, 5, rng)


@pytest.mark.parametrize("per_minute", [100.0, 110.0, 120.0])
def test_compressions_peak_at_their_rate(
    rng: np.random.Generator, per_minute: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest line of the spectrum, averaged over 10-s strips, is the compression rate; its multiples are lower."""
    monkeypatch.setattr("ecg_shock.data.noise.COMPRESSION_RATE", (per_minute, per_minute))
    strips = compressions(200, 2500, FS, rng)
    padded = 8 * 2500
    power = (np.abs(np.fft.rfft(strips * np.hanning(2500), padded)) ** 2).mean(axis=0)
    frequency = np.fft.rfftfreq(padded, 1 / FS)
    assert frequency[np.argmax(power)] == pytest.approx(per_minute / 60, abs=0.05)
    lines = [power[np.argmin(np.abs(frequency - k * per_minute / 60))] for k in range(1, 6)]
    assert all(below > above for below, above in zip(lines, lines[1:], strict=False))


@pytest.mark.parametrize(("n", "fs"), [(500, 250.0), (3600, 360.0), (20000, 2000.0)])
def test_compressions_span_one_millivolt(rng: np.random.Generator, n: int, fs: float) -> None:
    """Each strip spans 1 mV at any length and sampling rate, finite, without a step, and no two strips are alike."""
    strips = compressions(30, n, fs, rng)
    assert strips.shape == (30, n)
    assert np.ptp(strips, axis=1) == pytest.approx(1.0)
    assert np.abs(np.diff(strips, axis=1)).max() < 0.5 * 2 * np.pi * 2.4 * 5 / fs  # a sine of the highest harmonic
    assert len(np.unique(strips[:, 0])) == 30


def test_rates_cover_what_guidelines_ask_for(rng: np.random.Generator) -> None:
    """Strips differ in compression rate: by autocorrelation, it spans most of 100 to 120 per minute."""
    strips = compressions(200, 2500, FS, rng)
    power = np.abs(np.fft.rfft(strips * np.hanning(2500), 20000)) ** 2
    frequency = np.fft.rfftfreq(20000, 1 / FS)
    low = (frequency > 1.2) & (frequency < 2.6)
    found = 60 * frequency[low][np.argmax(power[:, low], axis=1)]
    assert np.quantile(found, 0.1) == pytest.approx(102, abs=3)
    assert np.quantile(found, 0.9) == pytest.approx(118, abs=3)


@pytest.mark.parametrize("hz", [50.0, 60.0])
def test_mains_is_one_line(rng: np.random.Generator, hz: float) -> None:
    """All power is at the frequency, 1 mV peak to peak has 0.125 mV², and phases differ."""
    strips = mains(5, 5000, 1000.0, hz, rng)
    power = np.abs(np.fft.rfft(strips, axis=1)) ** 2 / 5000**2 * 2
    assert power[:, round(5 * hz)] == pytest.approx(0.125)
    assert power.sum(axis=1) == pytest.approx(0.125)
    assert len(np.unique(strips[:, 0].round(6))) == 5


@pytest.mark.parametrize("fs", [100.0, 119.0])
def test_mains_that_would_fold_is_refused(rng: np.random.Generator, fs: float) -> None:
    """60 Hz cannot be sampled at 120 Hz and less."""
    with pytest.raises(ValueError, match="give a frequency above 0 and below"):
        mains(1, 1000, fs, 60.0, rng)


def test_own_rate_changes_nothing(ecg: np.ndarray) -> None:
    """At an equal sampling rate no bit changes, and NaN stays."""
    ecg[0, 3] = np.nan
    np.testing.assert_array_equal(resample(ecg, FS, FS), ecg)


@pytest.mark.parametrize(("fs", "to_fs"), [(250.0, 125.0), (250.0, 360.0), (360.0, 250.0), (360.0, 1000.0)])
def test_resampled_is_the_same_function_of_time(fs: float, to_fs: float) -> None:
    """A 10 Hz sine on a drifting offset equals the same sine at the new sampling rate, to 10 % near the ends."""
    n, m = round(5 * fs), round(5 * to_fs)
    there, then = np.arange(n) / fs, np.arange(m) / to_fs
    strips = np.stack([np.sin(20 * np.pi * there) + 3 + there, np.full(n, 7.0)])
    found = resample(strips, fs, to_fs)
    assert found.shape == (2, m)
    error = np.abs(found[0] - (np.sin(20 * np.pi * then) + 3 + then))
    assert error[m // 10 : -m // 10].max() < 0.01
    assert error.max() < 0.5
    assert found[1] == pytest.approx(7.0)


def test_invalid_samples_do_not_spread(rng: np.random.Generator) -> None:
    """One NaN would make a whole resampled strip NaN; it holds the value before it instead."""
    strips = rng.standard_normal((1, 1250))
    held = strips.copy()
    held[0, 600] = held[0, 599]
    strips[0, 600] = np.nan
    np.testing.assert_array_equal(resample(strips, 250.0, 125.0), resample(held, 250.0, 125.0))


def test_missing_noise_says_how_to_get_it(tmp_path: Path) -> None:
    """The message names the file and the command."""
    with pytest.raises(FileNotFoundError, match=r"bw\.hea is missing; run `ecg-shock fetch nstdb`"):
        read_noise("bw", 250.0, tmp_path)


@pytest.mark.recordings
@pytest.mark.parametrize("record", ["bw", "em", "ma"])
def test_recorded_noise_is_read(recordings_dir: Path, record: str) -> None:
    """Half an hour, finite; resampling keeps the spread, since all noise but that of muscle is below 62 Hz."""
    own, lower = read_noise(record, 360.0, recordings_dir), read_noise(record, 250.0, recordings_dir)
    assert len(own) == 650_000
    assert len(lower) == round(650_000 * 250 / 360)
    assert np.isfinite(lower).all()
    assert lower.std() == pytest.approx(own.std(), rel=0.02)


@pytest.mark.recordings
@pytest.mark.parametrize(("lead", "ours_db"), [(0, -12.2), (1, -6.7)])
def test_definition_beside_that_of_nst(recordings_dir: Path, lead: int, ours_db: float) -> None:
    """Record 118e_6 is 118 plus `em` at -6 dB by `nst`, and at the documented ratios by our definition."""
    clean = read_record(recordings_dir / "mitdb" / "118").signal[:, lead].astype(float)
    noisy = read_record(recordings_dir / "nstdb" / "118e_6").signal[:, lead].astype(float)
    noise = read_record(recordings_dir / "nstdb" / "em").signal[:, lead].astype(float)
    first_noisy = slice(300 * 360, 420 * 360)
    added = noisy[first_noisy] - clean[first_noisy]
    scale = np.polyfit(noise[first_noisy], added, 1)[0]

    _, beats_s, _ = read_labels(recordings_dir / "mitdb" / "118", load_manifest("mitdb"))
    heights = [np.ptp(clean[round(360 * t) - 18 : round(360 * t) + 18]) for t in beats_s[1:301]]
    seconds = np.sort(noise[: 300 * 360].reshape(300, 360).std(axis=1))[15:-15]
    nst_db = 20 * np.log10(np.mean(heights) / np.sqrt(8) / (scale * seconds.mean()))
    assert nst_db == pytest.approx(-6, abs=0.3)

    strips, rests = clean[first_noisy].reshape(24, 1800), added.reshape(24, 1800)
    ratio = _signal_power(strips, 360.0).mean() / _noise_power(rests, 360.0).mean()
    assert 10 * np.log10(ratio) == pytest.approx(ours_db, abs=0.1)
