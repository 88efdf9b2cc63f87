"""Measure what it would cost to refuse modelled noise: `python tuning/results/headline/noise.py`.

Random walk, pink noise, white noise and baseline wander without an ECG have smooth spectra, unlike most VF. A
classifier learns to tell them from VF and rapid VT by 15 measures of the spectrum before the filter. For each kind of
noise, the script prints which proportion of VF and VT would be refused if the classifier refused 80, 95 or 99 % of this
noise. The classifier is always tested on records that it was not trained on (cross-validation).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.signal import butter, sosfilt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from ecg_shock.data.datasets import labelled_recordings
from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.windows import cut_windows
from ecg_shock.preprocessing import FS, resample_recording
from ecg_shock.rhythms import SHOCKABLE

DATABASES = ("vfdb", "cudb", "mitdb")
LENGTHS_S = (2.0, 5.0, 10.0)
BAND_HZ = (1.0, 20.0)
EDGES_HZ = (1.0, 1.5, 2.2, 3.2, 4.6, 6.6, 9.5, 14.0, 20.0)
EXPONENTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
DRAWS = 600
REFUSED = (0.80, 0.95, 0.99)


def draw_noise(name: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw strips of noise at 125 Hz, shape (DRAWS, n)."""
    white = rng.standard_normal((DRAWS, n))
    if name == "random walk":
        return np.cumsum(white, axis=1)
    if name == "pink noise":
        spectrum = np.fft.rfft(white, axis=1)
        return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 1)), n, axis=1)
    if name == "wander, 0.1 to 1 Hz":
        return sosfilt(butter(2, (0.1, 1.0), "bandpass", fs=FS, output="sos"), white, axis=1)
    return white


def measure(strips: np.ndarray) -> np.ndarray:
    """Measure spectra: slope, curvature, roughness, flatness, the share below 1 Hz, and the shape in eight bands."""
    n = strips.shape[1]
    line = np.linspace(-1, 1, n)
    strips = strips - strips.mean(axis=1, keepdims=True)
    strips = strips - np.outer(strips @ line / (line @ line), line)
    hz = np.fft.rfftfreq(n, 1 / FS)
    power = np.abs(np.fft.rfft(strips * np.hanning(n), axis=1)) ** 2 + 1e-12
    band = (hz >= BAND_HZ[0]) & (hz < BAND_HZ[1])
    log_hz, log_power, weight = np.log(hz[band]) - 1.5, np.log(power[:, band]), 1 / hz[band] / (1 / hz[band]).sum()
    columns, roughness = [], []
    for degree in (1, 2):
        terms = np.stack([log_hz**k for k in range(degree + 1)], axis=1)
        fitted = np.linalg.lstsq(terms * np.sqrt(weight)[:, None], (log_power * np.sqrt(weight)).T, rcond=None)[0].T
        columns.append(fitted[:, degree])
        roughness.append(np.sqrt(((log_power - fitted @ terms.T) ** 2 * weight).sum(axis=1)))
    whitened = [power[:, band] * hz[band] ** exponent for exponent in EXPONENTS]
    flatness = [np.exp(np.log(one).mean(axis=1)) / one.mean(axis=1) for one in whitened]
    low = power[:, (hz > 0) & (hz < BAND_HZ[0])].sum(axis=1) / power[:, (hz > 0) & (hz < 30)].sum(axis=1)
    pairs = zip(EDGES_HZ[:-1], EDGES_HZ[1:], strict=True)
    shape = np.stack([np.log(power[:, (hz >= a) & (hz < b)].mean(axis=1)) for a, b in pairs], axis=1)
    return np.column_stack(
        [
            *columns,
            *roughness,
            np.max(flatness, axis=0),
            np.argmax(flatness, axis=0),
            np.log(low + 1e-4),
            shape - shape.mean(axis=1, keepdims=True),
        ]
    )


def measure_shockable(length_s: float) -> Iterator[np.ndarray]:
    """Yield the measures of coarse VF and rapid VT on all leads, record by record."""
    n = round(length_s * FS)
    for name in DATABASES:
        for recording in labelled_recordings(name):
            windows = cut_windows(recording, length_s, guard_s=load_manifest(name).guard_s, leads="all")
            windows = windows.select(np.isin(windows.aha_class, SHOCKABLE))
            leads = {
                lead: resample_recording(recording.signal[:, i], recording.fs) for i, lead in enumerate(recording.leads)
            }
            firsts = np.round(windows.start_s * FS).astype(int)
            strips = [leads[lead][first : first + n] for lead, first in zip(windows.lead, firsts, strict=True)]
            strips = [strip for strip in strips if len(strip) == n]
            if strips:
                yield measure(np.nan_to_num(np.array(strips)))


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    names = ("random walk", "pink noise", "white noise", "wander, 0.1 to 1 Hz")
    print(
        f"{'window':>7}  {'noise':<20} VF and VT refused, in %, if {', '.join(f'{p:.0%}' for p in REFUSED)} of it are"
    )
    for length_s in LENGTHS_S:
        records = list(measure_shockable(length_s))
        noise = [measure(draw_noise(name, round(length_s * FS), rng)) for name in names]
        measures = np.concatenate([*records, *noise])
        is_noise = np.arange(len(measures)) >= sum(map(len, records))
        groups = np.concatenate(
            [
                np.repeat(np.arange(len(records)), [len(one) for one in records]),
                np.arange(DRAWS * len(names)) % 50 + 10_000,
            ]
        )
        classifier = make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression(max_iter=3000))
        score = cross_val_predict(
            classifier, measures, is_noise, groups=groups, cv=GroupKFold(5), method="decision_function"
        )
        for name, of_noise in zip(names, np.split(score[is_noise], len(names)), strict=True):
            costs = [(score[~is_noise] >= np.quantile(of_noise, 1 - part)).mean() for part in REFUSED]
            print(f"{length_s:5g} s  {name:<20} {'  '.join(f'{100 * cost:5.2f}' for cost in costs)}", flush=True)


if __name__ == "__main__":
    main()
