"""Write the results of alarms on complete records: tables, lists, notes and a summary."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ecg_shock.report.formats import (
    NONE,
    Table,
    hundredths_up,
    one_decimal,
    patients_text,
    printable,
    rounded_down,
    rounded_up,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecg_shock.evaluation.confidence import Proportion
    from ecg_shock.evaluation.events import EventFigures, FalseAlarm, LengthRow, RecordEvents, ReferenceEvent
    from ecg_shock.evaluation.whole_records import RuleChoice, WholeRecords
    from ecg_shock.inference.streaming import AlarmRule

QUALITY_NOTE = (
    "The limits of the rule for unusable strips were set so that it accepts all clear VF and VT of vfdb, cudb and "
    "mitdb, including the test patients. So the results do not show how often it refuses VF or VT of other patients."
)

# The columns of the tables: heading, and the function that writes the cell
DETECTED: dict[str, Callable[[tuple[EventFigures, LengthRow]], str]] = {
    "Database": lambda at: printable(at[0].name),
    "Minimum\nlength": lambda at: f"{at[1].least_s:g} s" if at[1].least_s else "any",
    "Patients": lambda at: str(at[1].rate.patients),
    "Detected": lambda at: _counts(at[1].rate),
    "Observed": lambda at: rounded_down(at[1].rate.observed),
    "Limit by\nevent": lambda at: rounded_down(at[1].rate.lower_limit),
    "Limit by\npatient": lambda at: rounded_down(at[1].rate.patient_limit),
    "Limit by\ndesign effect": lambda at: rounded_down(at[1].rate.cluster_limit),
}
FALSE_ALARMS: dict[str, Callable[[EventFigures], str]] = {
    "Database": lambda of: printable(of.name),
    "Patients": lambda of: str(of.patients),
    "Hours": lambda of: f"{of.nonshockable_hours:.2f}",
    "False\nalarms": lambda of: str(of.false_alarms),
    "Per\nhour": lambda of: hundredths_up(of.false_per_hour),
    "Upper\nlimit": lambda of: hundredths_up(of.false_per_hour_limit),
    "Upper limit\nby patient": lambda of: hundredths_up(of.false_per_hour_patient_limit),
    "Of which\ndoubtful": lambda of: str(of.doubtful_alarms),
}
DELAYS: dict[str, Callable[[EventFigures], str]] = {
    "Database": lambda of: printable(of.name),
    "Alarm\nafter\nonset": lambda of: str(of.delays),
    "Already\non": lambda of: str(of.early),
    "Delay,\nmedian": lambda of: one_decimal(of.delay_median_s),
    "Delay,\n90 % within": lambda of: one_decimal(of.delay_late_s),
    "Records\nwith alarm": lambda of: str(of.alarmed),
    "Without\nalarm": lambda of: str(of.never_alarmed),
    "First alarm,\nmedian": lambda of: one_decimal(of.first_alarm_median_s),
    "First alarm,\n90 % within": lambda of: one_decimal(of.first_alarm_late_s),
}
TIMES: dict[str, Callable[[EventFigures], str]] = {
    "Database": lambda of: printable(of.name),
    "Records": lambda of: str(of.records),
    "Hours": lambda of: f"{of.hours:.2f}",
    "Shockable\nintermediate": lambda of: f"{of.shockable_hours:.2f}\n{of.intermediate_hours:.2f}",
    "Nonshockable\nuncounted": lambda of: f"{of.nonshockable_hours:.2f}\n{of.uncounted_hours:.2f}",
    "Unusable": lambda of: rounded_up(of.unusable),
    "Se by\ntime": lambda of: rounded_down(of.duration_sensitivity),
    "PPV by\ntime": lambda of: rounded_down(of.duration_positive_predictivity),
    "PPV by\nepisode": lambda of: f"{rounded_down(of.positive_predictivity)}\nof {of.true_alarms + of.untrue_alarms}",
}
MISSED_EVENTS: dict[str, Callable[[tuple[RecordEvents, ReferenceEvent]], str]] = {
    "Database": lambda at: printable(at[0].database),
    "Record": lambda at: printable(at[0].record),
    "Rhythm": lambda at: printable(at[1].rhythm),
    "Start, s": lambda at: one_decimal(at[1].start_s),
    "End, s": lambda at: one_decimal(at[1].end_s),
    "Length, s": lambda at: one_decimal(at[1].length_s),
}
LISTED_ALARMS: dict[str, Callable[[tuple[RecordEvents, FalseAlarm]], str]] = {
    "Database": lambda at: printable(at[0].database),
    "Record": lambda at: printable(at[0].record),
    "Rhythm": lambda at: printable(at[1].rhythm.replace("_", " ")),
    "Onset, s": lambda at: one_decimal(at[1].onset_s),
    "Alarm, s": lambda at: one_decimal(at[1].alarm_s),
    "End, s": lambda at: one_decimal(at[1].end_s),
    "Annotated\nbeats/min": lambda at: NONE if at[1].beats_bpm is None else f"{at[1].beats_bpm:.0f}",
    "Doubtful": lambda at: "yes" if at[1].doubtful else "no",
    "Mean\nprobability": lambda at: f"{at[1].probability:.2f}",
}


def whole_section(whole: WholeRecords | None) -> dict[str, Any] | None:
    """Return the values of the section on complete records for the HTML template; None if none was scanned."""
    if whole is None:
        return None
    return {
        "lead": _whole_lead(whole),
        "notes": event_notes(whole),
        "tables": event_tables(whole),
        "lists": event_lists(whole),
    }


def _whole_lead(whole: WholeRecords) -> str:
    """Summarise the results in a few sentences."""
    figures = whole.figures
    rate = figures.headline
    sentence = (
        f"An alarm {alarm_words(whole)} detects {rate.count} of {rate.windows} "
        f"events of {whole.headline_least_s:g} s or longer ({patients_text(rate.patients)})."
    )
    if figures.delay_median_s is not None:
        sentence += (
            f" The median delay of {figures.delays} alarms after an annotated onset is {figures.delay_median_s:.1f} s; "
            f"{figures.early} more alarms were already on at the onset."
        )
    if figures.false_per_hour is not None and figures.false_per_hour_limit is not None:
        sentence += (
            f" There are {figures.false_alarms} false alarms in {figures.nonshockable_hours:.2f} h of nonshockable "
            f"rhythm: {hundredths_up(figures.false_per_hour)} per hour, upper limit "
            f"{hundredths_up(figures.false_per_hour_limit)}; {figures.doubtful_alarms} of them are doubtful."
        )
    fixed, rule = whole.fixed, whole.fixed_rule
    return (
        f"{sentence} With the default rule of {rule.k} of {rule.n} windows for all folds, {fixed.headline.count} of "
        f"{fixed.headline.windows} events are detected, with {fixed.false_alarms} false alarms."
    )


def event_tables(whole: WholeRecords) -> list[Table]:
    """Make the tables of events, false alarms, delays, times, other alarm rules, and the choice of the rule."""
    fixed = replace(whole.fixed, name=f"all, fixed {_rule(whole.fixed_rule)}")
    groups = (whole.figures, *whole.by_database, fixed)
    alarm = f"alarm {alarm_words(whole)}"
    lengths = [(group, row) for group in groups for row in group.by_length if row.rate.windows or not row.least_s]
    choices = [
        (str(choice.fold), _rule(rule) + (" (chosen)" if rule == choice.rule else ""), *_rule_cells(figures))
        for choice in whole.choices
        if choice.decided
        for rule, figures in choice.by_rule
    ]
    rule_header = (
        "Alarm",
        *(f"Events\n≥ {row.least_s:g} s" if row.least_s else "All\nevents" for row in whole.figures.by_length),
        *("False\nalarms", "Delay,\nmedian\n(90 %)", "First\nalarm\n(90 %)"),
    )
    rules = tuple(
        (_rule(rule) + (" (fixed)" if rule == whole.fixed_rule else ""), *_rule_cells(figures))
        for rule, figures in whole.by_rule
    )
    tables = [
        Table.from_rows(f"Whole records: events of shockable rhythm, {alarm}", lengths, DETECTED),
        Table.from_rows(f"Whole records: false alarms in nonshockable time, {alarm}", groups, FALSE_ALARMS),
        Table.from_rows(f"Whole records: seconds until the alarm, {alarm_words(whole)}", groups, DELAYS),
        Table.from_rows(f"Whole records: hours and results by time, {alarm}", groups, TIMES),
        Table("Whole records: other alarm rules on the same windows", rule_header, rules),
        Table("Whole records: alarm rules on the validation patients", ("Fold", *rule_header), tuple(choices)),
    ]
    return tables if choices else tables[:-1]


def event_lists(whole: WholeRecords) -> list[Table]:
    """Make tables of patients, missed events and false alarms; omit empty tables."""
    patients: dict[str, Callable[[EventFigures], str]] = {
        "Patient": lambda group: printable(group.name),
        f"Detected,\n≥ {whole.headline_least_s:g} s": lambda group: _counts(group.headline),
        "Detected,\nany": lambda group: _counts(group.by_length[0].rate),
        "Nonshockable\nhours": lambda group: f"{group.nonshockable_hours:.2f}",
        "False\nalarms": lambda group: str(group.false_alarms),
        "Per\nhour": lambda group: hundredths_up(group.false_per_hour),
    }
    affected = [group for group in whole.by_patient if group.by_length[0].rate.windows or group.false_alarms]
    missed = [(record, event) for record in whole.records for event in record.events if not event.detected]
    false = [(record, alarm) for record in whole.records for alarm in record.false_alarms]
    tables = [
        Table.from_rows("Patients with events or false alarms", affected, patients),
        Table.from_rows("Missed events", missed, MISSED_EVENTS),
        Table.from_rows("False alarms", false, LISTED_ALARMS),
    ]
    return [table for table in tables if table.rows]


def event_notes(whole: WholeRecords) -> list[str]:
    """Return notes on how events, alarms and delays are counted, and how the rule was chosen."""
    rules = ", ".join(_rule(rule) for rule, _ in whole.by_rule)
    shown = sorted({whole.fixed_rule, *(choice.rule for choice in whole.choices)}, key=lambda rule: rule.n)
    needed = ", ".join(f"{whole.alarm_s(rule):g} s at {_rule(rule)}" for rule in shown)
    notes = [
        f"Whole records: all records of the same {whole.part} patients were scanned on the first lead, in windows of "
        f"{whole.window_s:g} s and steps of {whole.step_s:g} s. Unusable windows are advised no shock. Nothing is "
        "excluded.",
        "An event is a segment of annotated coarse VF or rapid VT; amplitude and rate are measured over the complete "
        "segment. An event is detected if an alarm episode overlaps with it. Short events are rarely detected, because "
        f"an alarm needs at least {needed}.",
        "An alarm is false if at least half of the time from its episode's onset to the alarm is annotated as "
        f"nonshockable, and there is no shockable or intermediate rhythm within {whole.tolerance_s:g} s of the alarm. "
        "Fine VF, other VT, noise and unlabelled time give neither events nor false alarms. All of cudb outside its VF "
        "counts as nonshockable, although it contains unlabelled VT. Therefore a false alarm is called doubtful if the "
        "rhythm is not named and the annotated beats are missing or as fast as VT. Doubtful false alarms are counted.",
        "The delay is the time from the annotated onset of an event to the alarm, for events that follow a "
        "nonshockable rhythm. The time to the first alarm begins with the first event of the record, and is 0 s if the "
        f"alarm was already on. Delays and times are of detected events of {whole.headline_least_s:g} s or longer. The "
        "upper limit of false alarms per hour is for a Poisson distribution, which treats them as independent; the "
        "limit by patient is from resampled patients.",
        "Each fold's alarm rule was chosen on the validation patients of its model, and evaluated on its test "
        f"patients. The candidates are {rules}. Among the rules whose sensitivity for events of "
        f"{whole.headline_least_s:g} s or longer is within one percentage point of the best, the rule with the fewest "
        "false alarms per hour was chosen. "
        f"{' '.join(map(_chosen, whole.choices))} Do not choose a rule from the table of other rules: its results "
        "are those of the test patients.",
        f"For comparison, the results of the default rule, {_rule(whole.fixed_rule)}, are shown for all folds. This "
        "rule was chosen with an earlier model on the validation patients of fold 0 of public-v1. They are the "
        "test patients of fold 1, so the results for fold 1 are too good.",
        QUALITY_NOTE,
    ]
    if whole.too_short:
        notes.append(f"Records shorter than a window, which are excluded: {printable(', '.join(whole.too_short))}.")
    return notes


def _rule(rule: AlarmRule) -> str:
    return f"{rule.k} of {rule.n}"


def _counts(rate: Proportion) -> str:
    return f"{rate.count}/{rate.windows}"


def _rule_cells(figures: EventFigures) -> tuple[str, ...]:
    return (
        *(_counts(row.rate) for row in figures.by_length),
        f"{figures.false_alarms}\n({hundredths_up(figures.false_per_hour)}/h)",
        f"{one_decimal(figures.delay_median_s)}\n({one_decimal(figures.delay_late_s)})",
        f"{one_decimal(figures.first_alarm_median_s)}\n({one_decimal(figures.first_alarm_late_s)})",
    )


def alarm_words(whole: WholeRecords) -> str:
    """Return the alarm rule as text, such as ``"at 5 of 8 windows"`` if all folds have the same rule."""
    rules = {choice.rule for choice in whole.choices}
    return f"at {_rule(rules.pop())} windows" if len(rules) == 1 else "with each fold's own rule"


def _chosen(choice: RuleChoice) -> str:
    if choice.decided:
        return f"Fold {choice.fold}: {_rule(choice.rule)}, on {choice.patients} patients."
    why = "have no such event" if choice.records else "were not found"
    return f"Fold {choice.fold}: {_rule(choice.rule)}, the default, because the validation patients {why}."
