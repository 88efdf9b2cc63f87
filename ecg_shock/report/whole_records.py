"""Whole records in the reports: what an alarm does, as tables, lists, notes and two sentences."""

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
    "The limits of the rule for unusable strips were set on clear VF and VT of all patients of vfdb, cudb and mitdb, "
    "test patients included: that it refuses none of theirs was chosen, not found."
)

# What each column of a table is called, and how its cell is written.
DETECTED: dict[str, Callable[[tuple[EventFigures, LengthRow]], str]] = {
    "Database": lambda at: printable(at[0].name),
    "Events\nfrom": lambda at: f"{at[1].least_s:g} s" if at[1].least_s else "any",
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
    "An\nhour": lambda of: hundredths_up(of.false_per_hour),
    "Upper\nlimit": lambda of: hundredths_up(of.false_per_hour_limit),
    "Upper limit\nby patient": lambda of: hundredths_up(of.false_per_hour_patient_limit),
    "Of them\ndoubtful": lambda of: str(of.doubtful_alarms),
}
DELAYS: dict[str, Callable[[EventFigures], str]] = {
    "Database": lambda of: printable(of.name),
    "Alarm\nafter\nonset": lambda of: str(of.delays),
    "Alarm on\nbefore": lambda of: str(of.early),
    "Delay,\nmedian": lambda of: one_decimal(of.delay_median_s),
    "Delay,\n90 % up to": lambda of: one_decimal(of.delay_late_s),
    "Records with\nan alarm": lambda of: str(of.alarmed),
    "Without\nany": lambda of: str(of.never_alarmed),
    "First alarm,\nmedian": lambda of: one_decimal(of.first_alarm_median_s),
    "First alarm,\n90 % up to": lambda of: one_decimal(of.first_alarm_late_s),
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
    "Annotated\nbeats a minute": lambda at: NONE if at[1].beats_bpm is None else f"{at[1].beats_bpm:.0f}",
    "Doubtful": lambda at: "yes" if at[1].doubtful else "no",
    "Mean\nprobability": lambda at: f"{at[1].probability:.2f}",
}


def whole_section(whole: WholeRecords | None) -> dict[str, Any] | None:
    """Prepare what the page says of whole records, or nothing where they were not scanned."""
    if whole is None:
        return None
    return {
        "lead": _whole_lead(whole),
        "notes": event_notes(whole),
        "tables": event_tables(whole),
        "lists": event_lists(whole),
    }


def _whole_lead(whole: WholeRecords) -> str:
    """Say in a few sentences what an alarm does."""
    figures = whole.figures
    rate = figures.headline
    sentence = (
        f"An alarm {alarm_words(whole)} detects {rate.count} of {rate.windows} "
        f"events of {whole.headline_least_s:g} s and more ({patients_text(rate.patients)})."
    )
    if figures.delay_median_s is not None:
        sentence += (
            f" Half of {figures.delays} alarms after an annotated onset come within {figures.delay_median_s:.1f} s of "
            f"it; {figures.early} were on before."
        )
    if figures.false_per_hour is not None and figures.false_per_hour_limit is not None:
        sentence += (
            f" It is false {figures.false_alarms} times in {figures.nonshockable_hours:.2f} h of nonshockable rhythm: "
            f"{hundredths_up(figures.false_per_hour)} an hour, upper limit "
            f"{hundredths_up(figures.false_per_hour_limit)}; {figures.doubtful_alarms} of them are doubtful."
        )
    fixed, rule = whole.fixed, whole.fixed_rule
    return (
        f"{sentence} At the default of {rule.k} of {rule.n} windows, fixed for all folds, it detects "
        f"{fixed.headline.count} of {fixed.headline.windows} and is false {fixed.false_alarms} times."
    )


def event_tables(whole: WholeRecords) -> list[Table]:
    """Lay out what an alarm does: detected events, false alarms, delays, time, other rules, and the choice."""
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
        Table.of(f"Whole records: events of shockable rhythm, {alarm}", lengths, DETECTED),
        Table.of(f"Whole records: false alarms in nonshockable time, {alarm}", groups, FALSE_ALARMS),
        Table.of(f"Whole records: seconds until the alarm, {alarm_words(whole)}", groups, DELAYS),
        Table.of(f"Whole records: time, {alarm}", groups, TIMES),
        Table("Whole records: other alarm rules on the same windows", rule_header, rules),
        Table("Whole records: alarm rules on the validation patients", ("Fold", *rule_header), tuple(choices)),
    ]
    return tables if choices else tables[:-1]


