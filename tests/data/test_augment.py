"""Augmented windows keep what their label depends on, and an epoch is always the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import ecg_shock.data.strips
from ecg_shock.data.augment import Augmentation, Augmenter, read_training_noise
from ecg_shock.data.datasets import DataConfig
from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.data.splits import load_split
from ecg_shock.data.strips import ARTEFACT, Strips, load_strips
from ecg_shock.data.windows import LabelPolicy, amplitude_mv, rate_bpm
from ecg_shock.preprocessing import Preprocessing, preprocess_strips

POLICY = LabelPolicy()
EVERYTHING = Augmentation(
    reversal=0.5,
    windows=400,
    warp=0.2,
    gain=3.0,
    polarity=True,
    noise=0.3,
    compressions=0.1,
    mains=0.1,
    clipping=0.1,
    electrode=0.1,
    band=0.2,
    artefact=0.1,
)


def lead(hz: float, peak_to_peak_mv: float) -> np.ndarray:
    """Return 60 s of a wave at 125 Hz."""
    return peak_to_peak_mv / 2 * np.sin(2 * np.pi * hz * np.arange(7500) / 125)


@pytest.fixture
def strips() -> Strips:
    """Return candidates of four patients, one for each class, every half second of a minute."""
    leads = {
        ("vf", "mine/1", "coarse_vf"): lead(5.0, 0.3),
        ("vt", "mine/2", "rapid_vt"): lead(3.0, 1.0),
        ("sinus", "mine/3", "normal_sinus"): lead(1.2, 1.0),
        ("flat", "mine/4", "asystole"): lead(2.0, 0.05),
        ("other", "elsewhere/5", "normal_sinus"): lead(1.4, 1.0),
    }
    starts = np.arange(250, 7500 - 625, 63)
    count = len(starts)
    bounds = np.repeat([[7500 * i, 7500 * (i + 1)] for i in range(len(leads))], count, axis=0)
    names = [np.repeat(column, count) for column in zip(*leads, strict=True)]
    return Strips(
        signal=np.concatenate(list(leads.values())).astype(np.float32),
        start=np.concatenate([starts + 7500 * i for i in range(len(leads))]),
        span=bounds,
        lead=bounds,
        patient=names[1],
        database=np.char.partition(names[1], "/")[:, 0],
        aha_class=names[2],
        window_s=5.0,
    )


@pytest.fixture
def noise(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return noise in place of nstdb."""
    return {name: np.cumsum(rng.standard_normal(20_000)).astype(np.float32) for name in ("bw", "em", "ma")}


def augmenter(strips: Strips, noise: dict[str, np.ndarray], settings: Augmentation, **options: object) -> Augmenter:
    """Return an augmenter with the default filter and label policy."""
    return Augmenter(strips, settings, noise, policy=POLICY, preprocessing=Preprocessing(), **options)


def test_an_epoch_is_always_the_same(strips: Strips, noise: dict[str, np.ndarray]) -> None:
    """The windows of an epoch depend on the seed and the epoch only, and epochs and seeds differ."""
    one, other = (augmenter(strips, noise, EVERYTHING, seed=3) for _ in range(2))
    one.draw(1)
    np.testing.assert_array_equal(one.draw(2).ecg, other.draw(2).ecg)
    assert (one.draw(2).ecg != one.draw(3).ecg).any()
    assert (one.draw(2).ecg != augmenter(strips, noise, EVERYTHING, seed=4).draw(2).ecg).any()


def test_the_proportions_are_those_asked_for(strips: Strips, noise: dict[str, np.ndarray]) -> None:
    """Half of the windows are shockable; artefact and extra databases have their proportions of the rest."""
    drawn = augmenter(strips, noise, EVERYTHING, extra=("elsewhere",), extra_weight=0.4).draw(1)
    assert drawn.shockable.sum() == 200
    assert set(drawn.rhythm[drawn.shockable]) == {"coarse_vf", "rapid_vt"}
    counts = Counter(drawn.rhythm.tolist())
    assert counts[ARTEFACT] == 20
    with_rhythm = drawn.patient[np.isin(drawn.rhythm, ("normal_sinus", "asystole"))]
    assert len(with_rhythm) == 180
    assert np.mean(with_rhythm == "elsewhere/5") == pytest.approx(0.4, abs=0.12)
    assert drawn.ecg.shape == (400, 625)
    assert np.isfinite(drawn.ecg).all()


def test_labels_stay_true(strips: Strips, noise: dict[str, np.ndarray]) -> None:
    """Without added artefact, rates and amplitudes agree with the label policy, whatever the warp and the gain."""
    settings = Augmentation(windows=600, warp=0.5, gain=10.0, polarity=True, reversal=0.5)
    drawn = augmenter(strips, noise, settings).draw(1)
    amplitude = amplitude_mv(drawn.ecg)
    assert (amplitude[drawn.rhythm == "coarse_vf"] > POLICY.coarse_vf_mv).all()
    assert (amplitude[drawn.rhythm == "asystole"] < POLICY.asystole_mv).all()
    rates = [rate_bpm(window) for window in drawn.ecg[drawn.rhythm == "rapid_vt"]]
    assert min(rates) >= POLICY.rapid_vt_bpm
    assert len({round(rate) for rate in rates}) > 20  # they are warped


