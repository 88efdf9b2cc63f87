"""Evaluate predictions: sensitivity, specificity, and verdicts by the AHA goals [1]_.

The counts TP, FN, TN and FP and the positive predictive value are those that IEC 60601-2-4 asks manufacturers to state.
Windows of an intermediate class (fine VF, other VT) have no right advice. They are reported, but not part of
sensitivity and specificity.

References
----------
.. [1] Kerber et al., Circulation 95:1677-1682, 1997, doi:10.1161/01.CIR.95.6.1677
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecg_shock.data.synthetic import DATABASE as SYNTHETIC
from ecg_shock.data.windows import LabelPolicy
from ecg_shock.evaluation.confidence import (
    ALPHA,
    RESAMPLES,
    BalancedAccuracy,
    Proportion,
    compute_balanced_accuracy,
    compute_proportion,
    lower_limit,
    upper_limit,
)
from ecg_shock.evaluation.predictions import SPLIT_RHYTHMS, Predictions
from ecg_shock.evaluation.roc import Calibration, calibration
from ecg_shock.rhythms import AHA_CLASSES, CLASSES, INTERMEDIATE, NONSHOCKABLE, SHOCKABLE

if TYPE_CHECKING:
    import pandas as pd

    from ecg_shock.data.corrections import CorrectedSeconds

GROUPS = {"shockable": SHOCKABLE, "nonshockable": NONSHOCKABLE, "intermediate": INTERMEDIATE}
MEASURES = {"shockable": "Se", "nonshockable": "Sp", "intermediate": "shock advised"}

MEETS = "meets"
DOES_NOT_MEET = "does not meet"
TOO_FEW_WINDOWS = "too few windows"
WITHHELD = "withheld"
REPORT_ONLY = "report only"

EXCLUDED = "excluded"  # instead of the class of a window that a label policy excludes

MAX_PATIENTS_NAMED = 10  # in the list of the patients with the most errors

# Other limits between the classes, for the table that shows how verdicts depend on them
RAPID_VT_BPM = (140.0, 150.0, 160.0, 180.0, 200.0)
COARSE_VF_MV = (0.1, 0.15, 0.2, 0.25, 0.3)

_RHYTHM_OF = {"rate_bpm": "vt", "amplitude_mv": "vf"}  # the rhythm in whose windows each is measured
_START_TOLERANCE_S = 1e-3  # a shorter overlap is a rounding error


@dataclass(frozen=True)
class AhaGoal:
    """The AHA goal for one class.

    Parameters
    ----------
    observed : float or None
        The observed Se or Sp must be above this value, 0 to 1. None for an intermediate class.
    limit : float or None
        The 90 % one-sided lower limit of Se or Sp must be at least this value, 0 to 1. None for an intermediate class.
    min_windows : int
        The smallest number of windows for a verdict.
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
    "slow_vf": AhaGoal(None, None, 25),
}


@dataclass(frozen=True)
class AhaRow:
    """The result and verdict of one AHA class.

    Parameters
    ----------
    aha_class : str
        One of `ecg_shock.rhythms.CLASSES`.
    measure : {"Se", "Sp", "shock advised"}
        The measure that `rate` gives: sensitivity, specificity, or the proportion of windows with a shock advised.
    goal : AhaGoal
        The AHA goal for the class.
    rate : Proportion
        The observed proportion and its limits.
    verdict : {"meets", "does not meet", "too few windows", "withheld", "report only"}
        ``"meets"`` requires all of these:

        - The observed proportion is above its goal.
        - The 90 % one-sided Clopper-Pearson limit is at least its goal. It does not depend on `alpha`.
        - There are enough windows. Of windows of a record that overlap, on the same or another lead, only one counts.

        If there are enough windows, but some overlap, or listed windows have no prediction, the verdict is
        ``"withheld"``: the limit treats windows as independent, and holds only for all of them.
    overlapping : int
        The number of windows of this class that begin before the previous one of the same record ends, on any lead.
    missing : int
        The number of listed windows of this class without a prediction; see `Coverage`.
    no_decision : int
        The number of windows of this class without a decision, which are counted as wrong.
    """

    aha_class: str
    measure: str
    goal: AhaGoal
    rate: Proportion
    verdict: str
    overlapping: int = 0
    missing: int = 0
    no_decision: int = 0


