"""From predictions to the figures a shock-advisory algorithm is judged by.

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

import numpy as np

from ecg_shock.data.synthetic import DATABASE as SYNTHETIC
from ecg_shock.evaluation.confidence import (
    ALPHA,
    RESAMPLES,
    bootstrap_limit,
    cluster_limit,
    design_effect,
    lower_limit,
    upper_limit,
)
from ecg_shock.evaluation.predictions import Predictions, codes, recordings
from ecg_shock.rhythms import AHA_CLASSES, INTERMEDIATE, NONSHOCKABLE, SHOCKABLE

GROUPS = {"shockable": SHOCKABLE, "nonshockable": NONSHOCKABLE, "intermediate": INTERMEDIATE}
MEASURES = {"shockable": "Se", "nonshockable": "Sp", "intermediate": "shock advised"}

MEETS = "meets"
DOES_NOT_MEET = "does not meet"
TOO_FEW_WINDOWS = "too few windows"
REPORT_ONLY = "report only"

MOST_ERRORS = 10  # patients named in a report

# Where else the classes may part. Makers state rates from 140 bpm on; the AHA's 0.2 mV leaves open how it is measured.
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
class Rate:
    """A share of windows, and how sure it is.

    Parameters
    ----------
    windows, patients : int
        What the share rests on.
    count : int
        The windows with the right advice: shock for shockable, no shock for nonshockable ones. Of an intermediate
        class, which has no right advice, the windows advised shock.
    observed : float or None
        ``count / windows``; like the rest None where there are no windows.
    lower_limit : float or None
        Clopper-Pearson, one-sided, as if windows were independent.
    patient_limit : float or None
        From resampling patients, one-sided; None also where a single patient leaves nothing to resample.
    macro_average : float or None
        Mean over patients of each patient's share.
    design_effect : float or None
        How many times the variance is that of independent windows, see `ecg_shock.evaluation.confidence.design_effect`;
        None also for a single patient, and where all windows or none count.
    cluster_limit : float or None
        One-sided, by the effective number of windows, see `ecg_shock.evaluation.confidence.cluster_limit`: what to
        trust where few patients have errors. None also for a single patient with some windows wrong.
    """

    windows: int
    patients: int
    count: int
    observed: float | None
    lower_limit: float | None
    patient_limit: float | None
    macro_average: float | None
    design_effect: float | None = None
    cluster_limit: float | None = None

    @property
    def effective_windows(self) -> float | None:
        """As many independent windows would tell as much, at most those that there are; None without design effect."""
        # With few patients a design effect below 1 is chance: it makes no windows out of nothing.
        return None if self.design_effect is None else self.windows / max(self.design_effect, 1.0)


@dataclass(frozen=True)
class BalancedAccuracy:
    """The mean of sensitivity and specificity.

    Parameters
    ----------
    patients : int
        All with shockable or nonshockable windows.
    observed : float or None
        None where there are no shockable or no nonshockable windows.
    patient_limit : float or None
        As in `Rate`; windows of both groups are resampled together, patient by patient.
    """

    patients: int
    observed: float | None
    patient_limit: float | None


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
    rate : Rate
        What was found.
    verdict : {"meets", "does not meet", "too few windows", "report only"}
        ``"meets"`` takes both lines: the observed share above its goal, and its 90 % one-sided Clopper-Pearson limit at
        its own, whatever `alpha` other limits have; and enough windows that lie apart: of those that overlap, on
        whichever leads of a record, one counts.
    """

    aha_class: str
    measure: str
    goal: AhaGoal
    rate: Rate
    verdict: str