def test_without_changes_windows_are_those_of_the_recording(strips: Strips, noise: dict[str, np.ndarray]) -> None:
    """With everything off, each window is a strip of its lead that went through the usual filter."""
    drawn = augmenter(strips, noise, Augmentation(windows=40)).draw(1)
    possible = preprocess_strips(np.lib.stride_tricks.sliding_window_view(strips.signal, 625), 125.0)
    for ecg in drawn.ecg:
        nearest = np.abs(possible[:, 250:] - ecg[250:]).max(axis=1).min()  # the filter has settled
        assert nearest < 0.01


def test_reversed_windows_run_backwards(strips: Strips, noise: dict[str, np.ndarray]) -> None:
    """With reversal, shockable windows are strips of the lead read backwards, at their speed, and no others are."""
    rising = Strips(**{**vars(strips), "signal": _saw(strips.signal)})
    drawn = augmenter(rising, noise, Augmentation(windows=40, reversal=1.0)).draw(1)
    views = np.lib.stride_tricks.sliding_window_view(rising.signal, 625)
    forward, backward = preprocess_strips(views, 125.0), preprocess_strips(views[:, ::-1], 125.0)
    for ecg, shockable in zip(drawn.ecg, drawn.shockable, strict=True):
        same, other = (backward, forward) if shockable else (forward, backward)
        distance = [np.abs(possible[:, 250:] - ecg[250:]).max(axis=1).min() for possible in (same, other)]
        assert distance[0] < 0.01 < distance[1]


def _saw(signal: np.ndarray) -> np.ndarray:
    """Return waves with a steep and a flat side, 5 a second, of at least 0.3 mV."""
    return (0.3 * ((np.arange(len(signal)) / 125 * 5.0) % 1)).astype(np.float32)


def test_settings_of_older_models_are_read() -> None:
    """Slowed VT that was off is dropped, and slowed VT that was on is an error."""
    assert Augmentation.model_validate({"slowed_vt": 0.0, "slowed_vt_bpm": (75.0, 138.0)}) == Augmentation()
    with pytest.raises(ValueError, match="not supported any more"):
        Augmentation.model_validate({"slowed_vt": 0.1})


def test_missing_class_is_refused(strips: Strips, noise: dict[str, np.ndarray]) -> None:
    """A class without candidates is an error."""
    nonshockable = Strips(
        **{
            name: getattr(strips, name)[~np.isin(strips.aha_class, ("coarse_vf", "rapid_vt"))]
            for name in ("start", "span", "lead", "patient", "database", "aha_class")
        },
        signal=strips.signal,
        window_s=5.0,
    )
    with pytest.raises(ValueError, match="no shockable window"):
        augmenter(nonshockable, noise, EVERYTHING).draw(1)


def test_noise_is_artefact_in_extra_databases_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of a database under test may hide VF, so it is no candidate, also if a path names the database."""
    recording = Recording(
        signal=lead(1.2, 1.0)[:, np.newaxis], fs=125.0, leads=("II",), name="r", database="mine", patient="mine/r",
        episodes=(Episode(0, 30, "normal_sinus"), Episode(30, 60, "noise")),
    )  # fmt: skip
    monkeypatch.setattr(ecg_shock.data.strips, "training_recordings", lambda data, folder: [recording])
    monkeypatch.setattr(ecg_shock.data.strips, "guard_s", lambda data: {"mine": 0.0})
    data = DataConfig(databases=("folder/mine.toml",))
    assert set(load_strips(data).aha_class) == {"normal_sinus"}
    monkeypatch.setattr(ecg_shock.data.strips, "extra_patients", lambda data: {"mine": None})
    assert set(load_strips(data).aha_class) == {"normal_sinus", ARTEFACT}


@pytest.mark.recordings
def test_only_training_patients_are_drawn(recordings_dir: Path) -> None:
    """Windows are of the fold's training patients, of the others' recordings nothing is loaded, and all leads are."""
    data = DataConfig(databases=("vfdb", "cudb"), fold=1, supplement=("asystole",))
    strips = load_strips(data, recordings_dir)
    fold = load_split("public-v1")[1]
    real = {patient for patient in strips.patient.tolist() if not patient.startswith("synthetic")}
    assert real <= fold.train
    assert len(real) > 25
    leads = {
        tuple(bounds) for bounds, patient in zip(strips.lead.tolist(), strips.patient, strict=True) if patient in real
    }
    assert len(leads) > len(real)
    assert set(strips.aha_class[strips.database == "synthetic"]) == {"asystole"}
    noise = read_training_noise(recordings_dir)
    drawn = augmenter(strips, noise, EVERYTHING).draw(1)
    assert set(drawn.patient.tolist()) - {""} <= set(strips.patient.tolist())