@dataclass(frozen=True)
class LabelRow:
    """The result of rapid VT or coarse VF, if another limit divides the classes.

    Parameters
    ----------
    measured : {"rate_bpm", "amplitude_mv"}
        The measurement that is compared with the limit: the rate of VT in beats per minute, or the peak-to-peak
        amplitude of VF in mV.
    limit : float
        VT at this rate or faster is rapid; VF above this amplitude is coarse.
    row : AhaRow
        The result and verdict of the class with this limit.
    """

    measured: str
    limit: float
    row: AhaRow


@dataclass(frozen=True)
class GroupRow:
    """The results for the windows of one group in one database, rhythm or patient.

    Parameters
    ----------
    name : str
        The database, rhythm or patient.
    group : {"shockable", "nonshockable", "intermediate"}
        The group of the windows.
    windows, patients, count : int
        As in `Proportion`.
    """

    name: str
    group: str
    windows: int
    patients: int
    count: int


@dataclass(frozen=True)
class FoldRow:
    """The results for the test patients of one fold.

    Parameters
    ----------
    fold : int
        The number of the fold.
    sensitivity, specificity, balanced_accuracy : Proportion, Proportion, BalancedAccuracy
        As in `Performance`.
    """

    fold: int
    sensitivity: Proportion
    specificity: Proportion
    balanced_accuracy: BalancedAccuracy


@dataclass(frozen=True)
class Performance:
    """The results of an algorithm on windows of one duration.

    Parameters
    ----------
    duration_s : float
        Length of each window in seconds.
    windows, patients : int
        The numbers of windows and patients, including those of intermediate classes.
    aha : tuple of AhaRow
        The seven classes, in the order of `ecg_shock.rhythms.AHA_CLASSES`.
    sensitivity, specificity : Proportion
        The proportions of all shockable and of all nonshockable windows with the right advice.
    balanced_accuracy : BalancedAccuracy
        The mean of sensitivity and specificity.
    tp, fn, tn, fp : int
        The numbers of shockable windows with and without a shock advised, and of nonshockable windows without and with
        a shock advised.
    ppv : float or None
        The positive predictive value, ``tp / (tp + fp)``. It depends on the proportion of shockable windows.
    false_positive_rate, false_positive_rate_upper_limit : float or None
        The proportion ``fp / (fp + tn)``, and its upper Clopper-Pearson limit.
    by_database, by_rhythm : tuple of GroupRow
        All windows, by database and by rhythm.
    most_errors : tuple of GroupRow
        The patients with the most wrong advice, worst first, at most `MAX_PATIENTS_NAMED` rows.
    by_label : tuple of LabelRow
        The results of rapid VT with each limit of `RAPID_VT_BPM`, and of coarse VF with each limit of `COARSE_VF_MV`.
        They show how far a verdict depends on the limit. There are no rows for VT, or for VF, if any of its windows was
        not measured.
    overlapping : int
        The number of windows that begin before the previous window of the same record ends, on the same or another
        lead.
    by_fold : tuple of FoldRow
        The results of each fold, if there are several.
    calibration : Calibration or None
        How good the probabilities are; None if there are none, or no shockable or nonshockable windows.
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
    by_fold: tuple[FoldRow, ...] = ()
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Model:
    """An evaluated model, as its bundle describes it.

    Parameters
    ----------
    name, commit, selection : str
        The name of the model, the commit of the code that trained it, and how it was selected. The last two may be
        empty.
    folder : str
        Name of the bundle's folder, without its parents.
    split, fold : str, int
        The split and fold; the test patients of this fold were not used to train or select the model.
    sha256 : str
        Digest of the LiteRT file that made the predictions.
    parameters : int
        Number of weights.
    threshold : float
        A shock is advised at this probability of *shockable* or above.
    differences : str
        The settings in which it differs from the model of the first fold; may be empty.
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
    differences: str = ""


