"""Choose the seconds of recordings that a human expert should read again, with a committee of networks.

This is adaptive sampling as in PyRAI2MD [1]_: networks that were trained on the same task, but from other seeds or on
other patients, slide over the recordings. Where they disagree with each other or with the label, or are close to their
threshold, the label or the networks may be wrong.

References
----------
.. [1] Li et al., Chemical Science 12:5302-5314, 2021, doi:10.1039/D0SC05610C
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import find_peaks

from ecg_shock.data.corrections import NOISE, Reading
from ecg_shock.data.recordings import Recording
from ecg_shock.data.windows import LabelPolicy, WindowLabel, label_windows
from ecg_shock.evaluation.committee import Committee
from ecg_shock.inference.streaming import DEFAULT_STEP_S
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE

CONTEXT_S = 10.0  # shown before and after each window
MAX_STD = 0.5  # of numbers from 0 to 1
ASYSTOLE = "asystole"  # the rhythm and the AHA class


@dataclass(frozen=True)
class QueueRule:
    """Which windows are put in the queue.

    Parameters
    ----------
    min_score : float
        A window must have at least this score, above 0.
    gap_s : float
        Smallest time in seconds between the starts of two windows of a recording.
    max_per_patient : int
        Largest number of windows of a patient.
    """

    min_score: float = 0.5
    gap_s: float = 30.0
    max_per_patient: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.min_score < math.inf:
            raise ValueError(f"min_score is {self.min_score!r}; give a score above 0.")
        if not 0 <= self.gap_s < math.inf:
            raise ValueError(f"gap_s is {self.gap_s!r}; give a number of seconds, 0 or more.")
        if self.max_per_patient < 1:
            raise ValueError(f"max_per_patient is {self.max_per_patient!r}; give 1 or more.")


@dataclass(frozen=True, eq=False)
class Scores:
    """The opinion of a committee on windows, and the scores that follow from it.

    Each number is from 0 to 1, except that `score` may be a little above 1. All arrays have the shape (n_windows,).

    Parameters
    ----------
    score : numpy.ndarray
        With a label, `contradiction` + (`disagreement` + `closeness`) / 2; without, `disagreement` + `closeness`. So it
        is 1 if all members contradict the label, if half of them do, and if all are at their threshold. It is 0 for all
        windows if the members never differ: one network says nothing about its own errors.
    disagreement : numpy.ndarray
        Standard deviation of the members' opinions, as a proportion of the largest possible one.
    contradiction : numpy.ndarray
        Difference between the mean opinion and the label, 1 for shockable and 0 for nonshockable; 0 without a label.
    closeness : numpy.ndarray
        Mean closeness of the members' opinions to their threshold: 1 at the threshold, 0 at an opinion of 0 or 1.
    """

    score: np.ndarray
    disagreement: np.ndarray
    contradiction: np.ndarray
    closeness: np.ndarray


@dataclass(frozen=True, eq=False)
class QueueEntry:
    """A window that an expert should read.

    Parameters
    ----------
    record, patient : str
        The record as ``"database/record"``, and its patient.
    start_s, end_s : float
        The window, in seconds from the start of the recording.
    label : WindowLabel
        What the database says, by the default label policy.
    context : Recording
        The ECG as recorded, all leads, from `CONTEXT_S` before the window to `CONTEXT_S` after it.
    context_start_s : float
        Start of `context`, in seconds from the start of the recording.
    opinions : tuple of float
        The opinion of each member: its probability of *shockable*, with the logit moved so that its threshold is 0.5.
    seen : bool
        True if members that were trained or selected on the patient were asked, because there were too few others.
    score, disagreement, contradiction, closeness : float
        See `Scores`.
    """

    record: str
    patient: str
    start_s: float
    end_s: float
    label: WindowLabel
    context: Recording
    context_start_s: float
    opinions: tuple[float, ...]
    seen: bool
    score: float
    disagreement: float
    contradiction: float
    closeness: float


def score_windows(opinions: np.ndarray, shockable: np.ndarray) -> Scores:
    """Score windows by the opinions of a committee.

    Parameters
    ----------
    opinions : numpy.ndarray
        Shape (n_members, n_windows), 0 to 1, where 0.5 is each member's threshold; NaN for an unusable window.
    shockable : numpy.ndarray
        Shape (n_windows,): 1 for a shockable label, 0 for a nonshockable one, NaN for none.

    Returns
    -------
    Scores
        The scores; NaN for an unusable window.

    Examples
    --------
    >>> opinions = np.array([[0.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 0.5]])
    >>> score_windows(opinions, np.array([1.0, 1.0, 0.0])).score.tolist()
    [1.0, 1.0, 1.0]
    """
    mean = opinions.mean(axis=0)
    disagreement = opinions.std(axis=0) / MAX_STD
    closeness = (1 - np.abs(2 * opinions - 1)).mean(axis=0)
    labelled = np.isfinite(shockable)
    contradiction = np.where(labelled, np.abs(mean - np.where(labelled, shockable, 0.0)), 0.0)
    uncertainty = disagreement + closeness
    score = np.where(labelled, contradiction + uncertainty / 2, uncertainty)
    if not (np.ptp(opinions, axis=0) > 0).any():
        score = np.where(np.isnan(mean), np.nan, 0.0)
    return Scores(score, disagreement, np.where(np.isnan(mean), np.nan, contradiction), closeness)


def find_maxima(score: np.ndarray, min_score: float) -> np.ndarray:
    """Return the indices of the local maxima of at least `min_score`; of a plateau, the middle.

    `score` has the shape (n_windows,), in order of time; NaN interrupts it.
    """
    padded = np.concatenate([[-np.inf], np.where(np.isnan(score), -np.inf, score), [-np.inf]])
    return find_peaks(padded, height=min_score)[0] - 1


def pick_windows(score: np.ndarray, start_s: np.ndarray, rule: QueueRule) -> list[int]:
    """Choose windows of one recording: local maxima, the highest first, with the gap and the cap of the rule.

    Parameters
    ----------
    score, start_s : numpy.ndarray
        Shape (n_windows,): score and start of each window, in order of time.
    rule : QueueRule
        The rule.

    Returns
    -------
    list of int
        Indices of the windows, at most `rule.max_per_patient`; of equal scores, the earlier one first.
    """
    maxima = find_maxima(score, rule.min_score)
    kept: list[int] = []
    for index in maxima[np.argsort(-score[maxima], kind="stable")].tolist():
        if len(kept) == rule.max_per_patient:
            break
        if all(abs(start_s[index] - start_s[other]) >= rule.gap_s for other in kept):
            kept.append(index)
    return kept


def build_queue(
    recordings: Iterable[Recording],
    committee: Committee,
    rule: QueueRule | None = None,
    *,
    guard_s: Mapping[str, float] | None = None,
    step_s: float = DEFAULT_STEP_S,
    readings: Iterable[Reading] = (),
    on_recording: Callable[[], object] | None = None,
) -> tuple[QueueEntry, ...]:
    """Choose the windows that an expert should read.

    Windows of the first lead are scored if they have one annotated rhythm over their whole length, other than noise,
    and are at least the guard away from any change of rhythm. Windows that the label policy excludes are included.

    Parameters
    ----------
    recordings : iterable of Recording
        Recordings with their labels. Those shorter than a window are skipped.
    committee : Committee
        The networks.
    rule : QueueRule, optional
        Which windows are chosen.
    guard_s : mapping of str to float, optional
        The guard of the labels in seconds, by database; 0 if not given.
    step_s : float
        Step from one window to the next in seconds.
    readings : iterable of Reading
        Segments that were read before. Windows that overlap with them are not chosen again.
    on_recording : callable, optional
        Called without arguments after each recording.

    Returns
    -------
    tuple of QueueEntry
        The highest score first.
    """
    rule = rule or QueueRule()
    by_patient: dict[str, list[QueueEntry]] = defaultdict(list)
    read = tuple(readings)
    for recording in recordings:
        if recording.duration_s >= committee.window_s:
            guard = (guard_s or {}).get(recording.database, 0.0)
            by_patient[recording.patient] += _entries_of(recording, committee, rule, guard, step_s, read)
        if on_recording:
            on_recording()

    def order(entry: QueueEntry) -> tuple[float, str, float]:
        return -entry.score, entry.record, entry.start_s

    capped = [entry for found in by_patient.values() for entry in sorted(found, key=order)[: rule.max_per_patient]]
    return tuple(sorted(capped, key=order))


def _entries_of(
    recording: Recording,
    committee: Committee,
    rule: QueueRule,
    guard_s: float,
    step_s: float,
    readings: Sequence[Reading],
) -> list[QueueEntry]:
    """Score the windows of a recording, and return those that the rule chooses."""
    record = f"{recording.database}/{recording.name}"
    start_s, opinions, seen = committee.slide(recording, step_s)
    window_s = committee.window_s
    labels = label_windows(recording, start_s.tolist(), window_s, guard_s=guard_s, policy=LabelPolicy())
    readable = np.array([label is not None and label.rhythm != NOISE for label in labels])
    for reading in (one for one in readings if one.record == record):
        readable &= (start_s >= reading.end_s) | (start_s + window_s <= reading.start_s)
    scores = score_windows(np.where(readable, opinions, np.nan), np.array([_truth(label) for label in labels]))
    entries = []
    for index in pick_windows(scores.score, start_s, rule):
        label = labels[index]
        if label is None:  # has no score
            continue
        start = float(start_s[index])
        first = max(0, round((start - CONTEXT_S) * recording.fs))
        last = round((start + window_s + CONTEXT_S) * recording.fs)
        signal = recording.signal[first:last].copy()
        entries.append(
            QueueEntry(
                record=record,
                patient=recording.patient,
                start_s=start,
                end_s=start + window_s,
                label=label,
                context=replace(recording, signal=signal, episodes=(), beats_s=np.empty(0), beat_codes=()),
                context_start_s=first / recording.fs,
                opinions=tuple(opinions[:, index].tolist()),
                seen=seen,
                score=float(scores.score[index]),
                disagreement=float(scores.disagreement[index]),
                contradiction=float(scores.contradiction[index]),
                closeness=float(scores.closeness[index]),
            )
        )
    return entries


def _truth(label: WindowLabel | None) -> float:
    """Return 1 for a shockable label, 0 for a nonshockable one, and NaN for any other or none.

    Annotated asystole is nonshockable, even if its amplitude is so large that the label policy excludes it.
    """
    name = "" if label is None else label.aha_class or (label.rhythm if label.rhythm == ASYSTOLE else "")
    return float(name in SHOCKABLE) if name in (*SHOCKABLE, *NONSHOCKABLE) else math.nan
