"""From predictions to the figures that a shock-advisory algorithm is evaluated by.

The goals are those of the AHA [1]_ for each class of rhythm; the counts TP, FN, TN and FP, and the positive
predictive value, are what IEC 60601-2-4 asks a maker to state. Windows of an intermediate class (fine VF, other VT)
are reported and never counted: there is no right advice for them.

References
----------
.. [1] Kerber et al., Circulation 95:1677-1682, 1997, doi:10.1161/01.CIR.95.6.1677
"""

from __future__ import annotations

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
from ecg_shock.evaluation.predictions import Predictions, codes
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
    observed : float or None
        Se or Sp must be above this, 0 to 1; None for a class that is reported only.
    limit : float or None
        The 90 % one-sided lower limit must reach this.
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
        What `rate` is the share of.
    goal : AhaGoal
        What the AHA asks.
    rate : Proportion
        What was found.
    verdict : {"meets", "does not meet", "too few windows", "report only"}
        ``"meets"`` takes both lines: the observed share above its goal, and its 90 % one-sided Clopper-Pearson limit at
        its own, whatever `alpha` other limits have; and enough windows that lie apart: of those that overlap, on
        whichever leads of a record, one counts.
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
        Rapid VT and coarse VF at other limits, see `sensitivity_to_labels`; none where they were not measured.
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
    name : str
        As on its card.
    folder : str
        Name of the bundle's folder, without what lies above it.
    split, fold : str, int
        Whose test patients it was never shown.
    sha256 : str
        Digest of the LiteRT file, which gave the predictions.
    commit : str
        Of the code that trained it; empty if its card does not say.
    parameters : int
        Number of its weights.
    threshold : float
        Probability of *shockable* from which on it advises a shock.
    selection : str
        How the model was chosen; empty if its card does not say.
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
    """Judge an algorithm by its predictions, each duration by itself.

    Parameters
    ----------
    predictions : Predictions
        Test predictions, pooled over folds, of one or several durations.
    models : tuple of Model
        Our own models that gave them, see `ecg_shock.evaluation.evaluation_set.describe`.
    source : str
        Where the predictions of others came from, in words.
    alpha : float
        Error probability of the limits, one-sided.
    resamples, seed : int
        Of the patient bootstrap, see `ecg_shock.evaluation.confidence.bootstrap_limit`.

    Raises
    ------
    ValueError
        If there are no predictions, or the bootstrap's parameters are not allowed.
    """
    if not len(predictions):
        raise ValueError("there are no predictions; give at least one window")
    durations = np.unique(predictions.duration_s)
    return Validation(
        models=models,
        performances=tuple(
            _measure(predictions.select(predictions.duration_s == duration), alpha, resamples, seed)
            for duration in durations
        ),
        synthetic=bool((predictions.database == SYNTHETIC).any()),
        alpha=alpha,
        resamples=resamples,
        seed=seed,
        source=source,
    )