@dataclass(frozen=True)
class MissingWindows:
    """Listed windows of one duration and AHA class that have no prediction.

    Parameters
    ----------
    duration_s : float
        Length of each window in seconds.
    aha_class : str
        Their class in the list.
    windows : int
        Their number, at least 1.
    """

    duration_s: float
    aha_class: str
    windows: int


@dataclass(frozen=True)
class Coverage:
    """How predictions cover the list of the windows that should be evaluated.

    Parameters
    ----------
    source : str
        The file of the list, and the beginning of its SHA-256.
    listed, evaluated, unknown : int
        The numbers of test windows in the list, of those that have a prediction, and of predictions of windows that are
        not in the list, which are not evaluated.
    missing : tuple of MissingWindows
        The listed windows without a prediction.
    """

    source: str
    listed: int
    evaluated: int
    unknown: int
    missing: tuple[MissingWindows, ...]


@dataclass(frozen=True)
class SetApart:
    """Windows of one patient that have another class under the default label policy than under that of the model.

    Parameters
    ----------
    duration_s : float
        Length of each window in seconds.
    default_class, aha_class : str
        Their class under the default policy, and under the policy of the model; `EXCLUDED` if they are excluded.
    database, patient : str
        Their database and patient.
    windows, shocks : int
        Their number, at least 1, and the number of those with a shock advised.
    """

    duration_s: float
    default_class: str
    aha_class: str
    database: str
    patient: str
    windows: int
    shocks: int


@dataclass(frozen=True)
class DefaultLabels:
    """The results, under the default label policy, of a model that was trained under another label policy.

    Parameters
    ----------
    policy : LabelPolicy
        The policy of the model.
    performances : tuple of Performance
        The results of the same advice under the default policy, the shortest duration first.
    set_apart : tuple of SetApart
        The windows whose class differs, by duration, class, database and patient.
    corrected : tuple of CorrectedSeconds
        The seconds that the corrections of the policy change, by patient and label.
    """

    policy: LabelPolicy
    performances: tuple[Performance, ...]
    set_apart: tuple[SetApart, ...]
    corrected: tuple[CorrectedSeconds, ...] = ()


@dataclass(frozen=True)
class Validation:
    """The results at every duration, and how their confidence limits were computed.

    Parameters
    ----------
    models : tuple of Model
        The models that made the predictions; empty if they are not ours.
    performances : tuple of Performance
        The results of each duration, the shortest first.
    synthetic : bool
        True if some windows are synthetic. The results then say nothing about real ECG.
    alpha : float
        Error probability of all limits, one-sided.
    resamples, seed : int
        The number of resamples of the patient bootstrap, and its seed.
    source : str
        Description of the file of predictions, if they are not by our models; may be empty.
    coverage : Coverage or None
        How many of the listed windows have a prediction; None if there was no list.
    default_labels : DefaultLabels or None
        The results under the default label policy; None if `performances` are those results.
    """

    models: tuple[Model, ...]
    performances: tuple[Performance, ...]
    synthetic: bool
    alpha: float
    resamples: int
    seed: int
    source: str = ""
    coverage: Coverage | None = None
    default_labels: DefaultLabels | None = None