def event_lists(whole: WholeRecords) -> list[Table]:
    """Lay out patients, missed events and false alarms one by one; a table without a row is none."""
    patients: dict[str, Callable[[EventFigures], str]] = {
        "Patient": lambda group: printable(group.name),
        f"Detected,\n≥ {whole.headline_least_s:g} s": lambda group: _counts(group.headline),
        "Detected,\nany": lambda group: _counts(group.by_length[0].rate),
        "Nonshockable\nhours": lambda group: f"{group.nonshockable_hours:.2f}",
        "False\nalarms": lambda group: str(group.false_alarms),
        "An\nhour": lambda group: hundredths_up(group.false_per_hour),
    }
    affected = [group for group in whole.by_patient if group.by_length[0].rate.windows or group.false_alarms]
    missed = [(record, event) for record in whole.records for event in record.events if not event.detected]
    false = [(record, alarm) for record in whole.records for alarm in record.false_alarms]
    tables = [
        Table.of("Patients with events or false alarms", affected, patients),
        Table.of("Missed events", missed, MISSED_EVENTS),
        Table.of("False alarms", false, LISTED_ALARMS),
    ]
    return [table for table in tables if table.rows]


def event_notes(whole: WholeRecords) -> list[str]:
    """Say what is counted on whole records."""
    rules = ", ".join(_rule(rule) for rule, _ in whole.by_rule)
    shown = sorted({whole.fixed_rule, *(choice.rule for choice in whole.choices)}, key=lambda rule: rule.n)
    needed = ", ".join(f"{whole.alarm_s(rule):g} s at {_rule(rule)}" for rule in shown)
    notes = [
        f"Whole records: every window of {whole.window_s:g} s, {whole.step_s:g} s apart, of every record of the same "
        f"{whole.part} patients, on the first lead, with the rule for unusable strips. Nothing is excluded beforehand.",
        "An event is a segment of annotated coarse VF and rapid VT; amplitude and rate are measured over each "
        "annotated rhythm as a whole. It is detected if an episode of alarm overlaps with it. Short events can hardly "
        f"be: an alarm needs whole windows over {needed}.",
        "An alarm is false if at least half of what it rests on is annotated as nonshockable, and no shockable or "
        f"intermediate rhythm lies within {whole.tolerance_s:g} s. Fine VF, other VT, noise and time without a label "
        "make neither events nor false alarms. All of cudb outside its VF is taken as nonshockable, although VT stands "
        "there that is not labelled: a false alarm is doubtful, and counts all the same, where the rhythm is not named "
        "and the annotated beats are missing or as fast as VT.",
        "The delay counts from the annotated onset of events that follow a nonshockable rhythm, where the alarm came "
        "after it. The first alarm counts from the first event of the record, 0 s for one that was on before. Both "
        f"are of events of {whole.headline_least_s:g} s and more, and missed ones have none. The upper limit of false "
        "alarms an hour is Poisson's, as if they were independent; by patient it is from resampled patients.",
        "The alarm rule of each fold is chosen on the validation patients of its own model, and its test patients are "
        f"evaluated with it: the fewest false alarms an hour among {rules}, of the rules that detect events of "
        f"{whole.headline_least_s:g} s and more within one point of the best; the first of equals. "
        f"{' '.join(map(_chosen, whole.choices))} From the table of other rules on the test patients none is to be "
        "chosen.",
        f"Beside it stands the default rule, {_rule(whole.fixed_rule)}, fixed for all folds, which scans and streams "
        "have unless told otherwise. It was chosen once, with the shipped model on the validation patients of fold 0 "
        "of public-v1, who are the test patients of fold 1: on theirs its figures are too good.",
        QUALITY_NOTE,
    ]
    if whole.too_short:
        notes.append(f"Shorter than a window, and in no figure: {printable(', '.join(whole.too_short))}.")
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
    """Say at which rule the alarm is raised: one for all folds, or each fold's own."""
    rules = {choice.rule for choice in whole.choices}
    return f"at {_rule(rules.pop())} windows" if len(rules) == 1 else "at each fold's own rule"


def _chosen(choice: RuleChoice) -> str:
    if choice.decided:
        return f"Fold {choice.fold}: {_rule(choice.rule)}, on {choice.patients} patients."
    why = "they have no such event" if choice.records else "their recordings were not there"
    return f"Fold {choice.fold}: {_rule(choice.rule)}, the default, not chosen on its validation patients, for {why}."
