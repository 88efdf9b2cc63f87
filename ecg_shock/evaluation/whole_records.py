"""Evaluate alarms on complete records of the test patients.

For each fold, the alarm rule is chosen on the validation patients (see `choose_rule`), and evaluated on the test
patients. For comparison, the default `ecg_shock.AlarmRule` is evaluated too. Its results are too good for fold 1 of
public-v1: it was chosen on the validation patients of fold 0, who are the test patients of fold 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ecg_shock.data.recordings import Recording
from ecg_shock.evaluation.confidence import ALPHA
from ecg_shock.evaluation.evaluation_set import EvaluationSet, Record
from ecg_shock.evaluation.events import (
    HEADLINE_MIN_S,
    TOLERANCE_S,
    EventFigures,
    RecordEvents,
    episode_events,
    event_figures,
)
from ecg_shock.evaluation.reference import reference_segments
from ecg_shock.inference.scanning import scan, with_rule
from ecg_shock.inference.streaming import AlarmRule
from ecg_shock.preprocessing import FS

# Of equally good rules, the first is chosen, which raises an alarm the soonest.
RULES = (AlarmRule(1, 1), AlarmRule(2, 3), AlarmRule(3, 5), AlarmRule(5, 8), AlarmRule(8, 10))
DEFAULT_RULE = AlarmRule()
MAX_LOSS_PERCENT = 1  # percentage points of event sensitivity that are given up for fewer false alarms


@dataclass(frozen=True)
class RuleChoice:
    """The alarm rule that was chosen for a fold, and the results of all rules.

    Parameters
    ----------
    fold : int
        The fold of the model.
    rule : AlarmRule
        The rule for the test patients of this fold.
    decided : bool
        True if the rule was chosen on the validation patients. False if they have no event of `HEADLINE_MIN_S` or more,
        or if their recordings were not found; then `rule` is the default.
    patients, records : int
        The numbers of validation patients and records that were scanned.
    by_rule : tuple of (AlarmRule, EventFigures)
        The results of each of `RULES` on the validation records; empty if no record was scanned.
    """

    fold: int
    rule: AlarmRule
    decided: bool
    patients: int
    records: int
    by_rule: tuple[tuple[AlarmRule, EventFigures], ...]


@dataclass(frozen=True)
class WholeRecords:
    """The results of alarms on complete records, and how they were computed.

    Parameters
    ----------
    choices : tuple of RuleChoice
        The alarm rule of each fold.
    fixed_rule : AlarmRule
        The default rule. Its results are in `by_rule`.
    window_s, step_s : float
        Length of the windows, and the step between them, in seconds.
    figures : EventFigures
        The results of all records, with the rule chosen for each fold.
    by_database, by_patient : tuple of EventFigures
        The same results by database and by patient.
    by_rule : tuple of (AlarmRule, EventFigures)
        The results of all records, with each of `RULES` for all folds.
    records : tuple of RecordEvents
        The results of each record, with the rule chosen for its fold.
    too_short : tuple of str
        Names of records shorter than a window, which are excluded, such as ``"cudb/cu01"``.
    alpha : float
        Error probability of all limits, one-sided.
    part, tolerance_s, headline_least_s : str, float, float
        The subset of the patients (``"test"``), `TOLERANCE_S` and `HEADLINE_MIN_S`.
    """

    choices: tuple[RuleChoice, ...]
    fixed_rule: AlarmRule
    window_s: float
    step_s: float
    figures: EventFigures
    by_database: tuple[EventFigures, ...]
    by_patient: tuple[EventFigures, ...]
    by_rule: tuple[tuple[AlarmRule, EventFigures], ...]
    records: tuple[RecordEvents, ...]
    too_short: tuple[str, ...] = ()
    alpha: float = ALPHA
    part: str = "test"
    tolerance_s: float = TOLERANCE_S
    headline_least_s: float = HEADLINE_MIN_S

    @property
    def fixed(self) -> EventFigures:
        """The results of all records with `fixed_rule`."""
        return dict(self.by_rule)[self.fixed_rule]

    def alarm_s(self, rule: AlarmRule) -> float:
        """Return the shortest time to an alarm in seconds, the time that `rule.k` consecutive windows cover."""
        return self.window_s + (rule.k - 1) * self.step_s


def choose_rule(by_rule: Iterable[tuple[AlarmRule, EventFigures]]) -> AlarmRule | None:
    """Choose the alarm rule with the fewest false alarms, among those that detect almost as many events as the best.

    Parameters
    ----------
    by_rule : iterable of (AlarmRule, EventFigures)
        Each rule with its results on the same records, which must not be test records.

    Returns
    -------
    AlarmRule or None
        The rule with the fewest false alarms, among the rules whose sensitivity for events of `HEADLINE_MIN_S` or more
        is within `MAX_LOSS_PERCENT` percentage points of the best. Of equally good rules, the first. None if there is
        no such event.
    """
    candidates = list(by_rule)
    most = max((figures.headline.count for _, figures in candidates), default=0)
    # All rules have the same events and hours, so counts can be compared instead of proportions.
    allowed = [
        (rule, figures)
        for rule, figures in candidates
        if figures.headline.windows
        and 100 * (most - figures.headline.count) <= MAX_LOSS_PERCENT * figures.headline.windows
    ]
    return min(allowed, key=lambda one: one[1].false_alarms)[0] if allowed else None


class RecordScans:
    """Scan complete records, one at a time, with the models of an evaluation set and all alarm rules.

    Parameters
    ----------
    evaluation : EvaluationSet
        The models and their patients.

    Attributes
    ----------
    records : tuple of Record
        The records that must be added: those of the test patients, and those of the validation patients if their
        databases are on this computer.
    """

    def __init__(self, evaluation: EvaluationSet) -> None:
        self._evaluation = evaluation
        subsets = ("test", "validation") if evaluation.has_validation() else ("test",)
        of_folds = {
            (fold, subset): one.records(subset) for fold, one in evaluation.by_fold.items() for subset in subsets
        }
        self.records: tuple[Record, ...] = tuple(
            dict.fromkeys(record for records in of_folds.values() for record in records)
        )
        # No patient is in both subsets of a fold: `EvaluationSet.records` checks that.
        self._patients = {key: {record.patient for record in records} for key, records in of_folds.items()}
        self._events: dict[tuple[int, str], dict[AlarmRule, list[RecordEvents]]] = {
            (fold, subset): {rule: [] for rule in RULES}
            for fold in evaluation.by_fold
            for subset in ("test", "validation")
        }
        self._too_short: list[str] = []
        self._window_s = self._step_s = 0.0

    def add(self, recording: Recording) -> None:
        """Scan the first lead of a labelled recording, with the model of each fold that tests or validates its patient.

        The windows have the length that the model was trained with.
        """
        for (fold, subset), patients in self._patients.items():
            if recording.patient not in patients:
                continue
            advisor = self._evaluation.advisors[fold]
            if recording.duration_s < advisor.bundle.spec.input_samples / FS:
                if subset == "test":
                    self._too_short.append(f"{recording.database}/{recording.name}")
                continue
            config = advisor.bundle.card.data
            scanned = scan(recording, lead=recording.leads[0], model=advisor)
            self._window_s, self._step_s = scanned.window_s, scanned.step_s
            labels = self._evaluation.labels
            segments = reference_segments(
                recording, scanned.window_s, scanned.step_s, preprocessing=config.preprocessing, policy=labels
            )
            for rule, found in self._events[fold, subset].items():
                found.append(episode_events(with_rule(scanned, rule), recording, segments, policy=labels))

    def figures(self) -> WholeRecords:
        """Choose the rule of each fold, and pool the results of the test records.

        Raises
        ------
        ValueError
            If no record is at least as long as a window.
        """
        choices = []
        records: list[RecordEvents] = []
        fixed: dict[AlarmRule, list[RecordEvents]] = {rule: [] for rule in RULES}
        for fold, advisor in self._evaluation.advisors.items():
            validation, tested = self._events[fold, "validation"], self._events[fold, "test"]
            scanned = validation[DEFAULT_RULE]
            by_rule = tuple((rule, event_figures(found)) for rule, found in validation.items()) if scanned else ()
            rule = choose_rule(by_rule)
            choice = RuleChoice(
                fold=advisor.bundle.card.data.fold,
                rule=rule or DEFAULT_RULE,
                decided=rule is not None,
                patients=len({record.patient for record in scanned}),
                records=len(scanned),
                by_rule=by_rule,
            )
            choices.append(choice)
            records += tested[choice.rule]
            for fixed_rule, found in tested.items():
                fixed[fixed_rule] += found
        if not records:
            raise ValueError("all records are shorter than a window; give a database with longer records.")

        def grouped(attribute: str) -> tuple[EventFigures, ...]:
            names = dict.fromkeys(getattr(record, attribute) for record in records)
            return tuple(event_figures([r for r in records if getattr(r, attribute) == name], name) for name in names)

        return WholeRecords(
            choices=tuple(choices),
            fixed_rule=DEFAULT_RULE,
            window_s=self._window_s,
            step_s=self._step_s,
            figures=event_figures(records),
            by_database=grouped("database"),
            by_patient=grouped("patient"),
            by_rule=tuple((rule, event_figures(found)) for rule, found in fixed.items()),
            records=tuple(records),
            too_short=tuple(self._too_short),
        )
