"""The parts of a strip that carry the advice are those whose removal changes what the network says."""

from __future__ import annotations

import copy
import math
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_shock import Advisor
from ecg_shock.data.noise import randomise_phases
from ecg_shock.inference.occlusion import DRAWS, Explanation, Part, explain_strip, shared_effect

FS, N = 250.0, 1250
TIME_S = np.arange(N) / FS


@pytest.fixture(scope="module")
def advisor() -> Advisor:
    """Load the model that comes with the package."""
    return Advisor()


def vf(rng: np.random.Generator, n: int = N) -> np.ndarray:
    """Make an irregular oscillation of about 5 Hz and 1 mV."""
    hz = 5 + np.cumsum(rng.standard_normal(n)) * 0.02
    return 0.5 * np.sin(2 * np.pi * np.cumsum(hz) / FS)


def linear(weights: np.ndarray) -> Any:
    """Make a model whose logit is the product of the strip with weights."""
    return SimpleNamespace(logits=lambda strips, fs: strips @ weights, bundle=SimpleNamespace(threshold=0.5))


def logit(advice: Any) -> float:
    """Return the logit of an advice."""
    return math.log(advice.probability / (1 - advice.probability))


def test_stated_changes_are_those_of_predict(advisor: Advisor, rng: np.random.Generator) -> None:
    """`predict_many` of the strip without a part says what the explanation states, for every part and replacement."""
    strip = vf(rng) * np.where(TIME_S < 2.5, 1.0, 0.4)
    advice = advisor.predict(strip, FS)
    explanation = advice.explain()
    assert explanation.logit == pytest.approx(logit(advice), abs=1e-5)
    assert len(explanation.parts) == 9
    for part in explanation.parts:
        for replacement, change in (("removed", part.removed), ("randomised", part.randomised)):
            strips = explanation.without(part, replacement)
            assert len(strips) == (DRAWS if replacement == "randomised" else 1)
            left = np.mean([logit(one) for one in advisor.predict_many(strips, FS)])
            assert explanation.logit - left == pytest.approx(change, abs=1e-4)
    with pytest.raises(ValueError, match="allowed are 'removed' and 'randomised'"):
        explanation.without(explanation.parts[0], "shuffled")


def test_linear_model_changes_by_what_is_removed(rng: np.random.Generator) -> None:
    """For a linear model, the change is w · (strip - strip without the part), and the far seconds are untouched."""
    strip, weights = rng.standard_normal((2, N))
    explanation = explain_strip(linear(weights), strip, FS)
    for part in explanation.seconds:
        (without,) = explanation.without(part)
        assert part.removed == pytest.approx(weights @ (strip - without))
        far = (part.low - 0.06 > TIME_S) | (part.high + 0.06 < TIME_S)
        np.testing.assert_array_equal(without[far], strip[far])
        inside = (part.low <= TIME_S) & (part.high > TIME_S)
        assert np.abs(np.diff(without[inside], 2)).max() < 1e-9  # a straight line
        randomised = explanation.without(part, "randomised")
        np.testing.assert_array_equal(randomised[:, far], np.broadcast_to(strip[far], (DRAWS, far.sum())))


def test_bands_are_cut_out(rng: np.random.Generator) -> None:
    """A tone is in its band alone: without it, a model that looks for the tone finds nothing."""
    for hz, name in ((2, "0–3 Hz"), (5, "3–8 Hz"), (10, "8–15 Hz"), (20, "over 15 Hz")):
        tone = np.sin(2 * np.pi * hz * TIME_S)
        explanation = explain_strip(linear(tone), tone, FS)
        for part in explanation.bands:
            expected = explanation.logit if part.name == name else 0.0
            assert part.removed == pytest.approx(expected, abs=0.03 * explanation.logit)
            assert (part.effect > 0.3 * explanation.logit) == (part.name == name)


