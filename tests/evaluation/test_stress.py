"""The stress test disturbs recorded strips, and counts what `predict` advises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecg_shock import Advisor
from ecg_shock.data.annotations import read_labelled
from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import WindowSet, concatenate, cut_windows
from ecg_shock.evaluation.confidence import bootstrap_limit
from ecg_shock.evaluation.stress import (
    Stress,
    StressPoint,
    StressTest,
    draw_clear_windows,
    standard_stresses,
)
from ecg_shock.rhythms import INTERMEDIATE, SHOCKABLE

FS = 250.0


@lru_cache(maxsize=1)
def synthetic() -> tuple[tuple[Recording, ...], WindowSet]:
    """Make recordings of eight patients, and windows of 5 s of them."""
    recordings = tuple(synthetic_recordings(8, seed=3))
    return recordings, concatenate(cut_windows(recording, 5.0, guard_s=0.5) for recording in recordings)


@pytest.fixture(scope="module")
def advisor() -> Advisor:
    """Load the model that comes with the package."""
    return Advisor()


def stress_test(
    advisor: Advisor, recordings: Iterable[Recording], windows: WindowSet, stresses: Sequence[Stress], **options: Any
) -> tuple[StressPoint, ...]:
    """Run a stress test on drawn windows of all recordings."""
    seed = options.get("seed", 0)
    test = StressTest(advisor, draw_clear_windows(windows, options.get("at_most", 10**6), seed), stresses, seed=seed)
    for recording in recordings:
        test.add(recording)
    return test.points()


def run(advisor: Advisor, stresses: tuple[Stress, ...], **options: Any) -> tuple[StressPoint, ...]:
    """Run a stress test on three windows of each synthetic patient and class."""
    recordings, windows = synthetic()
    return stress_test(advisor, recordings, windows, stresses, **{"at_most": 3, **options})


def named(*names: str, level: str = "") -> tuple[Stress, ...]:
    """Pick standard stresses by name."""
    return tuple(s for s in standard_stresses() if s.stress in names and level in (s.level, ""))


def figures(point: StressPoint) -> tuple[Any, ...]:
    """Return a point's results, without the name of the stress."""
    return point.sensitivity, point.specificity, point.unusable


def of(kind: str, disturb: Callable[[np.ndarray], np.ndarray]) -> Stress:
    """Make a stress from a function of strips."""
    return Stress(kind, "", 1.0, lambda strips, fs, rng: (disturb(strips), fs))


def test_baseline_is_what_predict_says(advisor: Advisor) -> None:
    """Strip by strip by `predict`, with a loop instead of masks, the counts of all windows are the same."""
    recordings, windows = synthetic()
    (point,) = stress_test(advisor, recordings, windows, ())
    right = {True: [0, 0], False: [0, 0]}
    unusable = 0
    by_name = {recording.name: recording for recording in recordings}
    for i in range(len(windows)):
        if windows.aha_class[i] in INTERMEDIATE:
            continue
        strip = by_name[windows.record[i]].strip(windows.start_s[i], 5.0, lead=windows.lead[i])
        advice = advisor.predict(strip)
        call = windows.aha_class[i] in SHOCKABLE
        right[call][0] += advice.shock == call
        right[call][1] += 1
        unusable += not advice.usable
    assert (point.stress, point.value) == ("none", 0.0)
    assert [point.sensitivity.count, point.sensitivity.windows] == right[True]
    assert [point.specificity.count, point.specificity.windows] == right[False]
    assert point.unusable == unusable
    assert min(right[True][1], right[False][1]) > 30


def test_limits_are_those_of_patients(advisor: Advisor) -> None:
    """Windows of one patient are drawn together: the limit is the bootstrap's over counts of patients."""
    flip = of("flip", lambda strips: strips * np.where(np.arange(len(strips)) % 2, 1.0, 0.0)[:, None])
    recordings, windows = synthetic()
    chosen = draw_clear_windows(windows, 10**6, 0)
    point = stress_test(advisor, recordings, chosen, (flip,))[1]
    correct, totals = [], []
    for patient in np.unique(chosen.patient[np.isin(chosen.aha_class, SHOCKABLE)]):
        kept, total = 0, 0
        mine = chosen.select(chosen.patient == patient)
        strips = next(r for r in recordings if r.patient == patient)
        for i in range(len(mine)):
            if mine.aha_class[i] in SHOCKABLE:
                total += 1
                kept += bool(i % 2) and advisor.predict(strips.strip(mine.start_s[i], 5.0)).shock
        correct.append(kept)
        totals.append(total)
    rate = point.sensitivity
    assert (rate.count, rate.windows, rate.patients) == (sum(correct), sum(totals), len(totals))
    assert rate.patient_limit == bootstrap_limit(np.array(correct), np.array(totals))