@dataclass(frozen=True)
class LabelRow:
    """A class as it would be judged if it parted from its neighbour elsewhere.

    Parameters
    ----------
    measured : {"rate_bpm", "amplitude_mv"}
        What parts the classes: the rate of VT, in beats per minute, or the peak-to-peak amplitude of VF, in mV.
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
        As in `Rate`.
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
    sensitivity, specificity : Rate
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
        The patients with the most wrong advice, at most `MOST_ERRORS` rows, worst first.
    by_label : tuple of LabelRow
        Rapid VT and coarse VF at other limits, see `sensitivity_to_labels`; none where they were not measured.
    overlapping : int
        Windows that begin before the one before them has ended, on whichever lead of the record.
    """

    duration_s: float
    windows: int
    patients: int
    aha: tuple[AhaRow, ...]
    sensitivity: Rate
    specificity: Rate
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
    """What was judged: a model as its bundle describes it.

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


def judge(
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
    """Judge rapid VT and coarse VF again with other limits between the classes.

    Where a verdict changes with the limit, it hangs on the labels and not on the algorithm alone.

    Parameters
    ----------
    predictions : Predictions
        Of one duration, with the `rate_bpm` of every window of VT or the `amplitude_mv` of every window of VF.
    alpha, resamples, seed
        As for `judge`.

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
    vt, vf = (
        np.isin(predictions.aha_class, classes) for classes in (("rapid_vt", "other_vt"), ("coarse_vf", "fine_vf"))
    )
    rates, amplitudes = predictions.rate_bpm, predictions.amplitude_mv
    members = [("rapid_vt", "rate_bpm", limit, vt, rates >= limit) for limit in RAPID_VT_BPM]
    members += [("coarse_vf", "amplitude_mv", limit, vf, amplitudes > limit) for limit in COARSE_VF_MV]
    patients, patient = codes(predictions.patient)
    rows = []
    for aha_class, measured, limit, candidates, beyond in members:
        if not candidates.any() or np.isnan(getattr(predictions, measured)[candidates]).any():
            continue
        inside = candidates & beyond
        counts = np.bincount(patient[inside & predictions.shock], minlength=len(patients))
        windows = np.bincount(patient[inside], minlength=len(patients))
        rate = rate_of(counts, windows, alpha, resamples, seed)
        rows.append(LabelRow(measured, limit, _row(aha_class, rate, _count_apart(predictions, inside))))
    return tuple(rows)


