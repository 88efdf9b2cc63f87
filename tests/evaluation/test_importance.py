"""The importance of patterns is that of its definition, for networks whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_shock import Advisor, explain
from ecg_shock.data.windows import LabelPolicy, amplitude_mv
from ecg_shock.evaluation import importance
from ecg_shock.evaluation.backgrounds import (
    COARSE_VF,
    QUIET,
    QUIET_MV,
    RANDOMISED,
    SINUS,
    Background,
    load_backgrounds,
    without_beats,
)
from ecg_shock.evaluation.importance import find_habits, network_of
from ecg_shock.evaluation.patterns import NEVER, Pattern, standard_patterns
from ecg_shock.evaluation.responses import Network, measure_interaction, measure_response
from ecg_shock.models.bundle import Bundle
from ecg_shock.preprocessing import preprocess_strips

FS, N = 250.0, 1250


def backgrounds(rng: np.random.Generator, patients: int = 4, kind: str = SINUS, n: int = N) -> list[Background]:
    """Make strips of noise, one to three of each patient, at two sampling rates."""
    groups = []
    for fs in (FS, 360.0):
        patient = np.array([f"p{k}-{fs:g}" for k in range(patients) for _ in range(k % 3 + 1)])
        beats = (np.arange(0.3, 5.0, 0.8),) * len(patient)
        groups.append(Background(kind, rng.standard_normal((len(patient), n)), fs, patient, beats))
    return groups


def fixed(name: str, shape: np.ndarray, doses: tuple[float, ...] = (0.5, 1.0, 3.0), **more: Any) -> Pattern:
    """Add the same shape to every strip."""
    return Pattern(name, "amplitude", "mV", doses, doses[1], lambda b, dose, rng: b.strips + dose * shape, **more)


def answer(compute: Callable[[np.ndarray], np.ndarray]) -> Network:
    """Make a network of a function of strips, which takes all strips for usable."""
    return lambda strips, fs: (compute(strips), np.ones(len(strips), dtype=bool))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31))
def test_importance_of_a_linear_network_is_w_times_phi(seed: int) -> None:
    """Whatever the strips are, each dose changes the logit by dose · w·φ, for every patient."""
    rng = np.random.default_rng(seed)
    w, phi = rng.standard_normal((2, N))
    found = measure_response(answer(lambda strips: strips @ w + 1), backgrounds(rng), fixed("phi", phi))
    assert found is not None
    expected = [dose * sum(a * b for a, b in zip(w.tolist(), phi.tolist(), strict=True)) for dose in (0, 0.5, 1, 3)]
    for part in ("mean", "lower", "upper"):
        np.testing.assert_allclose([getattr(e, part) for e in found.effect], expected, rtol=1e-9, atol=1e-9)
    assert found.importance == found.effect[2]


def test_pattern_of_zero_has_no_importance(rng: np.random.Generator) -> None:
    """For the real network too, what changes nothing has exactly no effect, and no interaction."""
    network, groups = network_of(Advisor()), backgrounds(rng)
    nothing, wave = fixed("nothing", np.zeros(N)), fixed("wave", np.sin(np.arange(N) / 8))
    found = measure_response(network, groups, nothing)
    assert found is not None
    assert {(e.mean, e.lower, e.upper) for e in found.effect} == {(0.0, 0.0, 0.0)}
    both = measure_interaction(network, groups, nothing, wave)
    assert both is not None
    assert both.interaction.mean == 0.0
    assert both.together.mean != 0.0


def test_additive_network_has_no_interaction(rng: np.random.Generator) -> None:
    """A sum of two nonlinear answers to two features has none; their product has φ1·a times φ2·b."""
    a, b = np.linalg.qr(rng.standard_normal((N, 2)))[0].T
    first, second = fixed("first", 2 * a, (0.5, 1.0)), fixed("second", 3 * b, (0.5, 1.0))
    groups = backgrounds(rng)
    added = measure_interaction(answer(lambda s: np.tanh(s @ a) + (s @ b) ** 3), groups, first, second)
    multiplied = measure_interaction(answer(lambda s: (s @ a) * (s @ b)), groups, first, second)
    assert added is not None
    assert multiplied is not None
    assert abs(added.together.mean) > 1
    assert added.interaction.mean == pytest.approx(0, abs=1e-9)
    assert multiplied.interaction.mean == pytest.approx(6)


def test_patients_count_equally_and_are_resampled(rng: np.random.Generator) -> None:
    """Repeating the strips of some patients changes neither mean nor limits, which are those of a plain bootstrap."""
    groups = backgrounds(rng, 9)[:1]
    one = groups[0]
    more = replace(
        one,
        strips=np.repeat(one.strips, 3, axis=0),
        patient=np.repeat(one.patient, 3),
        beats_s=one.beats_s * 3,
    )
    w, wave = rng.standard_normal(N), fixed("wave", np.sin(np.arange(N) / 8))
    network = answer(lambda s: np.tanh(s @ w / 20))
    found, repeated = (measure_response(network, [group], wave) for group in (one, more))
    assert found is not None
    assert repeated is not None
    assert found.importance.mean == pytest.approx(repeated.importance.mean)
    assert found.importance.lower == pytest.approx(repeated.importance.lower)
    change = np.tanh((one.strips + np.sin(np.arange(N) / 8)) @ w / 20) - np.tanh(one.strips @ w / 20)
    means = np.array([change[one.patient == name].mean() for name in np.unique(one.patient)])
    assert found.importance.mean == pytest.approx(means.mean())
    resampled = means[rng.integers(0, len(means), (20_000, len(means)))].mean(axis=1)
    spread = resampled.std()
    assert found.importance.lower == pytest.approx(np.quantile(resampled, 0.05), abs=0.1 * spread)
    assert found.importance.upper == pytest.approx(np.quantile(resampled, 0.95), abs=0.1 * spread)
    assert (found.patients, found.strips, repeated.strips) == (9, len(one.strips), 3 * len(one.strips))


def test_single_patient_has_no_interval(rng: np.random.Generator) -> None:
    """One patient says nothing about others."""
    found = measure_response(answer(lambda s: s.mean(axis=1)), backgrounds(rng, 1)[:1], fixed("offset", np.ones(N)))
    assert found is not None
    assert (found.importance.lower, found.importance.upper) == (None, None)


@pytest.mark.parametrize(("threshold", "expected"), [(0.25, 0.25), (2.0, 2.0), (3.5, None)])
def test_crossing_is_where_the_logit_meets_the_threshold(threshold: float, expected: float | None) -> None:
    """A logit equal to the dose crosses the threshold at the threshold, or not at all."""
    silent = Background(QUIET, np.zeros((6, N)), FS, np.array(list("abcdef")), (np.empty(0),) * 6)
    network = answer(lambda strips: strips.mean(axis=1))
    found = measure_response(network, [silent], fixed("offset", np.ones(N)), threshold)
    assert found is not None
    assert found.crossing is None if expected is None else found.crossing is not None
    if found.crossing:
        assert (found.crossing.mean, found.crossing.lower) == pytest.approx((expected, expected))
    assert [e.mean for e in found.advised] == [float(dose >= threshold) for dose in found.doses]


def test_unusable_strips_are_advised_no_shock(rng: np.random.Generator) -> None:
    """They are counted, and their advice is no shock whatever the logit is."""
    found = measure_response(
        lambda strips, fs: (np.full(len(strips), 5.0), strips.mean(axis=1) < 0.9),
        [replace(group, strips=0 * group.strips) for group in backgrounds(rng)],
        fixed("offset", np.ones(N)),
    )
    assert found is not None
    assert found.unusable == (0.0, 0.0, 1.0, 1.0)
    assert [e.mean for e in found.advised] == [1.0, 1.0, 0.0, 0.0]


def test_habits_are_wrong_advice_the_worst_first(rng: np.random.Generator) -> None:
    """Only advice that is wrong counts, averaged over the doses; of variants, the worst is named."""
    network = answer(lambda strips: strips.mean(axis=1) - 1.0)  # a shock from an offset of 1
    silent = [Background(QUIET, np.zeros((6, N)), FS, np.array(list("abcdef")), (np.empty(0),) * 6)]
    offset, never = np.ones(N), {QUIET: NEVER}
    tried = [
        fixed("harmless", offset, (0.1, 0.2, 0.3), right=never),
        fixed("often", offset, (1.0, 2.0, 3.0), right=never),
        fixed("variant", offset, (0.1, 0.2, 2.0), right=never, variant_of="often"),
        fixed("sometimes", offset, (0.5, 1.5, 2.5), right=never),
        fixed("right from 2", offset, (1.5, 2.0, 3.0), right={QUIET: (1.9, 2.0)}),
        fixed("no opinion", offset, (1.0, 2.0, 3.0)),
        fixed("missed from 0.4", offset, (0.5, 0.6, 3.0, 4.0), right={QUIET: (0.4, 0.4)}),
    ]
    responses = [response for one in tried if (response := measure_response(network, silent, one))]
    found = find_habits(responses, 9)
    assert [habit.response.pattern for habit in found] == ["often", "sometimes", "missed from 0.4", "right from 2"]
    assert [habit.harm for habit in found] == pytest.approx([1, 2 / 3, 1 / 2, 1 / 3])
    assert [habit.response.doses[habit.dose] for habit in found] == [1.0, 1.5, 0.5, 1.5]
    assert find_habits(responses, 1) == found[:1]


AMPLITUDES = ("3–8 Hz oscillation", "pacing spikes", "chest compressions", "mains hum of 50 Hz")


@pytest.mark.parametrize("pattern", standard_patterns(folder=Path("nowhere")), ids=lambda pattern: pattern.name)
def test_patterns_have_the_dose_that_they_state(pattern: Pattern, rng: np.random.Generator) -> None:
    """Amplitudes and rates are measured in the strips; the same draws are made at each dose, so the change scales."""
    group = backgrounds(rng)[0]
    silent = replace(group, strips=np.zeros_like(group.strips))
    for dose in pattern.doses:
        changed = pattern.apply(silent, dose, np.random.default_rng(1))
        if pattern.name in AMPLITUDES:
            np.testing.assert_allclose(np.ptp(changed, axis=1), dose, rtol=0.1)
        elif pattern.dose == "rate":
            height = np.abs(changed).max(axis=1, keepdims=True)
            peaks = (np.diff((np.abs(changed) > 0.6 * height).astype(int), axis=1) == 1).sum(axis=1)
            if "narrow" in pattern.name:
                np.testing.assert_allclose(peaks, dose / 60 * N / FS, atol=1)
        elif pattern.name == "scaled rhythm":
            noisy = pattern.apply(group, dose, rng)
            np.testing.assert_allclose(amplitude_mv(preprocess_strips(noisy, FS)), dose, rtol=1e-6)
        elif pattern.name == "clipping":
            before = np.abs(group.strips - np.median(group.strips, axis=1, keepdims=True)).max(axis=1)
            clipped = pattern.apply(group, dose, rng)
            after = np.abs(clipped - np.median(clipped, axis=1, keepdims=True)).max(axis=1)
            np.testing.assert_allclose(after / before, 1 - dose / 100, rtol=1e-3)
    if pattern.unit in ("mV", "x QRS") and not pattern.variant_of:
        low, high = (pattern.apply(group, dose, np.random.default_rng(1)) - group.strips for dose in pattern.doses[:2])
        np.testing.assert_allclose(high, low * pattern.doses[1] / pattern.doses[0], atol=1e-9)
    assert pattern.usual in pattern.doses
    assert group.strips.std() == pytest.approx(1, abs=0.1)  # the strips themselves are not changed


def test_t_waves_follow_the_annotated_beats(rng: np.random.Generator) -> None:
    """Each is as high as the strip, 0.3 s after a beat for an RR interval of 1 s; strips without beats are skipped."""
    (pattern,) = (one for one in standard_patterns(folder=Path("nowhere")) if one.name == "giant T waves")
    beats = np.array([0.5, 1.5, 2.5])
    group = Background(SINUS, rng.standard_normal((2, N)), FS, np.array(["a", "b"]), (beats, beats[:2]))
    added = pattern.apply(group, 1.0, rng)[0] - group.strips[0]
    for beat in beats:
        assert abs(added[round((beat + 0.3) * FS)]) == pytest.approx(
            amplitude_mv(preprocess_strips(group.strips[:1], FS))[0], rel=1e-3
        )
        assert abs(added[round((beat + 0.8) * FS)]) < 1e-3
    found = measure_response(answer(lambda strips: strips.mean(axis=1)), [group], pattern)
    assert found is not None
    assert (found.patients, found.strips) == (1, 1)
    without = replace(group, beats_s=(np.empty(0),) * 2)
    assert measure_response(answer(lambda strips: strips.mean(axis=1)), [without], pattern) is None


def test_limits_of_the_labels_say_which_shock_is_right() -> None:
    """Rapid VT and coarse VF begin where the label policy of the model says."""
    named = {
        one.name: one for one in standard_patterns(LabelPolicy(rapid_vt_bpm=110, coarse_vf_mv=0.3), Path("nowhere"))
    }
    assert named["ventricular 1 mV complexes"].right[QUIET] == (110, 110)
    assert named["3–8 Hz oscillation"].right[QUIET] == (0, 0.3)
    assert named["1 mV complexes at 120/min"].right[QUIET] != NEVER
    assert not {"baseline wander", "electrode motion"} & named.keys()


@pytest.mark.recordings
def test_recorded_noise_spans_the_dose(recordings_dir: Path, rng: np.random.Generator) -> None:
    """Baseline wander and electrode motion have the amplitude that is asked for, at every rate."""
    for pattern in standard_patterns(folder=recordings_dir):
        if pattern.name in ("baseline wander", "electrode motion"):
            for group in backgrounds(rng):
                added = pattern.apply(group, 2.0, rng) - group.strips
                np.testing.assert_allclose(np.ptp(added, axis=1), 2.0)


def test_strips_without_beats_keep_their_spectrum(rng: np.random.Generator) -> None:
    """Random phases keep the power of each frequency of a strip that begins and ends alike; quiet strips are quiet."""
    group = backgrounds(rng)[0]
    group.strips[:, -1] = group.strips[:, 0]
    randomised, quiet = without_beats(group, rng), without_beats(group, rng, QUIET_MV)
    before, after = (
        np.abs(np.fft.rfft(strips - strips[:, :1], axis=1)) for strips in (group.strips, randomised.strips)
    )
    shift = np.abs(np.fft.rfft(group.strips - randomised.strips, axis=1))
    np.testing.assert_allclose(after[:, 1:], before[:, 1:], rtol=1e-6)
    assert np.median(shift[:, 1:] / before[:, 1:]) > 1
    np.testing.assert_allclose(amplitude_mv(preprocess_strips(quiet.strips, FS)), QUIET_MV)
    assert (randomised.kind, quiet.kind) == (RANDOMISED, QUIET)


def test_strips_are_of_test_patients_or_else_named(
    synthetic_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test patients are taken; without them, those of validation; and the result names subset and patients."""
    bundle = synthetic_bundle()
    card = bundle.card
    subset, found = load_backgrounds(bundle)
    drawn = {str(name) for groups in found.values() for group in groups for name in group.patient}
    assert subset == "test"
    assert drawn <= set(card.patients.test)
    assert all(found[kind] for kind in (SINUS, COARSE_VF, QUIET, RANDOMISED))
    assert max(np.unique(found[SINUS][0].patient, return_counts=True)[1]) <= 5
    for group in found[SINUS]:
        assert min(map(len, group.beats_s)) >= 3
        assert all((beats >= 0).all() and (beats < 5).all() for beats in group.beats_s)

    chosen = [one for one in standard_patterns(folder=Path("nowhere")) if one.name in ("PVC", "pacing spikes")]
    monkeypatch.setattr(importance, "standard_patterns", lambda labels, folder: tuple(chosen))
    untested = replace(bundle)
    patients = replace(card.patients, test=())
    untested.__dict__["card"] = replace(card, patients=patients)
    stages = []

    def on_stage(stage: str, steps: int) -> Callable[[], None]:
        stages.append(stage)
        return lambda: None

    result = explain(untested, on_stage=on_stage)
    assert result.subset == "validation"
    assert set(result.patients) <= set(card.patients.validation)
    assert {(r.pattern, r.background) for r in result.responses} == {
        (one.name, kind) for one in chosen for kind in found
    }
    assert [(pair.first, pair.second) for pair in result.interactions] == [("PVC", "pacing spikes")]
    assert stages == ["recordings", "patterns", "pairs of patterns"]
    assert explain(untested) == result
    untested.__dict__["card"] = replace(card, patients=replace(patients, validation=(), train=()))
    with pytest.raises(ValueError, match="no strip of normal sinus rhythm"):
        explain(untested)
