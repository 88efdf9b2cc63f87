"""What no ECG can be is not advised to be shocked; and what the quality rule still takes for one is listed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import butter, sawtooth, sosfilt

from ecg_shock import Advisor, scan

FS = 250.0
DRAWS = 500
LENGTHS_S = (2.0, 5.0, 10.0)
SCANS, SCAN_S = 10, 30.0
VOCABULARY = (
    *("Not", "a", "medical", "device.", "Whatever", "is", "fed", "to", "the", "package,", "it", "answers;"),
    *("(n_samples,", "n_leads)", "0.25", "=", "mV"),
)

Family = Callable[[np.random.Generator, int, int], np.ndarray]


def sizes(rng: np.random.Generator, k: int) -> np.ndarray:
    """Draw amplitudes of an ECG, in mV."""
    return np.exp(rng.uniform(np.log(0.2), np.log(5), (k, 1)))


def phases(rng: np.random.Generator, k: int, n: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Draw tones, each of one frequency."""
    return 2 * np.pi * (rng.uniform(low_hz, high_hz, (k, 1)) * np.arange(n) / FS + rng.random((k, 1)))


def noise(rng: np.random.Generator, k: int, n: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Draw noise of one band, with a standard deviation of 1."""
    band = sosfilt(butter(2, (low_hz, high_hz), "bandpass", fs=FS, output="sos"), rng.standard_normal((k, n)), axis=1)
    return band / band.std(axis=1, keepdims=True)


def walk(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Draw sums of noise, with a standard deviation of 1."""
    steps = np.cumsum(rng.standard_normal((k, n)), axis=1)
    return steps / steps.std(axis=1, keepdims=True)


def pink(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Draw noise whose power falls as 1/f."""
    spectrum = np.fft.rfft(rng.standard_normal((k, n)), axis=1)
    values = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 1)), n, axis=1)
    return values / values.std(axis=1, keepdims=True)


def steps(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Draw 3 to 19 levels that are held, each for as long."""
    counts = rng.integers(3, 20, k)
    return np.stack([np.repeat(rng.uniform(-1, 1, count), -(-n // count))[:n] for count in counts])


def rails(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Draw changes between two levels at any time, 1 to 8 in a second."""
    return np.where(np.cumsum(rng.random((k, n)) < rng.uniform(1, 8, (k, 1)) / FS, axis=1) % 2, 1.0, -1.0)


def spikes(rng: np.random.Generator, k: int, n: int, per_s: float) -> np.ndarray:
    """Draw single samples that are off, by up to 5 mV."""
    return np.where(rng.random((k, n)) < per_s / FS, rng.uniform(-5, 5, (k, n)), 0.0)


def missing(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Draw VF of which 15 to 99 % are missing."""
    ecg = np.sin(phases(rng, k, n, 4, 6))
    ecg[rng.random((k, n)) < rng.uniform(0.15, 0.99, (k, 1))] = np.nan
    ecg[:, 0] = 0.0
    return ecg


def text(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Draw sentences, as bytes."""
    rows = [" ".join(rng.choice(VOCABULARY, n // 4)).encode()[:n] for _ in range(k)]
    return np.stack([np.frombuffer(row, dtype=np.uint8) for row in rows]).astype(float)


def words(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Draw random bytes, two a sample."""
    return np.frombuffer(rng.bytes(2 * k * n), dtype="<i2").astype(float).reshape(k, n)


NEVER: dict[str, Family] = {
    "flat": lambda rng, k, n: np.repeat(sizes(rng, k), n, axis=1),
    "flat, a bit toggles": lambda rng, k, n: 0.004 * (rng.random((k, n)) > 0.5) + sizes(rng, k),
    "square, 0.5 to 10 Hz": lambda rng, k, n: sizes(rng, k) * np.sign(np.sin(phases(rng, k, n, 0.5, 10))),
    "two rails at random times": lambda rng, k, n: sizes(rng, k) * rails(rng, k, n),
    "constant with spikes": lambda rng, k, n: spikes(rng, k, n, 3) + sizes(rng, k),
    "constant with spikes and noise": lambda rng, k, n: spikes(rng, k, n, 3) + 0.01 * rng.standard_normal((k, n)),
    "spikes, 20 a second": lambda rng, k, n: spikes(rng, k, n, 20),
    "clipped noise": lambda rng, k, n: sizes(rng, k) * np.clip(8 * rng.standard_normal((k, n)), -1, 1),
    "clipped sine": lambda rng, k, n: sizes(rng, k) * np.clip(4 * np.sin(phases(rng, k, n, 3, 10)), -1, 1),
    "out of range": lambda rng, k, n: 10.0 ** rng.uniform(1.8, 12, (k, 1)) * np.sin(phases(rng, k, n, 3, 10)),
    "mostly missing": missing,
    "random bytes as 16 bits, mV": words,
    "random bytes as 16 bits, µV": lambda rng, k, n: words(rng, k, n) / 1000,
    "random bytes as 8 bits, 200/mV": lambda rng, k, n: rng.integers(0, 256, (k, n)) / 200,
    "mains hum": lambda rng, k, n: sizes(rng, k) * np.sin(phases(rng, k, n, 49.9, 60.1)),
    "muscle noise": lambda rng, k, n: sizes(rng, k) * noise(rng, k, n, 20, 100),
    "fast sine, 10 to 30 Hz": lambda rng, k, n: sizes(rng, k) * np.sin(phases(rng, k, n, 10, 30)),
    "slow sawtooth, 0.5 to 3 Hz": lambda rng, k, n: sizes(rng, k) * sawtooth(phases(rng, k, n, 0.5, 3)),
    "text as bytes, mV": text,
    "text as bytes, µV": lambda rng, k, n: text(rng, k, n) / 1000,
    "text as bytes, 200/mV": lambda rng, k, n: text(rng, k, n) / 200,
}
# The spectrum of short noise is rough, so that some of it slips through.
RARELY: dict[str, Family] = {
    "white noise": lambda rng, k, n: sizes(rng, k) * rng.standard_normal((k, n)),
    "uniform noise": lambda rng, k, n: sizes(rng, k) * rng.uniform(-1, 1, (k, n)),
}
MAX_RARELY = 0.02
# What the rule takes for an ECG, and the network for VF.
REACHING: dict[str, Family] = {
    "sine, 0.5 to 3 Hz": lambda rng, k, n: sizes(rng, k) * np.sin(phases(rng, k, n, 0.5, 3)),
    "sine, 3 to 10 Hz": lambda rng, k, n: sizes(rng, k) * np.sin(phases(rng, k, n, 3, 10)),
    "triangle, 0.5 to 10 Hz": lambda rng, k, n: sizes(rng, k) * sawtooth(phases(rng, k, n, 0.5, 10), 0.5),
    "sawtooth, 3 to 10 Hz": lambda rng, k, n: sizes(rng, k) * sawtooth(phases(rng, k, n, 3, 10)),
    "chirp, 1 to 20 Hz": lambda rng, k, n: (
        sizes(rng, k) * np.sin(2 * np.pi * (np.arange(n) / FS + 9.5 * np.arange(n) ** 2 / FS / n))
    ),
    "pink noise": lambda rng, k, n: sizes(rng, k) * pink(rng, k, n),
    "random walk": lambda rng, k, n: sizes(rng, k) * walk(rng, k, n),
    "wander alone, 0.1 to 1 Hz": lambda rng, k, n: sizes(rng, k) * noise(rng, k, n, 0.1, 1),
    "steps between random levels": lambda rng, k, n: sizes(rng, k) * steps(rng, k, n),
    "recovery from steps": lambda rng, k, n: (
        sizes(rng, k) * sosfilt(butter(1, 0.5, "highpass", fs=FS, output="sos"), steps(rng, k, n), axis=1)
    ),
}


@pytest.fixture(scope="module")
def advisor() -> Advisor:
    """Load the model that comes with the package once."""
    return Advisor()


def shares(advisor: Advisor, family: Family, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return the shares that are usable and that are advised to be shocked, at each length."""
    found = []
    for seconds in LENGTHS_S:
        advice = advisor.predict_many(family(rng, DRAWS, round(seconds * FS)), FS)
        found.append((np.mean([one.usable for one in advice]), np.mean([one.shock for one in advice])))
    print("usable, shock at", LENGTHS_S, "s:", " ".join(f"{usable:.3f} {shock:.3f} " for usable, shock in found))
    return found


@pytest.mark.parametrize("name", NEVER)
def test_rubbish_is_never_shocked(name: str, advisor: Advisor, rng: np.random.Generator) -> None:
    """Not one of 1500 strips, and no window of a scan, whose filter has another past."""
    assert all(shock == 0 for _, shock in shares(advisor, NEVER[name], rng))
    for signal in NEVER[name](rng, SCANS, round(SCAN_S * FS)):
        assert not scan(signal, FS, model=advisor).shock.any()


@pytest.mark.parametrize("name", RARELY)
def test_noise_is_rarely_shocked(name: str, advisor: Advisor, rng: np.random.Generator) -> None:
    """At most 2 of 100 strips."""
    assert all(shock <= MAX_RARELY for _, shock in shares(advisor, RARELY[name], rng))


@pytest.mark.parametrize("name", REACHING)
def test_list_of_what_reaches_the_network_is_true(name: str, advisor: Advisor, rng: np.random.Generator) -> None:
    """Most of it is taken for an ECG, and some of it for VF; what no longer is belongs into the list above."""
    found = shares(advisor, REACHING[name], rng)
    assert all(usable > 0.5 for usable, _ in found)
    assert max(shock for _, shock in found) > MAX_RARELY
