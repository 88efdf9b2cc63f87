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
    from ecg_shock.evaluation.events import EventFigures
    from ecg_shock.evaluation.whole_records import RuleChoice, WholeRecords
    from ecg_shock.inference.streaming import AlarmRule

QUALITY_NOTE = (
    "The limits of the rule for unusable strips were set on clear VF and VT of all patients of vfdb, cudb and mitdb, "
    "test patients included: that it refuses none of theirs was chosen, not found."
)


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
    """Lay out what an alarm does on whole records: detected events, false alarms, delays, other rules, and the choice.

    Parameters
    ----------
    whole : WholeRecords
        What `ecg_shock.evaluation.whole_records.RecordScans` found.
    """
    fixed = replace(whole.fixed, name=f"all, fixed {_rule(whole.fixed_rule)}")
    groups = (whole.figures, *whole.by_database, fixed)
    alarm = f"alarm {alarm_words(whole)}"
    least = [f"{row.least_s:g} s" for row in whole.figures.by_length]
    detected = tuple(
        (
            printable(group.name),
            _length(row.least_s),
            str(row.rate.patients),
            f"{row.rate.count}/{row.rate.windows}",
            *(rounded_down(share) for share in (row.rate.observed, row.rate.lower_limit)),
            *(rounded_down(share) for share in (row.rate.patient_limit, row.rate.cluster_limit)),
        )
        for group in groups
        for row in group.by_length
        if row.rate.windows or not row.least_s
    )
    false = tuple((printable(group.name), str(group.patients), *_false_cells(group)) for group in groups)
    late = tuple((printable(group.name), *_delay_cells(group)) for group in groups)
    time = tuple(
        (
            printable(group.name),
            f"{group.records}",
            f"{group.hours:.2f}",
            f"{group.shockable_hours:.2f}\n{group.intermediate_hours:.2f}",
            f"{group.nonshockable_hours:.2f}\n{group.uncounted_hours:.2f}",
            rounded_up(group.unusable),
            *(rounded_down(share) for share in (group.duration_sensitivity, group.duration_positive_predictivity)),
            f"{rounded_down(group.positive_predictivity)}\nof {group.true_alarms + group.untrue_alarms}",
        )
        for group in groups
    )
    rules = tuple(
        (_rule(rule) + (" (fixed)" if rule == whole.fixed_rule else ""), *_rule_cells(figures))
        for rule, figures in whole.by_rule
    )
    choices = tuple(
        (str(choice.fold), _rule(rule) + (" (chosen)" if rule == choice.rule else ""), *_rule_cells(figures))
        for choice in whole.choices
        if choice.decided
        for rule, figures in choice.by_rule
    )
    rule_header = (
        *("Alarm", *(f"Events\n≥ {text}" if text != "0 s" else "All\nevents" for text in least)),
        *("False\nalarms", "Delay,\nmedian\n(90 %)", "First\nalarm\n(90 %)"),
    )
    return [
        Table(
            f"Whole records: events of shockable rhythm, {alarm}",
            (
                *("Database", "Events\nfrom", "Patients", "Detected", "Observed", "Limit by\nevent"),
                *("Limit by\npatient", "Limit by\ndesign effect"),
            ),
            detected,
        ),
        Table(
            f"Whole records: false alarms in nonshockable time, {alarm}",
            (
                *("Database", "Patients", "Hours", "False\nalarms", "An\nhour", "Upper\nlimit"),
                *("Upper limit\nby patient", "Of them\ndoubtful"),
            ),
            false,
        ),
        Table(
            f"Whole records: seconds until the alarm, {alarm_words(whole)}",
            (
                *("Database", "Alarm\nafter\nonset", "Alarm on\nbefore", "Delay,\nmedian", "Delay,\n90 % up to"),
                *("Records with\nan alarm", "Without\nany", "First alarm,\nmedian", "First alarm,\n90 % up to"),
            ),
            late,
        ),
        Table(
            f"Whole records: time, {alarm}",
            (
                *("Database", "Records", "Hours", "Shockable\nintermediate", "Nonshockable\nuncounted"),
                *("Unusable", "Se by\ntime", "PPV by\ntime", "PPV by\nepisode"),
            ),
            time,
        ),
        Table("Whole records: other alarm rules on the same windows", rule_header, rules),
        *(
            [Table("Whole records: alarm rules on the validation patients", ("Fold", *rule_header), choices)]
            if choices
            else []
        ),
    ]