def _measure(predictions: Predictions, alpha: float, resamples: int, seed: int) -> Performance:
    shock = predictions.shock
    shockable = np.isin(predictions.aha_class, SHOCKABLE)
    nonshockable = np.isin(predictions.aha_class, NONSHOCKABLE)
    counted = np.where(nonshockable, ~shock, shock)
    patients, patient = codes(predictions.patient)

    def by_patient(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = np.bincount(patient[mask & counted], minlength=len(patients))
        return counts, np.bincount(patient[mask], minlength=len(patients))

    def rate(mask: np.ndarray) -> Rate:
        return rate_of(*by_patient(mask), alpha, resamples, seed)

    sensitivity, specificity = rate(shockable), rate(nonshockable)
    tp, tn = sensitivity.count, specificity.count
    fn, fp = sensitivity.windows - tp, specificity.windows - tn
    return Performance(
        duration_s=float(predictions.duration_s[0]),
        windows=len(predictions),
        patients=len(patients),
        aha=tuple(
            _row(aha_class, rate(of_class), _count_apart(predictions, of_class))
            for aha_class in AHA_CLASSES
            for of_class in [predictions.aha_class == aha_class]
        ),
        sensitivity=sensitivity,
        specificity=specificity,
        balanced_accuracy=_balanced_accuracy(by_patient(shockable), by_patient(nonshockable), alpha, resamples, seed),
        tp=tp,
        fn=fn,
        tn=tn,
        fp=fp,
        ppv=tp / (tp + fp) if tp + fp else None,
        false_positive_rate=fp / (fp + tn) if fp + tn else None,
        false_positive_rate_upper_limit=upper_limit(fp, fp + tn, alpha) if fp + tn else None,
        by_database=tuple(_group_rows(predictions, predictions.database, counted)),
        by_rhythm=tuple(_group_rows(predictions, predictions.rhythm, counted)),
        most_errors=_most_errors(
            patients, {"shockable": by_patient(shockable), "nonshockable": by_patient(nonshockable)}
        ),
        by_label=sensitivity_to_labels(predictions, alpha=alpha, resamples=resamples, seed=seed),
        overlapping=_count_overlapping(predictions),
    )


def _row(aha_class: str, rate: Rate, apart: int) -> AhaRow:
    goal = AHA_GOALS[aha_class]
    return AhaRow(aha_class, MEASURES[_group_of(aha_class)], goal, rate, _verdict(rate, goal, apart))


def _in_order(predictions: Predictions, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return records and starts of some windows, ordered by both, and which begin before the one before has ended."""
    record, start_s = recordings(predictions, by_lead=False)[mask], predictions.start_s[mask]
    order = np.lexsort((start_s, record))
    record, start_s = record[order], start_s[order]
    ends_s = start_s[:-1] + predictions.duration_s[0]
    overlaps = (record[1:] == record[:-1]) & (start_s[1:] < ends_s - _ROUNDING_S)
    return record, start_s, np.concatenate([np.zeros(min(1, len(record)), dtype=bool), overlaps])


def _count_overlapping(predictions: Predictions) -> int:
    return int(_in_order(predictions, np.ones(len(predictions), dtype=bool))[2].sum())


def _count_apart(predictions: Predictions, mask: np.ndarray) -> int:
    """Count as many of some windows as lie apart from each other."""
    record, start_s, overlaps = _in_order(predictions, mask)
    if not overlaps.any():
        return len(record)
    apart, last, free_from_s = 0, -1, 0.0
    duration_s = float(predictions.duration_s[0]) - _ROUNDING_S
    for number, start in zip(record.tolist(), start_s.tolist(), strict=True):
        if number != last or start >= free_from_s:
            apart, last, free_from_s = apart + 1, number, start + duration_s
    return apart


def _group_of(aha_class: str) -> str:
    return next(group for group, classes in GROUPS.items() if aha_class in classes)


def rate_of(counts: np.ndarray, windows: np.ndarray, alpha: float, resamples: int, seed: int) -> Rate:
    """Compute a share of windows and its limits.

    Parameters
    ----------
    counts, windows : numpy.ndarray
        Shape (n_patients,), int: windows that count, and all windows, of each patient; none is allowed.
    alpha, resamples, seed : float, int, int
        As for `judge`.
    """
    counts, windows = counts[windows > 0], windows[windows > 0]
    count, total = int(counts.sum()), int(windows.sum())
    if total == 0:
        return Rate(0, 0, 0, None, None, None, None)
    return Rate(
        windows=total,
        patients=len(windows),
        count=count,
        observed=count / total,
        lower_limit=lower_limit(count, total, alpha),
        patient_limit=_or_none(bootstrap_limit(counts, windows, alpha=alpha, resamples=resamples, seed=seed)),
        macro_average=float(np.mean(counts / windows)),
        design_effect=_or_none(design_effect(counts, windows)),
        cluster_limit=_or_none(cluster_limit(counts, windows, alpha=alpha)),
    )


def _balanced_accuracy(
    shockable: tuple[np.ndarray, np.ndarray],
    nonshockable: tuple[np.ndarray, np.ndarray],
    alpha: float,
    resamples: int,
    seed: int,
) -> BalancedAccuracy:
    counts, windows = (np.stack(pair, axis=1) for pair in zip(shockable, nonshockable, strict=True))
    judged = windows.any(axis=1)
    counts, windows = counts[judged], windows[judged]
    if not windows.any(axis=0).all():
        return BalancedAccuracy(len(windows), None, None)
    limit = bootstrap_limit(counts, windows, alpha=alpha, resamples=resamples, seed=seed)
    observed = float(np.mean(counts.sum(axis=0) / windows.sum(axis=0)))
    return BalancedAccuracy(len(windows), observed, _or_none(limit))


def _or_none(limit: float) -> float | None:
    return None if np.isnan(limit) else limit


def _verdict(rate: Rate, goal: AhaGoal, apart: int) -> str:
    if goal.observed is None or goal.limit is None:
        return REPORT_ONLY
    if rate.observed is None or apart < goal.min_windows:
        return TOO_FEW_WINDOWS
    limit = lower_limit(rate.count, rate.windows, ALPHA)  # the goals are of this one
    return MEETS if rate.observed > goal.observed and limit >= goal.limit else DOES_NOT_MEET


def _group_rows(predictions: Predictions, column: np.ndarray, counted: np.ndarray) -> Iterator[GroupRow]:
    names, code = codes(column)
    patient = codes(predictions.patient)[1]
    in_group = {group: np.isin(predictions.aha_class, classes) for group, classes in GROUPS.items()}
    for number, name in enumerate(names):
        here = code == number
        for group, members in in_group.items():
            mask = members & here
            if mask.any():
                yield GroupRow(
                    name=name,
                    group=group,
                    windows=int(mask.sum()),
                    patients=len(np.unique(patient[mask])),
                    count=int(counted[mask].sum()),
                )


def _most_errors(
    patients: list[str], counts_by_group: dict[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[GroupRow, ...]:
    """Name the patients with the most wrong advice; an intermediate class has none."""
    rows = [
        GroupRow(name=patients[i], group=group, windows=int(windows[i]), patients=1, count=int(right[i]))
        for group, (right, windows) in counts_by_group.items()
        for i in np.flatnonzero(right < windows)
    ]
    return tuple(sorted(rows, key=lambda row: (row.count - row.windows, row.name))[:MOST_ERRORS])