def test_nothing_done_changes_nothing(advisor: Advisor) -> None:
    """Gain 1, inversion twice, 0 % missing, the own rate, no hum and a wide range are the baseline exactly."""
    gapped, scaled, compressed = (
        named(name)[0].disturb for name in ("missing samples", "amplitude", "chest compressions (model)")
    )
    resampled = next(s for s in named("sampling rate") if s.value == FS)
    inverted = named("polarity")[0].disturb
    twice = Stress("twice", "", 1.0, lambda x, fs, rng: inverted(*inverted(x, fs, rng), rng))
    same = [Stress("s", "", 1.0, _at(d, v)) for d, v in ((gapped, 0.0), (scaled, 1.0), (compressed, 0.0))]
    wide = Stress("clipping", "", 1e3, _at(named("clipping")[0].disturb, 1e3))
    baseline, *others = run(advisor, (*same, resampled, twice, wide))
    assert {figures(point) for point in others} == {figures(baseline)}
    strips = synthetic()[0][0].signal[None, :1250, 0].astype(float)
    for stress in (*same, resampled, twice, wide):
        found, fs = stress.disturb(strips, FS, np.random.default_rng(0))
        np.testing.assert_array_equal(found, strips)
        assert fs == FS


def _at(disturb: Any, value: float) -> Any:
    """Return a standard stress with another level."""
    return lambda strips, fs, rng: disturb.func(value, strips, fs, rng)


def test_unusable_strips_are_advised_no_shock(advisor: Advisor) -> None:
    """Flat strips are all refused: wrong for every shockable window, right for every other."""
    baseline, flat = run(advisor, (of("flat", np.zeros_like),))
    assert flat.sensitivity.observed == 0.0
    assert flat.specificity.observed == 1.0
    assert flat.unusable == flat.sensitivity.windows + flat.specificity.windows
    assert flat.sensitivity.windows == baseline.sensitivity.windows > 0


def test_too_many_missing_samples_are_refused(advisor: Advisor) -> None:
    """20 % is over the limit of the rule for unusable strips, 10 % is at it."""
    _, *points = run(advisor, named("missing samples"))
    total = points[0].sensitivity.windows + points[0].specificity.windows
    assert [point.level for point in points] == ["5%", "10%", "20%"]
    assert points[2].unusable == total
    assert points[1].unusable < total / 2


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
@pytest.mark.parametrize(("n", "fs"), [(1250, 250.0), (1800, 360.0), (721, 360.0)])
def test_gaps_hold_the_share(rng: np.random.Generator, share: float, n: int, fs: float) -> None:
    """Each strip misses exactly the given proportion, in at most three gaps; other samples are unchanged."""
    stress = next(s for s in named("missing samples") if s.value == share)
    strips = rng.standard_normal((50, n))
    found, _ = stress.disturb(strips, fs, rng)
    gone = np.isnan(found)
    assert set(gone.sum(axis=1)) == {round(share * n)}
    runs = (np.diff(gone.astype(int), axis=1, prepend=0) == 1).sum(axis=1)
    assert set(runs) <= {1, 2, 3}
    assert runs.max() == 3
    np.testing.assert_array_equal(found[~gone], strips[~gone])
    assert len({tuple(row) for row in gone}) > 40


def test_clipping_is_around_the_offset(rng: np.random.Generator) -> None:
    """An offset of the electrodes does not matter, and NaN stays."""
    stress = next(s for s in named("clipping") if s.value == 0.5)
    strips = rng.standard_normal((3, 1251))
    strips[1, 7] = np.nan
    found, _ = stress.disturb(strips, FS, rng)
    shifted, _ = stress.disturb(strips + 100, FS, rng)
    np.testing.assert_allclose(shifted - 100, found, atol=1e-9)
    assert np.ptp(found[[0, 2]], axis=1) == pytest.approx(1.0)
    assert np.isnan(found[1, 7])
    assert np.isnan(found).sum() == 1


