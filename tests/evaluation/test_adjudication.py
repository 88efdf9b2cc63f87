"""The queue follows its definition: score, local maxima, gap, cap, and which networks are asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecg_shock.data.corrections import Reading
from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.evaluation.adjudication import (
    QueueRule,
    build_queue,
    find_maxima,
    pick_windows,
    score_windows,
)
from ecg_shock.evaluation.committee import Committee, find_committee
from ecg_shock.evaluation.evaluation_set import find_bundles
from ecg_shock.models.bundle import Bundle

FOLDS = Path(__file__).parents[2] / "tuning/results/headline/bundles"
SCORES = arrays(float, st.integers(0, 60), elements=st.floats(0, 1.2) | st.just(np.nan))


@pytest.fixture(scope="module")
def committee() -> Committee:
    """Load the networks of all folds."""
    return find_committee([FOLDS])


def recording_of(name: str, patient: str, *episodes: Episode, seconds: float = 120.0, hz: float = 4.0) -> Recording:
    """Make two leads of a sine of 1 mV."""
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * 250)) / 250)
    signal = np.stack([wave, -wave], axis=1)
    return Recording(signal, 250.0, ("II", "V5"), name=name, database="db", patient=patient, episodes=episodes)


@given(opinions=arrays(float, (4, 20), elements=st.floats(0, 1)), seed=st.integers(0, 9))
def test_score_follows_its_definition(opinions: np.ndarray, seed: int) -> None:
    """Each part is computed again window by window; it does not depend on the order of the members."""
    shockable = np.random.default_rng(seed).choice([0.0, 1.0, np.nan], 20)
    scores = score_windows(opinions, shockable)
    for i, label in enumerate(shockable):
        of = opinions[:, i].tolist()
        mean = sum(of) / 4
        disagreement = 2 * (sum((one - mean) ** 2 for one in of) / 4) ** 0.5
        closeness = sum(1 - abs(one - 0.5) / 0.5 for one in of) / 4
        contradiction = 0.0 if np.isnan(label) else abs(mean - label)
        score = disagreement + closeness if np.isnan(label) else contradiction + (disagreement + closeness) / 2
        if all(len(set(column)) == 1 for column in opinions.T.tolist()):
            score = 0.0
        found = (scores.disagreement[i], scores.closeness[i], scores.contradiction[i], scores.score[i])
        np.testing.assert_allclose(found, (disagreement, closeness, contradiction, score), atol=1e-12)
    np.testing.assert_allclose(score_windows(opinions[::-1], shockable).score, scores.score, atol=1e-12)


@given(opinion=arrays(float, 20, elements=st.floats(0, 1)))
def test_equal_networks_choose_nothing(opinion: np.ndarray) -> None:
    """A committee of one network, however often it is asked, has an empty queue, whatever the labels say."""
    scores = score_windows(np.tile(opinion, (5, 1)), np.ones(20))
    assert pick_windows(scores.score, np.arange(20.0), QueueRule(min_score=1e-9)) == []


@given(score=SCORES, low=st.floats(0.01, 1), high=st.floats(0.01, 1))
def test_lower_threshold_gives_a_superset_before_the_gap(score: np.ndarray, low: float, high: float) -> None:
    """All local maxima above a higher threshold are above a lower one; each is at least as high as its neighbours."""
    low, high = sorted((low, high))
    maxima = find_maxima(score, low)
    assert set(find_maxima(score, high)) <= set(maxima)
    for index in maxima:
        assert score[index] >= low
        assert not (score[max(index - 1, 0) : index + 2] > score[index]).any()


@given(score=SCORES, gap=st.integers(0, 20), cap=st.integers(1, 5))
def test_gap_and_cap_hold(score: np.ndarray, gap: int, cap: int) -> None:
    """Chosen windows keep the gap and the cap; no other maximum could be added, and the highest is there."""
    rule = QueueRule(min_score=0.3, gap_s=gap, max_per_patient=cap)
    start_s = 2.0 * np.arange(len(score))
    picked = pick_windows(score, start_s, rule)
    maxima = find_maxima(score, 0.3)
    assert len(picked) <= cap
    assert set(picked) <= set(maxima.tolist())
    assert all(abs(start_s[a] - start_s[b]) >= gap for a in picked for b in picked if a != b)
    if len(maxima):
        assert score[picked[0]] == score[maxima].max()
    if len(picked) < cap:
        left = set(maxima.tolist()) - set(picked)
        assert all(min(abs(start_s[one] - start_s[other]) for other in picked) < gap for one in left)


def test_queue_of_recordings(committee: Committee) -> None:
    """Fast waves that are labelled sinus rhythm are found, with the gap in each record and the cap of each patient."""
    rule = QueueRule(gap_s=20.0, max_per_patient=4)
    wrong = (Episode(0, 120, "normal_sinus", "(N"),)
    recordings = [
        recording_of("a", "db/1", *wrong),
        recording_of("b", "db/1", *wrong),
        recording_of("c", "db/2", Episode(0, 60, "noise"), Episode(60, 120, "normal_sinus")),
        recording_of("d", "db/3", Episode(0, 120, "vf")),
        recording_of("short", "db/4", seconds=3.0),
    ]
    done: list[None] = []
    queue = build_queue(recordings, committee, rule, guard_s={"db": 2.0}, on_recording=lambda: done.append(None))
    assert len(done) == 5
    assert Counter(entry.patient for entry in queue)["db/1"] == 4
    assert {entry.patient for entry in queue} >= {"db/1", "db/2"}
    assert [entry.score for entry in queue] == sorted((entry.score for entry in queue), reverse=True)
    for entry in queue:
        assert entry.score >= 0.5
        assert entry.end_s - entry.start_s == 5.0
        assert not entry.seen
        assert len(entry.opinions) == 5
        assert entry.record != "db/c" or entry.start_s >= 62
        first, last = max(0.0, entry.start_s - 10), min(120.0, entry.end_s + 10)
        assert entry.context_start_s == first
        assert entry.context.duration_s == last - first
        assert entry.context.leads == ("II", "V5")
    by_record: dict[str, list[float]] = {}
    for entry in queue:
        by_record.setdefault(entry.record, []).append(entry.start_s)
    assert all(np.diff(sorted(starts)).min(initial=99) >= 20 for starts in by_record.values())

    read = [Reading(entry.record, entry.start_s, entry.end_s, "normal_sinus", "coarse_vf", "A") for entry in queue]
    again = build_queue(recordings, committee, rule, guard_s={"db": 2.0}, readings=read)
    assert again
    for entry in again:
        assert all(
            entry.record != one.record or entry.end_s <= one.start_s or one.end_s <= entry.start_s for one in read
        )


def test_committee_of_equal_networks_is_empty_or_refused(committee: Committee, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal networks are refused; if they are asked, their queue is empty, although they contradict the label."""
    bundle = committee.bundles[0]
    with pytest.raises(ValueError, match=r"fold-0/bundle and .*fold-0/bundle are the same network"):
        Committee([bundle, bundle])
    with pytest.raises(ValueError, match="the committee has 1 member"):
        find_committee([FOLDS / "fold-0" / "bundle"])
    shorter = replace(committee.bundles[1], spec=replace(committee.bundles[1].spec, input_samples=500))
    with pytest.raises(ValueError, match=r"windows of 4, 5 s; give networks"):
        Committee([bundle, shorter])
    recording = recording_of("a", "db/1", Episode(0, 120, "normal_sinus"))
    assert build_queue([recording], committee)
    members, _ = committee.members_for("db/1")
    monkeypatch.setattr(committee, "members_for", lambda patient: ([members[0]] * 5, False))
    assert build_queue([recording], committee) == ()