def sensitivity_to_labels(
    predictions: Predictions, *, alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[LabelRow, ...]:
    """Evaluate rapid VT and coarse VF again with other limits between the classes.

    Where a verdict changes with the limit, it depends on the labels and not on the algorithm alone.

    Parameters
    ----------
    predictions : Predictions
        Of one duration, with the `rate_bpm` of every window of VT or the `amplitude_mv` of every window of VF.
    alpha, resamples, seed
        As for `evaluate`.

    Returns
    -------
    tuple of LabelRow
        Rapid VT from each of `RAPID_VT_BPM` on, then coarse VF above each of `COARSE_VF_MV`. A rhythm of which there
        is no window, or one that was not measured, has no rows.

    Raises
    ------
    ValueError
        If the bootstrap's parameters are not allowed.
    """
    rates, amplitudes = predictions.rate_bpm, predictions.amplitude_mv
    vt = np.isin(predictions.aha_class, ("rapid_vt", "other_vt"))
    vf = np.isin(predictions.aha_class, ("coarse_vf", "fine_vf"))
    labels = []
    if vt.any() and not np.isnan(rates[vt]).any():
        labels += [("rapid_vt", "rate_bpm", limit, vt & (rates >= limit)) for limit in RAPID_VT_BPM]
    if vf.any() and not np.isnan(amplitudes[vf]).any():
        labels += [("coarse_vf", "amplitude_mv", limit, vf & (amplitudes > limit)) for limit in COARSE_VF_MV]
    patients, patient = codes(predictions.patient)
    record = _records(predictions)
    rows = []
    for aha_class, measured, limit, inside in labels:
        counts = np.bincount(patient[inside & predictions.shock], minlength=len(patients))
        windows = np.bincount(patient[inside], minlength=len(patients))
        rate = proportion_of(counts, windows, alpha, resamples, seed)
        apart = _count_apart(record[inside], predictions.start_s[inside], float(predictions.duration_s[0]))
        rows.append(LabelRow(measured, limit, _row(aha_class, rate, apart)))
    return tuple(rows)


def _measure(predictions: Predictions, alpha: float, resamples: int, seed: int) -> Performance:
    """Evaluate windows of one duration."""
    import pandas as pd

    duration_s = float(predictions.duration_s[0])
    table = predictions.to_frame()
    groups = {aha_class: group for group, classes in GROUPS.items() for aha_class in classes}
    table["group"] = pd.Categorical(table["aha_class"].map(groups).astype(object), categories=list(GROUPS))
    table["count"] = predictions.shock != (table["group"] == "nonshockable")
    patient, n_patients = table["patient"].cat.codes.to_numpy(), len(table["patient"].cat.categories)

    def by_patient(mask: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        counts = np.bincount(patient[mask & table["count"]], minlength=n_patients)
        return counts, np.bincount(patient[mask], minlength=n_patients)

    shockable, nonshockable = (by_patient(table["group"] == group) for group in ("shockable", "nonshockable"))
    sensitivity, specificity = (proportion_of(*counts, alpha, resamples, seed) for counts in (shockable, nonshockable))
    tp, tn = sensitivity.count, specificity.count
    fn, fp = sensitivity.windows - tp, specificity.windows - tn
    record = _records(predictions)
    aha = []
    for aha_class in AHA_CLASSES:
        of_class = table["aha_class"] == aha_class
        apart = _count_apart(record[of_class], predictions.start_s[of_class], duration_s)
        aha.append(_row(aha_class, proportion_of(*by_patient(of_class), alpha, resamples, seed), apart))
    errors = [row for row in _group_rows(table, "patient") if row.group != "intermediate" and row.count < row.windows]
    errors.sort(key=lambda row: (row.count - row.windows, row.name, row.group != "shockable"))
    return Performance(
        duration_s=duration_s,
        windows=len(predictions),
        patients=n_patients,
        aha=tuple(aha),
        sensitivity=sensitivity,
        specificity=specificity,
        balanced_accuracy=balanced_accuracy_of(shockable, nonshockable, alpha, resamples, seed),
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
        by_label=sensitivity_to_labels(predictions, alpha=alpha, resamples=resamples, seed=seed),
        overlapping=int(_overlaps(record, predictions.start_s, duration_s)[2].sum()),
    )


def _group_rows(table: pd.DataFrame, column: str) -> tuple[GroupRow, ...]:
    found = table.groupby([column, "group"], observed=True).agg(
        windows=("count", "size"), patients=("patient", "nunique"), count=("count", "sum")
    )
    return tuple(GroupRow(*row) for row in found.reset_index().itertuples(index=False))


def _row(aha_class: str, rate: Proportion, apart: int) -> AhaRow:
    goal = AHA_GOALS[aha_class]
    measure = next(MEASURES[group] for group, classes in GROUPS.items() if aha_class in classes)
    return AhaRow(aha_class, measure, goal, rate, _verdict(rate, goal, apart))


def _verdict(rate: Proportion, goal: AhaGoal, apart: int) -> str:
    if goal.observed is None or goal.limit is None:
        return REPORT_ONLY
    if rate.observed is None or apart < goal.min_windows:
        return TOO_FEW_WINDOWS
    limit = lower_limit(rate.count, rate.windows, ALPHA)  # the goals are of this one
    return MEETS if rate.observed > goal.observed and limit >= goal.limit else DOES_NOT_MEET


def _records(predictions: Predictions) -> np.ndarray:
    """Return the number of each record, shape (n_windows,), int; the leads of a record share it."""
    databases, database = codes(predictions.database)
    return codes(predictions.record)[1] * len(databases) + database


def _overlaps(record: np.ndarray, start_s: np.ndarray, duration_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order windows by record and start, and tell which begin before the one before them has ended."""
    order = np.lexsort((start_s, record))
    record, start_s = record[order], start_s[order]
    overlaps = np.zeros(len(record), dtype=bool)
    overlaps[1:] = (record[1:] == record[:-1]) & (start_s[1:] < start_s[:-1] + duration_s - _ROUNDING_S)
    return record, start_s, overlaps


def _count_apart(record: np.ndarray, start_s: np.ndarray, duration_s: float) -> int:
    """Count as many windows as lie apart from each other."""
    record, start_s, overlaps = _overlaps(record, start_s, duration_s)
    if not overlaps.any():
        return len(record)
    apart, last, free_from_s = 0, -1, 0.0
    for number, start in zip(record.tolist(), start_s.tolist(), strict=True):
        if number != last or start >= free_from_s:
            apart, last, free_from_s = apart + 1, number, start + duration_s - _ROUNDING_S
    return apart
