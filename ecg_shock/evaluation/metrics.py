"""From predictions to the figures that a shock-advisory algorithm is evaluated by.

The goals are those of the AHA [1]_ for each class of rhythm; the counts TP, FN, TN and FP, and the positive
predictive value, are what IEC 60601-2-4 asks a maker to state. Windows of an intermediate class (fine VF, other VT)
are reported and never counted: there is no right advice for them.

References
----------
.. [1] Kerber et al., Circulation 95:1677-1682, 1997, doi:10.1161/01.CIR.95.6.1677
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecg_shock.data.synthetic import DATABASE as SYNTHETIC
from ecg_shock.evaluation.confidence import (
    ALPHA,
    RESAMPLES,
    BalancedAccuracy,
    Proportion,
    balanced_accuracy_of,
    lower_limit,
    proportion_of,
    upper_limit,
)
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.rhythms import AHA_CLASSES, INTERMEDIATE, NONSHOCKABLE, SHOCKABLE

if TYPE_CHECKING:
    import pandas as pd

GROUPS = {"shockable": SHOCKABLE, "nonshockable": NONSHOCKABLE, "intermediate": INTERMEDIATE}
MEASURES = {"shockable": "Se", "nonshockable": "Sp", "intermediate": "shock advised"}

MEETS = "meets"
DOES_NOT_MEET = "does not meet"
TOO_FEW_WINDOWS = "too few windows"
REPORT_ONLY = "report only"

MAX_PATIENTS_NAMED = 10  # for their errors, in a report

# Other limits between the classes. Makers state rates from 140 bpm on; the AHA's 0.2 mV leaves open how it is measured.
RAPID_VT_BPM = (140.0, 150.0, 160.0, 180.0, 200.0)
COARSE_VF_MV = (0.1, 0.15, 0.2, 0.25, 0.3)

_ROUNDING_S = 1e-3  # starts that were written with milliseconds make no overlap


@dataclass(frozen=True)
class AhaGoal:
    """What the AHA asks of one class.

    Parameters
    ----------
    observed, limit : float or None
        Se or Sp must be above the one, and its 90 % one-sided lower limit must reach the other; None for a class that
        is reported only.
    min_windows : int
        With fewer windows there is no verdict.
    """

    observed: float | None
    limit: float | None
    min_windows: int


AHA_GOALS = {  # Kerber et al. 1997
    "coarse_vf": AhaGoal(0.90, 0.87, 200),
    "rapid_vt": AhaGoal(0.75, 0.67, 50),
    "normal_sinus": AhaGoal(0.99, 0.97, 100),
    "other_nonshockable": AhaGoal(0.95, 0.88, 30),
    "asystole": AhaGoal(0.95, 0.92, 100),
    "fine_vf": AhaGoal(None, None, 25),
    "other_vt": AhaGoal(None, None, 25),
}


@dataclass(frozen=True)
class AhaRow:
    """One class of rhythm against its goal.

    Parameters
    ----------
    aha_class : str
        One of `ecg_shock.rhythms.AHA_CLASSES`.
    measure : {"Se", "Sp", "shock advised"}
        What `rate` is the proportion of.
    goal : AhaGoal
        What the AHA asks.
    rate : Proportion
        What was found.
    verdict : {"meets", "does not meet", "too few windows", "report only"}
        ``"meets"`` takes the observed proportion above its goal, its 90 % one-sided Clopper-Pearson limit at its own,
        whatever `alpha` other limits have, and enough windows that lie apart: of those that overlap, on whichever leads
        of a record, one counts.
    """

    aha_class: str
    measure: str
    goal: AhaGoal
    rate: Proportion
    verdict: str


@dataclass(frozen=True)
class LabelRow:
    """A class as it would be evaluated with another limit to its neighbour.

    Parameters
    ----------
    measured : {"rate_bpm", "amplitude_mv"}
        What separates the classes: the rate of VT, in beats per minute, or the peak-to-peak amplitude of VF, in mV.
    limit : float
        VT from this rate on is rapid; VF above this amplitude is coarse.
    row : AhaRow
        The class and its goal, on the windows that are then its own.
    """

    measured: str
    limit: float
    row: AhaRow


@dataclass(frozen=True)
class GroupRow:
    """The windows of one database, one rhythm or one patient, in one group.

    Parameters
    ----------
    name : str
        The database, rhythm or patient.
    group : {"shockable", "nonshockable", "intermediate"}
        What the windows call for.
    windows, patients, count : int
        As in `Proportion`.
    """

    name: str
    group: str
    windows: int
    patients: int
    count: int


@dataclass(frozen=True)
class Performance:
    """What an algorithm does on windows of one duration.

    Parameters
    ----------
    duration_s : float
        Length of every window in seconds.
    windows, patients : int
        All of them, intermediate ones too.
    aha : tuple of AhaRow
        The seven classes, in the order of `ecg_shock.rhythms.AHA_CLASSES`.
    sensitivity, specificity : Proportion
        Pooled over the shockable and over the nonshockable classes.
    balanced_accuracy : BalancedAccuracy
        The mean of both.
    tp, fn, tn, fp : int
        Shockable windows advised shock and not, nonshockable ones not advised and advised.
    ppv : float or None
        ``tp / (tp + fp)``, which depends on how many shockable windows there are.
    false_positive_rate, false_positive_rate_upper_limit : float or None
        ``fp / (fp + tn)``, and its upper Clopper-Pearson limit.
    by_database, by_rhythm : tuple of GroupRow
        Every window once in each.
    most_errors : tuple of GroupRow
        The patients with the most wrong advice, at most `MAX_PATIENTS_NAMED` rows, worst first.
    by_label : tuple of LabelRow
        Rapid VT from each of `RAPID_VT_BPM` on and coarse VF above each of `COARSE_VF_MV`: where the verdict changes
        with the limit, it depends on the labels. None for a rhythm of which a window was not measured.
    overlapping : int
        Windows that begin before the one before them has ended, on whichever lead of the record.
    """

    duration_s: float
    windows: int
    patients: int
    aha: tuple[AhaRow, ...]
    sensitivity: Proportion
    specificity: Proportion
    balanced_accuracy: BalancedAccuracy
    tp: int
    fn: int
    tn: int
    fp: int
    ppv: float | None
    false_positive_rate: float | None
    false_positive_rate_upper_limit: float | None
    by_database: tuple[GroupRow, ...]
    by_rhythm: tuple[GroupRow, ...]
    most_errors: tuple[GroupRow, ...]
    by_label: tuple[LabelRow, ...] = ()
    overlapping: int = 0


@dataclass(frozen=True)
class Model:
    """What was evaluated: a model as its bundle describes it.

    Parameters
    ----------
    name, commit, selection : str
        What its card says: its name, which code trained it and how it was chosen; the last two may be empty.
    folder : str
        Name of the bundle's folder, without what lies above it.
    split, fold : str, int
        Whose test patients it was never shown.
    sha256 : str
        Digest of the LiteRT file, which gave the predictions.
    parameters : int
        Number of its weights.
    threshold : float
        Probability of *shockable* from which on it advises a shock.
    """

    name: str
    folder: str
    split: str
    fold: int
    sha256: str
    commit: str
    parameters: int
    threshold: float
    selection: str


@dataclass(frozen=True)
class Validation:
    """The performance at every duration, and how its limits were found.

    Parameters
    ----------
    models : tuple of Model
        What gave the predictions; empty for those of others.
    performances : tuple of Performance
        One for each duration, the shortest first.
    synthetic : bool
        Some windows are synthetic: the figures say nothing of real ECG.
    alpha : float
        Error probability of all limits, one-sided.
    resamples, seed : int
        Of the patient bootstrap.
    source : str
        Where the predictions came from, if not from our models; may be empty.
    """

    models: tuple[Model, ...]
    performances: tuple[Performance, ...]
    synthetic: bool
    alpha: float
    resamples: int
    seed: int
    source: str = ""


def evaluate(
    predictions: Predictions,
    *,
    models: tuple[Model, ...] = (),
    source: str = "",
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Validation:
    """Evaluate an algorithm by its predictions, each duration by itself.

    Parameters
    ----------
    predictions : Predictions
        Test predictions, pooled over folds, of one or several durations.
    models, source : tuple of Model, str
        Our own models that gave them, or where the predictions of others came from, in words.
    alpha, resamples, seed : float, int, int
        See `Validation`.

    Raises
    ------
    ValueError
        If there are no predictions, or the bootstrap's parameters are not allowed.
    """
    if not len(predictions):
        raise ValueError("there are no predictions; give at least one window")
    return Validation(
        models=models,
        performances=tuple(
            _measure(predictions.select(predictions.duration_s == duration), alpha, resamples, seed)
            for duration in np.unique(predictions.duration_s)
        ),
        synthetic=bool((predictions.database == SYNTHETIC).any()),
        alpha=alpha,
        resamples=resamples,
        seed=seed,
        source=source,
    )


def _measure(predictions: Predictions, alpha: float, resamples: int, seed: int) -> Performance:
    """Evaluate windows of one duration."""
    import pandas as pd

    table = predictions.to_frame().sort_values(["database", "record", "start_s"], ignore_index=True)
    groups = {aha_class: group for group, classes in GROUPS.items() for aha_class in classes}
    table["group"] = pd.Categorical(table["aha_class"].map(groups).astype(object), categories=list(GROUPS))
    table["count"] = table["shock"] != (table["group"] == "nonshockable")
    duration_s = float(predictions.duration_s[0])
    right, start_s = table["count"].to_numpy(), table["start_s"].to_numpy()
    patient = table["patient"].cat.codes.to_numpy()
    record = table.groupby(["database", "record"], observed=True).ngroup().to_numpy()  # which its leads share

    def proportion(mask: np.ndarray) -> Proportion:
        return proportion_of(patient[mask], right[mask], alpha, resamples, seed)

    def row_of(aha_class: str, mask: np.ndarray) -> AhaRow:
        rate, goal = proportion(mask), AHA_GOALS[aha_class]
        apart = _count_apart(record[mask], start_s[mask], duration_s)
        return AhaRow(aha_class, MEASURES[groups[aha_class]], goal, rate, _verdict(rate, goal, apart))

    shockable, nonshockable = ((table["group"] == group).to_numpy() for group in ("shockable", "nonshockable"))
    sensitivity, specificity = proportion(shockable), proportion(nonshockable)
    tp, tn = sensitivity.count, specificity.count
    fn, fp = sensitivity.windows - tp, specificity.windows - tn
    errors = [row for row in _group_rows(table, "patient") if row.group != "intermediate" and row.count < row.windows]
    errors.sort(key=lambda row: (row.count - row.windows, row.name, row.group != "shockable"))
    return Performance(
        duration_s=duration_s,
        windows=len(table),
        patients=len(table["patient"].cat.categories),
        aha=tuple(row_of(name, (table["aha_class"] == name).to_numpy()) for name in AHA_CLASSES),
        sensitivity=sensitivity,
        specificity=specificity,
        balanced_accuracy=balanced_accuracy_of(patient, right, (shockable, nonshockable), alpha, resamples, seed),
        tp=tp,
        fn=fn,
        tn=tn,
        fp=fp,
        ppv=tp / (tp + fp) if tp + fp else None,
        false_positive_rate=fp / (fp + tn) if fp + tn else None,
        false_positive_rate_upper_limit=upper_limit(fp, fp + tn, alpha) if fp + tn else None,
        by_database=_group_rows(table, "database"),
        by_rhythm=_group_rows(table, "rhythm"),
        most_errors=tuple(errors[:MAX_PATIENTS_NAMED]),
        by_label=tuple(
            LabelRow(measured, limit, row_of(aha_class, mask))
            for aha_class, measured, limit, mask in _other_labels(table)
        ),
        overlapping=int(_overlaps(record, start_s, duration_s).sum()),
    )


def _other_labels(table: pd.DataFrame) -> Iterator[tuple[str, str, float, np.ndarray]]:
    """Give class, measure, limit and windows of rapid VT and coarse VF at other limits, if all were measured."""
    for rhythm, aha_class, measured, limits, within in (
        ("vt", "rapid_vt", "rate_bpm", RAPID_VT_BPM, np.greater_equal),
        ("vf", "coarse_vf", "amplitude_mv", COARSE_VF_MV, np.greater),
    ):
        of_rhythm, values = (table["rhythm"] == rhythm).to_numpy(), table[measured].to_numpy()
        if of_rhythm.any() and not np.isnan(values[of_rhythm]).any():
            for limit in limits:
                yield aha_class, measured, limit, of_rhythm & within(values, limit)


def _group_rows(table: pd.DataFrame, column: str) -> tuple[GroupRow, ...]:
    found = table.groupby([column, "group"], observed=True).agg(
        windows=("count", "size"), patients=("patient", "nunique"), count=("count", "sum")
    )
    return tuple(GroupRow(*row) for row in found.reset_index().itertuples(index=False))


def _verdict(rate: Proportion, goal: AhaGoal, apart: int) -> str:
    if goal.observed is None or goal.limit is None:
        return REPORT_ONLY
    if rate.observed is None or apart < goal.min_windows:
        return TOO_FEW_WINDOWS
    limit = lower_limit(rate.count, rate.windows, ALPHA)  # the goals are of this one
    return MEETS if rate.observed > goal.observed and limit >= goal.limit else DOES_NOT_MEET


def _overlaps(record: np.ndarray, start_s: np.ndarray, duration_s: float) -> np.ndarray:
    """Tell which windows, in order of record and start, begin before the one before them has ended."""
    overlaps = np.zeros(len(record), dtype=bool)
    overlaps[1:] = (record[1:] == record[:-1]) & (start_s[1:] < start_s[:-1] + duration_s - _ROUNDING_S)
    return overlaps


def _count_apart(record: np.ndarray, start_s: np.ndarray, duration_s: float) -> int:
    """Count as many windows, in order of record and start, as lie apart from each other."""
    if not _overlaps(record, start_s, duration_s).any():
        return len(record)
    apart, last, free_from_s = 0, -1, 0.0
    for number, start in zip(record.tolist(), start_s.tolist(), strict=True):
        if number != last or start >= free_from_s:
            apart, last, free_from_s = apart + 1, number, start + duration_s - _ROUNDING_S
    return apart