def test_networks_that_have_not_seen_the_patient_are_asked(committee: Committee) -> None:
    """For a patient of the folds, four of five have; for another patient, none has; two unseen ones are enough."""
    patient = committee.bundles[2].card.patients.test[0]
    members, seen = committee.members_for(patient)
    assert (len(members), seen) == (5, True)
    members, seen = committee.members_for("elsewhere/1")
    assert (len(members), seen) == (5, False)

    def without(bundle: Bundle) -> Bundle:
        empty = {"train": [], "validation": [], "test": []}
        return replace(bundle, raw_card={**bundle.raw_card, "patients": empty})

    bundles = find_bundles(FOLDS)
    two = Committee([without(bundles[0]), without(bundles[1]), bundles[3], bundles[4]])
    members, seen = two.members_for(patient)
    assert ([one.bundle.card.data.fold for one in members], seen) == ([0, 1], False)


@pytest.mark.parametrize(
    "wrong", [{"min_score": 0.0}, {"min_score": float("nan")}, {"gap_s": -1.0}, {"max_per_patient": 0}]
)
def test_rules_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """The error names the value."""
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))} is .*; give"):
        QueueRule(**wrong)  # type: ignore[arg-type]


@pytest.mark.recordings
def test_known_wrong_label_is_found(committee: Committee, recordings_dir: Path) -> None:
    """The part of vfdb 424 that is labelled asystole, but looks like coarse VF, is in the queue of this record."""
    from ecg_shock.data.datasets import labelled_recordings

    recordings = labelled_recordings("vfdb", recordings_dir, ["424"])
    queue = build_queue(recordings, committee, QueueRule(max_per_patient=100), guard_s={"vfdb": 1.0}, step_s=2.0)
    found = [entry for entry in queue if entry.label.rhythm == "asystole"]
    assert found
    assert all(entry.label.reason == "labelled asystole, but over 0.1 mV" and entry.seen for entry in found)