def evaluate(
    predictions: Predictions,
    *,
    models: tuple[Model, ...] = (),
    source: str = "",
    coverage: Coverage | None = None,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Validation:
    """Evaluate predictions of an algorithm, separately for each duration.

    Parameters
    ----------
    predictions : Predictions
        The predictions of the test windows of all folds, of one or several durations.
    models, source, coverage, alpha, resamples, seed
        See `Validation`.

    Raises
    ------
    ValueError
        If there are no predictions, or if `alpha` or `resamples` is not allowed.
    """
    if not len(predictions):
        raise ValueError("there are no predictions; give the predictions of one or more windows")
    missing = coverage.missing if coverage else ()
    return Validation(
        models=models,
        performances=tuple(
            _evaluate_duration(
                predictions.select(predictions.duration_s == duration),
                {row.aha_class: row.windows for row in missing if row.duration_s == duration},
                alpha,
                resamples,
                seed,
            )
            for duration in np.unique(predictions.duration_s)
        ),
        synthetic=bool((predictions.database == SYNTHETIC).any()),
        alpha=alpha,
        resamples=resamples,
        seed=seed,
        source=source,
        coverage=coverage,
    )


def _evaluate_duration(
    predictions: Predictions, missing: Mapping[str, int], alpha: float, resamples: int, seed: int
) -> Performance:
    """Evaluate windows of one duration; `missing` counts the listed windows without a prediction by class."""
    import pandas as pd

    table = predictions.to_frame().sort_values(["database", "record", "start_s"], ignore_index=True)
    groups = {aha_class: group for group, classes in GROUPS.items() for aha_class in classes}
    table["group"] = pd.Categorical(table["aha_class"].map(groups).astype(object), categories=list(GROUPS))
    table["count"] = table["shock"] != (table["group"] == "nonshockable")
    duration_s = float(predictions.duration_s[0])
    counted, start_s, no_decision = (table[name].to_numpy() for name in ("count", "start_s", "no_decision"))
    patient = table["patient"].cat.codes.to_numpy()
    record = table.groupby(["database", "record"], observed=True).ngroup().to_numpy()  # all leads of a record together

    def proportion(mask: np.ndarray) -> Proportion:
        return compute_proportion(patient[mask], counted[mask], alpha, resamples, seed)

    def evaluate_class(aha_class: str, mask: np.ndarray, of_rhythm: Sequence[str] = ()) -> AhaRow:
        rate, goal = proportion(mask), AHA_GOALS[aha_class]
        overlapping = int(_overlaps(record[mask], start_s[mask], duration_s).sum())
        separate = _count_nonoverlapping(record[mask], start_s[mask], duration_s)
        absent = sum(missing.get(name, 0) for name in of_rhythm or (aha_class,))
        verdict = _verdict(rate, goal, separate, absent)
        undecided = int(no_decision[mask].sum())
        return AhaRow(aha_class, MEASURES[groups[aha_class]], goal, rate, verdict, overlapping, absent, undecided)

    def balanced_accuracy(*groups: np.ndarray) -> BalancedAccuracy:
        return compute_balanced_accuracy(patient, counted, groups, alpha, resamples, seed)

    shockable, nonshockable = ((table["group"] == group).to_numpy() for group in ("shockable", "nonshockable"))
    sensitivity, specificity = proportion(shockable), proportion(nonshockable)
    of_folds = {int(fold): (table["fold"] == fold).to_numpy() for fold in np.unique(table["fold"])}
    tp, tn = sensitivity.count, specificity.count
    fn, fp = sensitivity.windows - tp, specificity.windows - tn
    errors = [row for row in _group_rows(table, "patient") if row.group != "intermediate" and row.count < row.windows]
    errors.sort(key=lambda row: (row.count - row.windows, row.name, row.group != "shockable"))
    return Performance(
        duration_s=duration_s,
        windows=len(table),
        patients=len(table["patient"].cat.categories),
        aha=tuple(
            evaluate_class(name, mask)
            for name in CLASSES
            if (mask := (table["aha_class"] == name).to_numpy()).any() or name in AHA_CLASSES
        ),
        sensitivity=sensitivity,
        specificity=specificity,
        balanced_accuracy=balanced_accuracy(shockable, nonshockable),
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
            LabelRow(measured, limit, evaluate_class(aha_class, mask, SPLIT_RHYTHMS[_RHYTHM_OF[measured]]))
            for aha_class, measured, limit, mask in _relabel(table)
        ),
        overlapping=int(_overlaps(record, start_s, duration_s).sum()),
        by_fold=tuple(
            FoldRow(
                fold,
                proportion(shockable & of_fold),
                proportion(nonshockable & of_fold),
                balanced_accuracy(shockable & of_fold, nonshockable & of_fold),
            )
            for fold, of_fold in of_folds.items()
            if len(of_folds) > 1
        ),
        calibration=calibration(predictions)
        if predictions.has_probability and (shockable | nonshockable).any()
        else None,
    )