def test_replacement_alone_has_no_effect(advisor: Advisor, rng: np.random.Generator) -> None:
    """A line replaced by a line changes nothing; noise replaced by such noise changes nothing on average."""
    strip = vf(rng)
    gap = (TIME_S >= 1.9) & (TIME_S < 3.1)
    strip[gap] = np.linspace(strip[gap][0], strip[gap][-1], gap.sum())
    assert advisor.predict(strip, FS).explain().seconds[2].removed == pytest.approx(0, abs=0.05)

    ecg = np.where(np.abs(TIME_S % 0.8 - 0.4) < 0.02, 1.0, 0.0)
    changes = np.array(
        [
            [part.randomised for part in explain_strip(advisor, noise, FS).seconds]
            for noise in randomise_phases(np.repeat(ecg[None], 40, axis=0), rng)
        ]
    ).mean(axis=1)
    assert abs(changes.mean()) < 3 * changes.std() / math.sqrt(len(changes))


def test_only_the_second_with_vf_carries_a_shock(advisor: Advisor, rng: np.random.Generator) -> None:
    """In a quiet strip with one second of VF, that second is named, and the replacement of no other has an effect."""
    burst = (TIME_S >= 2) & (TIME_S < 3)
    strip = 0.02 * rng.standard_normal(N) + np.where(burst, 2 * vf(rng), 0.0)
    effects = [part.effect for part in explain_strip(advisor, strip, FS).seconds]
    assert np.argmax(effects) == 2
    assert max(abs(effect) for i, effect in enumerate(effects) if i != 2) < 0.5 * effects[2]


@settings(deadline=None, max_examples=30)
@given(st.floats(2.0, 10.0))
def test_seconds_cover_the_strip(length_s: float) -> None:
    """They follow one another from the start to the end, each about 1 s long."""
    n = round(length_s * FS)
    seconds = explain_strip(linear(np.ones(n)), np.sin(np.arange(n) / 9), FS).seconds
    assert seconds[0].low == 0.0
    assert seconds[-1].high == pytest.approx(n / FS, abs=1e-3)
    assert all(one.high == other.low for one, other in zip(seconds, seconds[1:], strict=False))
    assert all(0.49 < part.high - part.low < 1.51 for part in seconds)


@settings(deadline=None)
@given(st.floats(-9, 9), st.floats(-9, 9))
def test_effect_is_what_both_replacements_share(removed: float, randomised: float) -> None:
    """It never exceeds either change, and has the sign of both or is 0."""
    effect = Part("second", 0.0, 1.0, removed, randomised).effect
    assert effect == shared_effect(randomised, removed)
    assert abs(effect) <= min(abs(removed), abs(randomised))
    assert effect * removed >= 0
    assert effect * randomised >= 0


def test_advice_knows_its_own_strip(advisor: Advisor, rng: np.random.Generator) -> None:
    """Each advice of several explains its strip, in any unit and with missing samples; a copy does not know it."""
    strips = np.stack([vf(rng), 0.7 * vf(rng)]) * 1000
    strips[1, 40:60] = np.nan
    first, second = advisor.predict_many(strips, FS, units="uV")
    np.testing.assert_allclose(first.explain().strip, strips[0] / 1000)
    found = second.explain()
    assert np.isfinite(found.strip).all()
    assert found.logit == pytest.approx(logit(second), abs=1e-4)
    assert [part.removed for part in second.explain(seed=1).parts] == [part.removed for part in found.parts]
    assert [part.randomised for part in second.explain(seed=1).parts] != [part.randomised for part in found.parts]
    for copied in (copy.copy(first), pickle.loads(pickle.dumps(first))):
        assert copied == first
        with pytest.raises(ValueError, match="does not know its strip"):
            copied.explain()
    with pytest.raises(ValueError, match="the strip is unusable \\(flat"):
        advisor.predict(np.zeros(N), FS).explain()


def test_explanation_is_repeatable(advisor: Advisor, rng: np.random.Generator) -> None:
    """Equal strips have equal explanations."""
    strip = vf(rng)
    first, second = (explain_strip(advisor, strip, FS) for _ in range(2))
    assert isinstance(first, Explanation)
    assert first.parts == second.parts