def test_same_seed_same_points(advisor: Advisor) -> None:
    """Results do not depend on the order or on other stresses; another seed draws other windows."""
    kinds = named("chest compressions (model)", "missing samples", "mains hum, 50 Hz")
    first = run(advisor, kinds, seed=5)
    again = run(advisor, kinds[::-1], seed=5)
    assert again == (first[0], *first[:0:-1])
    assert run(advisor, kinds[2:3], seed=5)[1] == first[3]
    states: list[int] = []
    seen = Stress("seen", "", 0.0, lambda x, fs, rng: (states.append(int(rng.integers(2**62))) or x, fs))
    for seed in (5, 5, 6):
        run(advisor, (seen,), seed=seed)
    first_run, second_run, other = np.split(np.array(states[: len(states) // 3 * 3]), 3)
    np.testing.assert_array_equal(first_run, second_run)
    assert not set(first_run) & set(other)
    assert len(set(first_run)) == len(first_run)


def test_levels_differ_in_degree_alone(advisor: Advisor) -> None:
    """Twice the amplitude is twice the same artefact."""
    one, two = (s for s in named("chest compressions (model)") if s.value in (1.0, 2.0))
    caught: dict[float, list[np.ndarray]] = {1.0: [], 2.0: []}

    def catching(stress: Stress) -> Stress:
        def disturb(strips: np.ndarray, fs: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
            found, rate = stress.disturb(strips, fs, rng)
            caught[stress.value].append(found - strips)
            return found, rate

        return replace(stress, disturb=disturb)

    run(advisor, (catching(one), catching(two)))
    assert len(caught[1.0]) == 8
    for small, large in zip(caught[1.0], caught[2.0], strict=True):
        np.testing.assert_allclose(large, 2 * small, atol=1e-9)


def test_draw_is_of_patients_and_classes() -> None:
    """Windows of each group are limited, in order and by the seed, without intermediate classes."""
    _, windows = synthetic()
    groups = [(p, c) for p, c in zip(windows.patient, windows.aha_class, strict=True) if c not in INTERMEDIATE]
    expected = {group: min(2, groups.count(group)) for group in set(groups)}
    chosen = draw_clear_windows(windows, 2, 7)
    found = list(zip(chosen.patient, chosen.aha_class, strict=True))
    assert {group: found.count(group) for group in set(found)} == expected
    np.testing.assert_array_equal(chosen.start_s, draw_clear_windows(windows, 2, 7).start_s)
    assert not np.array_equal(chosen.start_s, draw_clear_windows(windows, 2, 8).start_s)
    position = {(r, s): i for i, (r, s) in enumerate(zip(windows.record, windows.start_s, strict=True))}
    order = [position[key] for key in zip(chosen.record, chosen.start_s, strict=True)]
    assert order == sorted(order)
    assert len(draw_clear_windows(windows, 10**6, 7)) == len(groups)
    with pytest.raises(ValueError, match="max_per_group is 0; allowed are 1 or more"):
        draw_clear_windows(windows, 0, 7)


def test_what_is_missing_is_named(advisor: Advisor) -> None:
    """No windows, a missing recording, a missing lead and a short recording have different errors."""
    recordings, windows = synthetic()
    with pytest.raises(ValueError, match="no windows"):
        stress_test(advisor, recordings, windows.select(np.zeros(len(windows), dtype=bool)), ())
    with pytest.raises(ValueError, match=rf"windows belong to recordings .* synthetic/{recordings[3].name}"):
        stress_test(advisor, recordings[:3] + recordings[4:], windows, (), at_most=1)
    other_lead = replace(recordings[0], leads=("?",))
    with pytest.raises(ValueError, match="lacks some windows"):
        stress_test(advisor, (other_lead,), windows, ())
    short = replace(recordings[0], signal=recordings[0].signal[:1300], episodes=())
    with pytest.raises(ValueError, match="lacks some windows"):
        stress_test(advisor, (short,), windows, ())


def test_leads_are_classified_separately(advisor: Advisor) -> None:
    """A window of the second lead is cut from the second column, here a flat one."""
    recordings, windows = synthetic()
    name = recordings[0].leads[0]
    column = recordings[0].signal[:, :1]
    two = replace(recordings[0], signal=np.hstack([column, 0 * column]), leads=(name, "flat"))
    mine = windows.select(windows.record == two.name)
    both = concatenate([mine, replace(mine, lead=np.full(len(mine), "flat"))])
    (alone,), (point,) = (stress_test(advisor, (two,), w, ()) for w in (mine, both))
    assert point.unusable == alone.unusable + alone.sensitivity.windows + alone.specificity.windows
    assert point.sensitivity.count == alone.sensitivity.count


def test_recordings_without_a_window_change_nothing(advisor: Advisor) -> None:
    """Neither does a recording that is given twice."""
    recordings, windows = synthetic()
    stranger = Recording(np.zeros((1250, 1)), FS, ("I",), "stranger", episodes=(Episode(0, 5, "vf"),))
    expected = stress_test(advisor, recordings, windows, (), at_most=1)
    assert stress_test(advisor, (stranger, *recordings, recordings[0]), windows, (), at_most=1) == expected


@pytest.mark.recordings
def test_real_recordings_from_end_to_end(advisor: Advisor, recordings_dir: Path) -> None:
    """All stresses on two records: little muscle noise changes little, and much of it is refused."""
    recordings, windows = [], []
    for database, record in (("vfdb", "418"), ("mitdb", "219")):
        manifest = load_manifest(database)
        recordings.append(read_labelled(record, manifest, recordings_dir / database))
        windows.append(cut_windows(recordings[-1], 5.0, guard_s=manifest.guard_s))
    stresses = standard_stresses(recordings_dir)
    points = stress_test(advisor, recordings, concatenate(windows), stresses, at_most=8)
    assert [(p.stress, p.level) for p in points[1:]] == [(s.stress, s.level) for s in stresses]
    assert len({(p.sensitivity.windows, p.specificity.windows) for p in points}) == 1
    by_name = {(p.stress, p.level): p for p in points}
    baseline, mild = points[0], by_name["muscle noise", "24 dB"]
    assert baseline.sensitivity.windows >= 8
    assert baseline.sensitivity.count + baseline.specificity.count >= 20
    assert abs(mild.sensitivity.count - baseline.sensitivity.count) <= 1
    assert abs(mild.specificity.count - baseline.specificity.count) <= 1
    assert by_name["missing samples", "20%"].sensitivity.count == 0
    assert by_name["muscle noise", "-6 dB"].unusable > by_name["muscle noise", "24 dB"].unusable
