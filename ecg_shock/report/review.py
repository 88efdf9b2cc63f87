"""Evaluate an algorithm with all tests of the report, and write the reports to a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.datasets import SYNTHETIC, SYNTHETIC_PATIENTS, SYNTHETIC_SEED
from ecg_shock.data.manifests import data_dir, load_manifest
from ecg_shock.data.noise import NOISE_DATABASE
from ecg_shock.data.windows import LabelPolicy
from ecg_shock.evaluation.baselines import SVM_CITATION, SVM_NAME
from ecg_shock.evaluation.comparison import Comparison, compare_predictions
from ecg_shock.evaluation.detectors import DETECTORS
from ecg_shock.evaluation.evaluation_set import DURATIONS_S, EvaluationSet, describe_all
from ecg_shock.evaluation.importance import Importance, explain
from ecg_shock.evaluation.metrics import Validation, evaluate
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.stress import RECORDED_NOISE, StressPoint, StressTest, draw_clear_windows, standard_stresses
from ecg_shock.evaluation.validation import describe_file, evaluate_by_labels, read_predictions
from ecg_shock.evaluation.whole_records import RecordScans, WholeRecords
from ecg_shock.files import commit, flatten, sha256, versions, write_text
from ecg_shock.report.formats import rounded_down
from ecg_shock.report.gallery import Strip
from ecg_shock.report.html import ReportContent, shown_errors, write_report
from ecg_shock.report.strips import strips_of
from ecg_shock.report.tables import headline, to_json, to_markdown
from ecg_shock.report.whole_records import QUALITY_NOTE

PREDICTIONS_NAME, DEFAULT_PREDICTIONS_NAME = "predictions.csv", "predictions-default-labels.csv"
REPORT_NAMES = ("report.html", "report.md", "report.json")

# In the stress tests, windows are predicted once for each of about fifty disturbances.
MAX_PER_GROUP = 5  # windows of one patient and AHA class
MAX_STRESSED = 300  # windows
STRESS_SEED = 0

BASELINES_NOTE = (
    "The thresholds and the support vector machine were fitted on the training windows of each fold, as the model was. "
    "Published thresholds are not used."
)
NO_RECORDINGS = (
    "A file of predictions contains no recordings, so stress tests, whole records and the ECG of the errors are not "
    "shown."
)
QUICK = "Other algorithms, stress tests, whole records, and what the model responds to were skipped (--quick)."

# Takes the name of a stage and its number of steps; returns a function to call after each step.
OnStage = Callable[[str, int], Callable[[], Any]]


def _silent(stage: str, steps: int) -> Callable[[], Any]:
    return lambda: None


def prediction_names(evaluation: EvaluationSet) -> tuple[str, ...]:
    """Return the names of the files of predictions: one, or a second one under the default labels if they differ."""
    return (PREDICTIONS_NAME, *([] if evaluation.labels == LabelPolicy() else [DEFAULT_PREDICTIONS_NAME]))


def review_bundles(
    evaluation: EvaluationSet, out: Path, *, quick: bool = False, command: str = "", on_stage: OnStage = _silent
) -> ReportContent:
    """Evaluate models on their test patients, and write the predictions and the reports.

    If the models were trained with other labels than the default ones, the predictions and results under the default
    labels are written too.

    Parameters
    ----------
    evaluation, out : EvaluationSet, pathlib.Path
        The models with their test patients, and the folder of the reports.
    quick : bool
        Skip other algorithms, stress tests, whole records, and what the model responds to.
    command : str
        The command line, shown in the report.
    on_stage : callable, optional
        Function that takes the name of a stage and its number of steps. It returns a function that is called after each
        step.
    """
    step = on_stage("windows of all lengths", len(evaluation.bundles) * len(DURATIONS_S))
    by_labels = evaluation.predictions_by_labels(on_duration=step)
    validation = evaluate_by_labels(
        by_labels, models=describe_all(evaluation.bundles), corrected=evaluation.corrected()
    )
    predictions = by_labels[evaluation.labels]
    duration_s = headline(validation).duration_s
    out.mkdir(parents=True, exist_ok=True)
    for name, written in zip(prediction_names(evaluation), by_labels.values(), strict=True):
        written.write_csv(out / name)

    notes: list[str] = []
    baselines: dict[str, Validation] = {}
    comparisons: dict[str, Comparison] = {}
    stress: StressTest | None = None
    stress_note = ""
    importance: Importance | None = None
    scans: RecordScans | None = None
    rows = shown_errors(validation, predictions)
    shown = set(zip(predictions.database[rows].tolist(), predictions.record[rows].tolist(), strict=True))
    records = [record for record in evaluation.records() if (record.database, record.name) in shown]
    if quick:
        notes.append(QUICK)
    else:
        step = on_stage("other algorithms", len(evaluation.bundles) + len(DETECTORS) + 1)
        try:
            others = evaluation.baselines(duration_s, on_fold=step)
        except FileNotFoundError:
            others = {}
            notes.append("Other algorithms were not fitted, because the training recordings were not found.")
        ours = predictions.select(predictions.duration_s == duration_s)
        for name, other in others.items():
            baselines[name] = evaluate(other)
            (comparisons[name],) = compare_predictions(other, ours)
            step()
        stress, stress_note = _stress_test(evaluation, duration_s)
        if not stress:
            notes.append(stress_note)
        elif not _has_noise(evaluation.folder):
            notes.append(f"The stress tests have no recorded noise, because {NOISE_DATABASE} was not found.")
        scans = RecordScans(evaluation)
        records = list(scans.records)
        importance, note = _explain(evaluation, on_stage)
        notes += [note] if note else []

    # Each recording is read only once, and freed before the next is read.
    strips: dict[int, Strip] = {}
    found_recordings = True
    points: tuple[StressPoint, ...] = ()
    whole: WholeRecords | None = None
    step = on_stage("recordings", len(records))
    try:
        for recording in evaluation.recordings(records):
            strips |= strips_of(recording, predictions, rows, evaluation.advisors)
            if stress:
                stress.add(recording)
            if scans:
                scans.add(recording)
            step()
        if stress:
            points = stress.points()
            undisturbed = (rounded_down(rate.observed) for rate in (points[0].sensitivity, points[0].specificity))
            stress_note += " Without disturbance: Se {} %, Sp {} %. ".format(*undisturbed) + QUALITY_NOTE
        whole = scans.figures() if scans else None
    except FileNotFoundError:  # the windows came from the cache
        found_recordings = False
        notes.insert(0, "The recordings were not found, so the ECG of the errors is not shown.")
        notes += ["The recordings were not found, so there is no stress test."] if stress else []
        notes += ["The recordings were not found, so whole records were not scanned."] if scans else []

    content = ReportContent(
        validation,
        predictions,
        baselines=baselines,
        baselines_note=BASELINES_NOTE if baselines else "",
        comparisons=comparisons,
        stress=points,
        stress_note=stress_note if points else "",
        whole_records=whole,
        importance=importance,
        strips=strips.get if found_recordings else None,
        excluded=evaluation.excluded(duration_s),
        provenance=_provenance(evaluation, out, validation, command, quick),
        notes=notes,
    )
    _write(out, content)
    return content


def review_file(
    path: Path,
    out: Path,
    *,
    against: Path | None = None,
    windows: Path | None = None,
    threshold: float | None = None,
    command: str = "",
) -> ReportContent:
    """Evaluate a file of predictions of any algorithm, and write the reports.

    Parameters
    ----------
    path, threshold : pathlib.Path, float
        See `ecg_shock.evaluation.predictions.Predictions.read_csv`.
    against : pathlib.Path, optional
        Predictions of another algorithm on the same windows, with which it is compared. Windows of other durations in
        them do not matter.
    windows : pathlib.Path, optional
        See `ecg_shock.validate`.
    out, command : pathlib.Path, str
        See `review_bundles`.
    """
    source = describe_file(path, threshold)
    predictions, coverage = read_predictions(path, windows, threshold)
    validation = evaluate(predictions, source=source, coverage=coverage)
    others = {against.name: _read_other(against, windows, predictions)} if against else {}
    comparisons = {name: _compare(path.name, predictions, name, other) for name, other in others.items()}
    provenance: dict[str, str | Mapping[str, str]] = {
        **({"Command": command} if command else {}),
        "Predictions": {path.name: f"SHA-256 {sha256(path)}", "evaluated": source},
        **({"Compared with": {against.name: f"SHA-256 {sha256(against)}"}} if against else {}),
        **({"Windows": {windows.name: f"SHA-256 {sha256(windows)}"}} if windows else {}),
        "Software": _software(),
        "Seeds": _seeds(validation),
    }
    out.mkdir(parents=True, exist_ok=True)
    headline_s = headline(validation).duration_s
    content = ReportContent(
        validation,
        predictions,
        baselines={name: evaluate(other, coverage=coverage) for name, other in others.items()},
        comparisons={
            name: next(comparison for comparison in found if comparison.duration_s == headline_s)
            for name, found in comparisons.items()
        },
        against=comparisons,
        provenance=provenance,
        notes=(NO_RECORDINGS,),
    )
    _write(out, content)
    return content


def _read_other(path: Path, windows: Path | None, predictions: Predictions) -> Predictions:
    """Read the predictions of another algorithm, of the same durations and, if there is a list, of listed windows."""
    other, _ = read_predictions(path, windows)
    return other.select(np.isin(other.duration_s, predictions.duration_s))


def _compare(name: str, predictions: Predictions, other_name: str, other: Predictions) -> tuple[Comparison, ...]:
    try:
        return compare_predictions(other, predictions)
    except ValueError as error:
        raise ValueError(f"{other_name} (first) and {name} (second) cannot be compared: {error}") from error


def _write(out: Path, content: ReportContent) -> None:
    html, markdown, json = (out / name for name in REPORT_NAMES)
    write_report(html, content)
    results = (content.validation, content.whole_records, content.against)
    write_text(markdown, to_markdown(*results))
    write_text(json, to_json(*results))


def _explain(evaluation: EvaluationSet, on_stage: OnStage) -> tuple[Importance | None, str]:
    """Measure what the model of the first fold responds to; or return None and the reason."""
    if evaluation.databases:
        return None, "What the model responds to was not measured on these databases; see ecg-shock explain."
    try:
        return explain(evaluation.bundles[0], data=evaluation.folder, on_stage=on_stage), ""
    except (FileNotFoundError, ValueError) as error:
        return None, f"What the model responds to was not measured: {error}"


def _stress_test(evaluation: EvaluationSet, duration_s: float) -> tuple[StressTest | None, str]:
    """Return a stress test on windows of the first fold and a note on them; or None and the reason."""
    fold, first = next(iter(evaluation.by_fold.items()))
    windows = first.windows(duration_s)
    for max_per_group in range(MAX_PER_GROUP, 0, -1):
        drawn = draw_clear_windows(windows, max_per_group, STRESS_SEED)
        if len(drawn) <= MAX_STRESSED:
            break
    if not len(drawn):
        return None, "There is no stress test, because there are no shockable or nonshockable windows."
    stresses = standard_stresses(evaluation.folder)
    if not _has_noise(evaluation.folder):
        stresses = tuple(stress for stress in stresses if stress.stress not in RECORDED_NOISE.values())
    of_fold = f" of fold {fold}, with its model only," if len(evaluation.bundles) > 1 else ""
    note = (
        f"{len(drawn)} of {len(windows)} windows of {duration_s:g} s{of_fold} were drawn at random: at most "
        f"{max_per_group} of each patient and AHA class, seed {STRESS_SEED}, without fine VF and other VT. Each window "
        "is filtered and predicted as a separate strip, as ecg_shock.predict does, and the rule for unusable strips is "
        "applied. So the proportions differ from those above."
    )
    return StressTest(evaluation.advisors[fold], drawn, stresses, seed=STRESS_SEED), note


def _has_noise(folder: Path | None) -> bool:
    noise = data_dir(folder) / NOISE_DATABASE
    return all((noise / f"{record}{suffix}").is_file() for record in RECORDED_NOISE for suffix in (".hea", ".dat"))


def _provenance(
    evaluation: EvaluationSet, out: Path, validation: Validation, command: str, quick: bool
) -> dict[str, str | Mapping[str, str]]:
    configs = [bundle.card.data for bundle in evaluation.bundles]
    tested = evaluation.databases or configs[0].databases
    noise = [] if quick or not _has_noise(evaluation.folder) else [NOISE_DATABASE]
    found: dict[str, str | Mapping[str, str]] = {
        **({"Command": command} if command else {}),
        "Predictions": {name: f"SHA-256 {sha256(out / name)}" for name in prediction_names(evaluation)},
        "Data": dict(_describe_data(name) for name in dict.fromkeys([*configs[0].databases, *tested, *noise])),
        "Configuration": {
            "databases": ", ".join(tested),
            "folds": ", ".join(str(config.fold) for config in configs),
            **_as_lines(configs[0].model_dump(mode="json", exclude={"fold", "window_s", "databases"})),
        },
        "Seeds": {**_seeds(validation), **({} if quick else {"stress tests": str(STRESS_SEED)})},
        "Software": _software(),
    }
    if not quick:
        found["Other algorithms"] = {
            **{detector.name: detector.citation for detector in DETECTORS},
            SVM_NAME: SVM_CITATION,
        }
    return found


def _describe_data(name: str) -> tuple[str, str]:
    """Return the name of a database, and its version and digest."""
    if name == SYNTHETIC:
        return name, f"synthetic signals: {SYNTHETIC_PATIENTS} patients, seed {SYNTHETIC_SEED}"
    manifest = load_manifest(name)
    doi = f", doi:{manifest.doi}" if manifest.doi else ""
    files = f"{len(manifest.files)} files, {manifest.total_bytes} bytes, SHA-256 of their list {manifest.files_sha256}"
    return manifest.name, f"{manifest.title}, version {manifest.version}{doi}; {files}"


def _software() -> dict[str, str]:
    return {**versions(), "commit": commit() or "unknown, because the package was not run from a git checkout"}


def _seeds(validation: Validation) -> dict[str, str]:
    return {"patient bootstrap": f"{validation.seed}, {validation.resamples} resamples"}


def _as_lines(values: Mapping[str, Any]) -> dict[str, str]:
    """Return nested settings as texts, by names such as ``labels.rapid_vt_bpm``."""
    words = {"None": "none", "True": "yes", "False": "no", "": "none"}
    texts = {
        name: ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        for name, value in flatten(values).items()
    }
    return {name: words.get(text, text) for name, text in texts.items()}
