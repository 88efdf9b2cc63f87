"""Strips hold the recording's own samples, and the probability is the one that was evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecg_shock.data.recordings import Recording
from ecg_shock.evaluation.evaluation_set import EvaluationSet
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.inference.advisor import Advisor
from ecg_shock.models.bundle import Bundle
from ecg_shock.preprocessing import preprocess
from ecg_shock.report.html import Strip
from ecg_shock.report.strips import strips_of


@pytest.fixture(scope="module")
def advisor() -> Advisor:
    """Load the model that comes with the package."""
    return Advisor()


def record(rng: np.random.Generator, name: str, fs: float, seconds: float) -> Recording:
    """Make two leads of slow noise, with a gap in the second."""
    signal = np.cumsum(rng.normal(0, 0.05, (round(seconds * fs), 2)), axis=0).astype(np.float32)
    signal[300:320, 1] = np.nan
    return Recording(signal, fs, ("a", "b"), name=name, database="db", patient=f"db/{name}")


def windows(rows: list[tuple[str, str, float, float]], fold: int = 0) -> Predictions:
    """Build predictions from (record, lead, start, duration)."""
    n = len(rows)
    records = np.array([name for name, *_ in rows], dtype=str)
    return Predictions(
        database=np.full(n, "db"),
        record=records,
        lead=np.array([lead for _, lead, *_ in rows], dtype=str),
        patient=records,
        start_s=np.array([start for *_, start, _ in rows]),
        duration_s=np.array([duration for *_, duration in rows]),
        rhythm=np.full(n, "vf"),
        aha_class=np.full(n, "coarse_vf"),
        probability=np.zeros(n),
        shock=np.zeros(n, dtype=bool),
        fold=np.full(n, fold),
    )


def test_strips_are_the_samples_around_their_windows(rng: np.random.Generator, advisor: Advisor) -> None:
    """A strip holds one second on each side within the recording, of the window's lead, with gaps."""
    first, second = record(rng, "x", 250.0, 30.0), record(rng, "y", 360.0, 21.0)
    predictions = windows([("x", "a", 10.0, 5.0), ("x", "b", 0.0, 5.0), ("y", "a", 16.0, 5.0), ("z", "a", 0.0, 5.0)])
    strips, others = (strips_of(made, predictions, [2, 0, 1, 3], {0: advisor}) for made in (first, second))
    assert (sorted(strips), sorted(others)) == ([0, 1], [2])  # nothing was given of z
    strips |= others
    for row, recording, lead, start_s, end_s in ((0, first, 0, 9, 16), (1, first, 1, 0, 6), (2, second, 0, 15, 21)):
        strip = strips[row]
        fs = int(recording.fs)
        assert (strip.start_s, strip.fs) == (start_s, recording.fs)
        np.testing.assert_array_equal(strip.ecg, recording.signal[start_s * fs : end_s * fs, lead])
    assert np.isnan(strips[1].ecg).sum() == 20


def test_probability_goes_along_the_recording(rng: np.random.Generator, advisor: Advisor) -> None:
    """Each is that of the window which ends there, cut from the recording filtered as a whole, half a second apart."""
    recording = record(rng, "x", 250.0, 30.0)
    predictions = windows([("x", "a", 10.0, 5.0), ("x", "a", 25.0, 4.0)])
    strips = strips_of(recording, predictions, [0, 1], {0: advisor})
    filtered = preprocess(recording.signal[:, 0], 250.0, advisor.bundle.preprocessing)
    for row, samples, ends in ((0, 625, (9.0, 16.0)), (1, 500, (24.0, 30.0))):
        times, values = strips[row].probability_at_s, strips[row].probability
        assert times is not None
        assert values is not None
        assert (times[0], times[-1]) == pytest.approx(ends, abs=0.004)
        assert np.diff(times) == pytest.approx(0.5, abs=0.009)
        for time, value in zip(times, values, strict=True):
            last = round(time * 125)
            assert advisor.probabilities(filtered[np.newaxis, last - samples : last])[0] == value


def test_each_fold_has_its_model(rng: np.random.Generator, advisor: Advisor) -> None:
    """Windows are predicted by the model of their fold; a missing lead is an error."""
    recording = record(rng, "x", 250.0, 20.0)
    with pytest.raises(KeyError):
        strips_of(recording, windows([("x", "a", 5.0, 5.0)], fold=3), [0], {0: advisor})
    assert strips_of(recording, windows([("x", "a", 5.0, 5.0)], fold=3), [0], {3: advisor})
    with pytest.raises(ValueError, match="db/x has no lead 'c'"):
        strips_of(recording, windows([("x", "c", 5.0, 5.0)]), [0], {0: advisor})


@pytest.mark.recordings
def test_predicted_probability_is_found_again(fold_bundle: Bundle, recordings_dir: Path) -> None:
    """Of real test windows the probability at the end of each is exactly the one that was evaluated."""
    evaluation = EvaluationSet((fold_bundle,), folder=recordings_dir)
    predictions = evaluation.predictions([5.0])
    predictions = predictions.select(np.isin(predictions.record, ["cu03", "615"]))
    rows = list(range(0, len(predictions), 7))
    strips: dict[int, Strip] = {}
    for recording in evaluation.recordings(r for r in evaluation.records() if r.name in ("cu03", "615")):
        strips |= strips_of(recording, predictions, rows, evaluation.advisors)
    assert sorted(strips) == rows
    for row, strip in strips.items():
        assert strip.probability_at_s is not None
        assert strip.probability is not None
        at_end = np.isclose(strip.probability_at_s, predictions.start_s[row] + 5.0)
        assert strip.probability[at_end].tolist() == [predictions.probability[row]]