def event_lists(whole: WholeRecords) -> list[Table]:
    """Lay out the patients with events or false alarms, and list missed events and false alarms one by one.

    Parameters
    ----------
    whole : WholeRecords
        What `ecg_shock.evaluation.whole_records.RecordScans` found.

    Returns
    -------
    list of Table
        Those that have a row.
    """
    patients = tuple(
        (
            printable(group.name),
            f"{group.headline.count}/{group.headline.windows}",
            f"{group.by_length[0].rate.count}/{group.by_length[0].rate.windows}",
            f"{group.nonshockable_hours:.2f}",
            str(group.false_alarms),
            hundredths_up(group.false_per_hour),
        )
        for group in whole.by_patient
        if group.by_length[0].rate.windows or group.false_alarms
    )
    missed = tuple(
        (
            *(printable(name) for name in (record.database, record.record, event.rhythm)),
            *(one_decimal(seconds) for seconds in (event.start_s, event.end_s, event.length_s)),
        )
        for record in whole.records
        for event in record.events
        if not event.detected
    )
    false = tuple(
        (
            *(printable(name) for name in (record.database, record.record, alarm.rhythm.replace("_", " "))),
            *(one_decimal(seconds) for seconds in (alarm.onset_s, alarm.alarm_s, alarm.end_s)),
            NONE if alarm.beats_bpm is None else f"{alarm.beats_bpm:.0f}",
            "yes" if alarm.doubtful else "no",
            f"{alarm.probability:.2f}",
        )
        for record in whole.records
        for alarm in record.false_alarms
    )
    least = f"{whole.headline_least_s:g} s"
    tables = [
        Table(
            "Patients with events or false alarms",
            ("Patient", f"Detected,\n≥ {least}", "Detected,\nany", "Nonshockable\nhours", "False\nalarms", "An\nhour"),
            patients,
        ),
        Table("Missed events", ("Database", "Record", "Rhythm", "Start, s", "End, s", "Length, s"), missed),
        Table(
            "False alarms",
            (
                *("Database", "Record", "Rhythm", "Onset, s", "Alarm, s", "End, s"),
                *("Annotated\nbeats a minute", "Doubtful", "Mean\nprobability"),
            ),
            false,
        ),
    ]
    return [table for table in tables if table.rows]


def event_notes(whole: WholeRecords) -> list[str]:
    """Say what is counted on whole records.

    Parameters
    ----------
    whole : WholeRecords
        What `ecg_shock.evaluation.whole_records.RecordScans` found.
    """
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


def _rule_cells(figures: EventFigures) -> tuple[str, ...]:
    return (
        *(f"{row.rate.count}/{row.rate.windows}" for row in figures.by_length),
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


def _length(least_s: float) -> str:
    return f"{least_s:g} s" if least_s else "any"


def _false_cells(figures: EventFigures) -> tuple[str, ...]:
    rates = (figures.false_per_hour, figures.false_per_hour_limit, figures.false_per_hour_patient_limit)
    return (
        f"{figures.nonshockable_hours:.2f}",
        str(figures.false_alarms),
        *(hundredths_up(rate) for rate in rates),
        str(figures.doubtful_alarms),
    )


def _delay_cells(figures: EventFigures) -> tuple[str, ...]:
    return (
        str(figures.delays),
        str(figures.early),
        *(one_decimal(seconds) for seconds in (figures.delay_median_s, figures.delay_late_s)),
        str(figures.alarmed),
        str(figures.never_alarmed),
        *(one_decimal(seconds) for seconds in (figures.first_alarm_median_s, figures.first_alarm_late_s)),
    )
