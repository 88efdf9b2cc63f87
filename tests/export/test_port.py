"""A port in SciPy and NumPy, written from a sidecar alone, gives the windows, quality and decisions of the package."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter, sosfilt

from ecg_shock import Advisor
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.export.export import export
from ecg_shock.inference.quality import unusable_reasons
from ecg_shock.models.bundle import Bundle
from ecg_shock.preprocessing import preprocess_strips

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

Sidecar = dict[str, Any]
RATES_HZ = (250, 300, 360)


@pytest.fixture(scope="module")
def sidecar_at(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Sidecar]:
    """Export to LiteRT once for each sampling rate, and read the sidecar."""
    known: dict[int, Sidecar] = {}

    def sidecar(fs: int) -> Sidecar:
        if fs not in known:
            written = export(bundle, "litert", tmp_path_factory.mktemp("port"), fs=float(fs)).files[-1]
            known[fs] = json.loads(written.read_text(encoding="utf-8"))
        return known[fs]

    return sidecar


def resample_and_filter(signal: np.ndarray, rate: str, preprocessing: Sidecar) -> np.ndarray:
    """Do steps 3 and 4 of the sidecar; the first sample of the signal is 0."""
    resampler = preprocessing["resampler"]["rates_hz"][rate]
    inserted = np.zeros(len(signal) * resampler["up"])
    inserted[:: resampler["up"]] = signal
    return sosfilt(preprocessing["sos"], lfilter(resampler["taps"], [1.0], inserted)[:: resampler["down"]])


def filter_stream(raw: np.ndarray, fs: float, rate: str, preprocessing: Sidecar) -> np.ndarray:
    """Do steps 1 to 4 for a stream."""
    constants = preprocessing["constants"]
    signal, offset, last, missing = np.zeros(len(raw)), 0.0, 0.0, math.inf
    for i, mv in enumerate(raw):
        if abs(mv) <= constants["max_mv"]:
            if missing >= constants["gap_s"] * fs:
                offset = mv - last
            last, missing = mv - offset, 0
        else:
            missing += 1
        signal[i] = last
    return resample_and_filter(signal, rate, preprocessing)


def hold(strip: np.ndarray, max_mv: float) -> np.ndarray:
    """Replace each invalid sample by the last valid one, at the start by the first valid one."""
    valid = np.abs(strip) <= max_mv
    last = next((mv for mv, good in zip(strip, valid, strict=True) if good), 0.0)
    held = []
    for mv, good in zip(strip, valid, strict=True):
        last = mv if good else last
        held.append(last)
    return np.array(held)


def filter_strip(strip: np.ndarray, fs: float, rate: str, preprocessing: Sidecar) -> np.ndarray:
    """Filter a strip without earlier samples, with a lead-in."""
    constants, resampler = preprocessing["constants"], preprocessing["resampler"]["rates_hz"][rate]
    held = hold(strip, constants["max_mv"])
    k = min(round(constants["lead_in_s"] * fs), len(held))
    both = np.concatenate([held[:k][::-1], held])
    first, kept = (round(n * resampler["up"] / resampler["down"]) for n in (k, len(held)))
    return resample_and_filter(both - both[0], rate, preprocessing)[first : first + kept]


def longest_run(flags: np.ndarray, at_least: int = 1) -> tuple[int, int]:
    """Return the longest run of true flags, and the sum of all runs of some length."""
    runs = [len(run) for run in "".join("01"[int(flag)] for flag in flags).split("0")]
    return max(runs), sum(run for run in runs if run >= at_least)


def faults(raw: np.ndarray, fs: float, filtered: np.ndarray, sidecar: Sidecar) -> list[str]:
    """Return the names of all checks of the sidecar that find a fault."""
    limits = {check["name"]: check["limits"] for check in sidecar["quality"]["checks"]}
    n, hz = len(filtered), np.fft.rfftfreq(len(filtered), 1 / 125)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / (n - 1))
    power = np.abs(np.fft.rfft((filtered - filtered.mean()) * window)) ** 2 + 1e-12
    held = hold(raw, sidecar["preprocessing"]["constants"]["max_mv"])
    low, high = np.nanmin(raw), np.nanmax(raw)
    span = high - low
    found = []

    if np.mean(np.isnan(raw)) > limits["missing"]["max_missing"]:
        found.append("missing")

    limit = limits["out of range"]
    if span > limit["max_range_mv"] or np.nanmax(np.abs(raw)) > limit["max_mv"]:
        found.append("out of range")

    limit = limits["flat"]
    repeats, _ = longest_run(np.diff(held) == 0)
    if span < limit["min_range_mv"] or repeats >= round(limit["max_constant_s"] * fs):
        found.append("flat")

    limit = limits["saturated"]
    near_low = np.mean(held <= low + limit["rail_width"] * span)
    near_high = np.mean(held >= high - limit["rail_width"] * span)
    clipped = sum(longest_run(held == end, limit["clip_run"])[1] for end in (low, high)) / len(held)
    near = near_low + near_high
    if (near > limit["max_at_rails"] and min(near_low, near_high) > limit["min_at_each_rail"]) or (
        near > limit["max_clipped"] and clipped > limit["max_clipped"]
    ):
        found.append("saturated")

    if np.ptp(filtered) > limits["ringing"]["max_growth"] * span:
        found.append("ringing")

    limit = limits["mains hum"]
    if power[hz >= limit["mains_from_hz"]].sum() / power[hz >= limit["ecg_from_hz"]].sum() > limit["max_mains"]:
        found.append("mains hum")

    limit = limits["broadband noise"]
    band = (hz >= limit["band_low_hz"]) & (hz < limit["band_high_hz"])
    rms_hz = np.sqrt((power * hz**2)[band].sum() / power[band].sum())
    band = (hz >= limit["flatness_low_hz"]) & (hz < limit["flatness_high_hz"])
    flatness = np.exp(np.log(power[band]).mean()) / power[band].mean()
    block = round(limit["block_s"] * 125)
    slope = np.diff(filtered) ** 2
    energy = [slope[i : i + block].mean() for i in range(0, len(slope) - block + 1, block)]
    seconds = [np.ptp(filtered[i : i + 125]) for i in range(0, n - 124, 125)]
    like_noise = rms_hz > limit["muscle_rms_hz"] or (
        rms_hz > limit["white_rms_hz"] and flatness > limit["white_flatness"]
    )
    steady = np.median(energy) / (np.mean(energy) + 1e-12) > limit["min_steadiness"]
    if like_noise and steady and np.median(seconds) > limit["min_amplitude_mv"]:
        found.append("broadband noise")
    return found


@pytest.mark.parametrize("fs", RATES_HZ)
def test_port_reproduces_the_golden_vectors(fs: int, sidecar_at: Callable[[int], Sidecar], bundle: Bundle) -> None:
    """Filtered samples agree to 5e-7 mV, and each check finds its own vector first; the rule gives all decisions."""
    sidecar = sidecar_at(fs)
    advisor, named = Advisor(bundle), []
    for vector in sidecar["golden"]:
        assert vector["fs"] == fs
        raw = np.array([np.nan if mv is None else mv for mv in vector["raw_mv"]])
        filtered = filter_stream(raw, vector["fs"], vector["rate"], sidecar["preprocessing"])
        np.testing.assert_allclose(filtered, vector["preprocessed_mv"], rtol=0, atol=6e-7)  # they are rounded to 1e-6
        window = filtered[-sidecar["input"]["shape"][1] :]
        found = faults(raw[-vector["raw_window"] :], vector["fs"], window, sidecar)
        probability = advisor.probabilities(window[np.newaxis])[0]
        assert vector["probability"] == pytest.approx(probability, abs=1e-5)
        assert vector["usable"] == (not found), vector["name"]
        assert vector["shock"] == (probability >= sidecar["decision"]["threshold"] and not found)
        if found:
            assert vector["name"].split(", ")[-1] == found[0]
            named.append(found[0])
    assert named == [check["name"] for check in sidecar["quality"]["checks"]]
    assert {vector["shock"] for vector in sidecar["golden"]} == {True, False}
    assert any(
        vector["logit"] >= sidecar["decision"]["threshold_logit"] and not vector["usable"]
        for vector in sidecar["golden"]
    )


@pytest.mark.parametrize("fs", RATES_HZ)
def test_rule_for_strips(fs: int, sidecar_at: Callable[[int], Sidecar], rng: np.random.Generator) -> None:
    """With the lead-in of the sidecar, strips are filtered and checked as by `predict`, also with noise and gaps."""
    sidecar = sidecar_at(fs)
    signal = next(iter(synthetic_recordings(1, seed=3, fs=fs))).signal[:, 0]
    seen = set()
    for start_s in range(0, int(len(signal) / fs) - 5, 5):
        strip = signal[start_s * fs :][: round(4.3 * fs)] + rng.normal(0, rng.choice([0.0, 0.05, 0.3]), round(4.3 * fs))
        if start_s % 3 == 0:
            strip[rng.integers(0, len(strip), rng.integers(1, len(strip) // 6))] = np.nan
        expected = preprocess_strips(strip[np.newaxis], fs)[0]
        found = filter_strip(strip, fs, str(fs), sidecar["preprocessing"])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        reason = str(unusable_reasons(strip[np.newaxis], fs, expected[np.newaxis])[0])
        assert bool(faults(strip, fs, found, sidecar)) == bool(reason), reason
        seen.add(reason.partition(":")[0])
    assert {"", "noise"} <= seen


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing: the C code cannot be compiled")
def test_sidecar_says_which_checks_the_code_has(bundle: Bundle, sidecar_at: Callable, tmp_path: Path) -> None:
    """A port of LiteRT must add all checks, and one of C those that ecg_shock.h says the code does not have."""
    written = export(bundle, "c", tmp_path).files[-1]
    code = json.loads(written.read_text(encoding="utf-8"))
    assert [check["name"] for check in code["quality"]["checks"] if check["included"]] == [
        "missing",
        "out of range",
        "flat",
    ]
    assert not any(check["included"] for check in sidecar_at(250)["quality"]["checks"])