def compare_labels(own: Predictions, default: Predictions) -> tuple[SetApart, ...]:
    """Find the windows whose class differs between two label policies, and count the advice given.

    Parameters
    ----------
    own, default : Predictions
        The same advice, for the windows cut under the model's policy (`own`) and under the default policy (`default`).

    Returns
    -------
    tuple of SetApart
        By duration, class, database and patient; classes have the order of `ecg_shock.rhythms.CLASSES`.
    """
    import pandas as pd

    window = ["duration_s", "database", "record", "lead", "start_s", "patient"]
    tables = (
        pd.DataFrame({name: getattr(predictions, name) for name in (*window, "aha_class", "shock")})
        for predictions in (default, own)
    )
    found = pd.merge(*tables, on=window, how="outer", suffixes=("_default", "_own"))
    found["shock"] = found["shock_own"].where(found["shock_own"].notna(), found["shock_default"]).astype(bool)
    by = ["duration_s", "aha_class_default", "aha_class_own", "database", "patient"]
    for name in by[1:3]:
        found[name] = pd.Categorical(found[name].fillna(EXCLUDED), [*CLASSES, EXCLUDED])
    differ = found[found["aha_class_default"].astype(str) != found["aha_class_own"].astype(str)]
    counts = differ.groupby(by, observed=True)["shock"].agg(["size", "sum"]).reset_index()
    return tuple(SetApart(*row) for row in counts.itertuples(index=False))


def _relabel(table: pd.DataFrame) -> Iterator[tuple[str, str, float, np.ndarray]]:
    """Yield the class, the measured column, the limit and the mask of the windows, for each other limit.

    VT, or VF, is skipped if any of its windows was not measured. Slow VF stays an intermediate class at all limits.
    """
    for aha_class, measured, limits, compare in (
        ("rapid_vt", "rate_bpm", RAPID_VT_BPM, np.greater_equal),
        ("coarse_vf", "amplitude_mv", COARSE_VF_MV, np.greater),
    ):
        rhythm = _RHYTHM_OF[measured]
        of_rhythm = ((table["rhythm"] == rhythm) & (table["aha_class"] != "slow_vf")).to_numpy()
        values = table[measured].to_numpy()
        if of_rhythm.any() and not np.isnan(values[of_rhythm]).any():
            for limit in limits:
                yield aha_class, measured, limit, of_rhythm & compare(values, limit)


def _group_rows(table: pd.DataFrame, column: str) -> tuple[GroupRow, ...]:
    found = table.groupby([column, "group"], observed=True).agg(
        windows=("count", "size"), patients=("patient", "nunique"), count=("count", "sum")
    )
    return tuple(GroupRow(*row) for row in found.reset_index().itertuples(index=False))


def _verdict(rate: Proportion, goal: AhaGoal, n_nonoverlapping: int, missing: int) -> str:
    if goal.observed is None or goal.limit is None:
        return REPORT_ONLY
    if n_nonoverlapping + missing < goal.min_windows:
        return TOO_FEW_WINDOWS
    if rate.observed is None or n_nonoverlapping < rate.windows or missing:
        return WITHHELD
    limit = lower_limit(rate.count, rate.windows, ALPHA)  # the AHA goals are for this alpha
    return MEETS if rate.observed > goal.observed and limit >= goal.limit else DOES_NOT_MEET


def _overlaps(record: np.ndarray, start_s: np.ndarray, duration_s: float) -> np.ndarray:
    """Return True for each window that begins before the previous one ends; they must be sorted by record and start."""
    overlaps = np.zeros(len(record), dtype=bool)
    overlaps[1:] = (record[1:] == record[:-1]) & (start_s[1:] < start_s[:-1] + duration_s - _START_TOLERANCE_S)
    return overlaps


def _count_nonoverlapping(record: np.ndarray, start_s: np.ndarray, duration_s: float) -> int:
    """Return the size of the largest set of windows without overlap; windows must be sorted by record and start."""
    if not _overlaps(record, start_s, duration_s).any():
        return len(record)
    count, previous, free_from_s = 0, -1, 0.0
    for number, start in zip(record.tolist(), start_s.tolist(), strict=True):
        if number != previous or start >= free_from_s:
            count, previous, free_from_s = count + 1, number, start + duration_s - _START_TOLERANCE_S
    return count
