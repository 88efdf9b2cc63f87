"""A design review of an algorithm: all that is judged of it, gathered and written into one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.datasets import SYNTHETIC, SYNTHETIC_PATIENTS, SYNTHETIC_SEED
from ecg_shock.data.manifests import data_dir, load_manifest
from ecg_shock.data.noise import NOISE_DATABASE
from ecg_shock.evaluation.baselines import SVM_CITATION, SVM_NAME
from ecg_shock.evaluation.comparison import compare
from ecg_shock.evaluation.detectors import DETECTORS
from ecg_shock.evaluation.evaluation_set import (
    DURATIONS_S,
    describe,
    judged_windows,
    left_out,
    predict_baselines,
    predict_bundles,
    recordings_of,
)
from ecg_shock.evaluation.events import records_of, whole_records
from ecg_shock.evaluation.metrics import Validation, judge
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.stress import RECORDED_NOISE, standard_stresses, stress_test, sub_sample
from ecg_shock.evaluation.validation import describe_file
from ecg_shock.files import commit, flatten, sha256, versions, write_text
from ecg_shock.inference.advisor import Advisor
from ecg_shock.models.bundle import Bundle, data_config
from ecg_shock.report.html import ReportContent, headline, shown_errors, write_report
from ecg_shock.report.strips import strips_of
from ecg_shock.report.tables import rounded_down, to_json, to_markdown

PREDICTIONS_NAME = "predictions.csv"
REPORT_NAMES = ("report.html", "report.md", "report.json")

MOST_OF_A_GROUP = 5  # windows of one patient and AHA class under stress
MOST_STRESSED = 300  # windows: each is judged once for each of some fifty disturbances
SEED = 0  # of what is drawn under stress

BASELINES_NOTE = (
    "Thresholds and the support vector machine are learned from the training windows of each fold, as the model was; "
    "published thresholds are not used."
)
NO_RECORDINGS = (
    "The predictions came without recordings: other algorithms, stress tests, whole records and the ECG of the errors, "
    "which need them, are left out."
)
QUICK = "Other algorithms, stress tests and whole records were left out (--quick)."

# Told a stage and its number of steps, it returns what is called after each of them.
OnStage = Callable[[str, int], Callable[[], Any]]


def _silent(stage: str, steps: int) -> Callable[[], Any]:
    return lambda: None


def review_bundles(
    bundles: Sequence[Bundle],
    out: Path,
    *,
    databases: Sequence[str] = (),
    folder: Path | None = None,
    quick: bool = False,
    command: str = "",
    on_stage: OnStage = _silent,
) -> Validation:
    """Judge models on patients they were never shown, and write ``predictions.csv`` and the reports.

    Parameters
    ----------
    bundles : sequence of Bundle
        As `ecg_shock.evaluation.evaluation_set.find_bundles` gives them.
    out : pathlib.Path
        Folder to write into.
    databases : sequence of str
        For a single bundle: databases that it has not seen, to be judged instead of its test patients.
    folder : pathlib.Path, optional
        Where the databases lie.
    quick : bool
        Leave out other algorithms, stress tests and whole records.
    command : str
        What was typed, for the report.
    on_stage : callable, optional
        Takes a stage's name and its number of steps, and returns what is called after each step.

    Returns
    -------
    Validation

    Raises
    ------
    ValueError
        If a patient was trained on or selected with, or several bundles are to judge databases.
    OSError
        If recordings are missing or the folder cannot be written.
    """
    step = on_stage("windows of all lengths", len(bundles) * len(DURATIONS_S))
    predictions = predict_bundles(bundles, databases, folder, on_duration=step)
    validation = judge(predictions, models=tuple(describe(bundle) for bundle in bundles))
    out.mkdir(parents=True, exist_ok=True)
    predictions.write_csv(out / PREDICTIONS_NAME)
    content = ReportContent(
        validation,
        predictions,
        left_out=left_out(bundles, databases, folder, duration_s=headline(validation).duration_s),
        provenance=_provenance(bundles, databases, folder, out, validation, command, quick),
    )
    content = _with_strips(content, bundles, databases, folder, on_stage)
    if quick:
        content = replace(content, notes=(*content.notes, QUICK))
    else:
        content = _with_baselines(content, bundles, databases, folder, on_stage)
        content = _with_stress(content, bundles, databases, folder, on_stage)
        content = _with_whole_records(content, bundles, databases, folder, on_stage)
    _write(out, content)
    return content.validation


def review_file(path: Path, out: Path, *, threshold: float | None = None, command: str = "") -> Validation:
    """Judge any algorithm by a file of what it said of labelled windows, and write the reports.

    Parameters
    ----------
    path : pathlib.Path
        The file, see `ecg_shock.evaluation.predictions.Predictions.read_csv`.
    out : pathlib.Path
        Folder to write into.
    threshold : float, optional
        Probability of *shockable* from which on a shock is advised, for a file without a column ``shock``.
    command : str
        What was typed, for the report.

    Returns
    -------
    Validation

    Raises
    ------
    ValueError
        Naming the lines of the file that are not allowed.
    OSError
        If the file cannot be read, or the folder not be written.
    """
    source = describe_file(path, threshold)
    predictions = Predictions.read_csv(path, threshold=threshold)
    validation = judge(predictions, source=source)
    provenance: dict[str, str | Mapping[str, str]] = {
        **({"Command": command} if command else {}),
        "Predictions": {path.name: f"SHA-256 {sha256(path)}", "judged": source},
        "Software": _software(),
        "Seeds": _seeds(validation),
    }
    out.mkdir(parents=True, exist_ok=True)
    _write(out, ReportContent(validation, predictions, provenance=provenance, notes=(NO_RECORDINGS,)))
    return validation


def _write(out: Path, content: ReportContent) -> None:
    html, markdown, json = (out / name for name in REPORT_NAMES)
    write_report(html, content)
    write_text(markdown, to_markdown(content.validation))
    write_text(json, to_json(content.validation))


def _with_strips(
    content: ReportContent,
    bundles: Sequence[Bundle],
    databases: Sequence[str],
    folder: Path | None,
    on_stage: OnStage,
) -> ReportContent:
    rows = shown_errors(content.validation, content.predictions)
    advisors = {0 if databases else data_config(bundle).fold: Advisor(bundle) for bundle in bundles}
    wrong = content.predictions.select(np.isin(np.arange(len(content.predictions)), rows))
    records = set(zip(wrong.database.tolist(), wrong.record.tolist(), strict=True))
    step = on_stage("ECG of the errors", len(records))
    try:
        strips = strips_of(content.predictions, rows, advisors, recordings_of(wrong, folder), on_recording=step)
    except FileNotFoundError:  # windows come from the cache
        return replace(content, notes=(*content.notes, "The recordings were not there, to show the ECG of the errors."))
    return replace(content, strips=strips.get)


def _with_baselines(
    content: ReportContent,
    bundles: Sequence[Bundle],
    databases: Sequence[str],
    folder: Path | None,
    on_stage: OnStage,
) -> ReportContent:
    duration_s = headline(content.validation).duration_s
    step = on_stage("other algorithms", len(bundles) + len(DETECTORS) + 1)
    try:
        others = predict_baselines(bundles, databases, folder, duration_s=duration_s, on_bundle=step)
    except FileNotFoundError:
        return replace(content, notes=(*content.notes, "The recordings to fit other algorithms on were not there."))
    predictions = content.predictions
    mine = predictions.select(predictions.duration_s == duration_s)
    baselines, comparisons = {}, {}
    for name, other in others.items():
        baselines[name] = judge(other)
        (comparisons[name],) = compare(other, mine)
        step()
    return replace(content, baselines=baselines, comparisons=comparisons, baselines_note=BASELINES_NOTE)


def _with_stress(
    content: ReportContent,
    bundles: Sequence[Bundle],
    databases: Sequence[str],
    folder: Path | None,
    on_stage: OnStage,
) -> ReportContent:
    duration_s = headline(content.validation).duration_s
    windows = judged_windows(bundles[0], databases, folder, duration_s=duration_s)
    for at_most in range(MOST_OF_A_GROUP, 0, -1):
        chosen = sub_sample(windows, at_most, SEED)
        if len(chosen) <= MOST_STRESSED:
            break
    if not len(chosen):
        return replace(content, notes=(*content.notes, "There are no windows of clear classes to be disturbed."))
    stresses = standard_stresses(folder)
    notes = list(content.notes)
    if not _has_noise(folder):
        stresses = tuple(stress for stress in stresses if stress.stress not in RECORDED_NOISE.values())
        notes.append(f"Recorded noise was left out of the stress tests: {NOISE_DATABASE} is not there.")
    step = on_stage("stress tests", len(set(zip(chosen.database.tolist(), chosen.record.tolist(), strict=True))))
    try:
        points = stress_test(bundles[0], recordings_of(chosen, folder), chosen, stresses, seed=SEED, on_recording=step)
    except FileNotFoundError:
        return replace(content, notes=(*notes, "The recordings were not there to be disturbed."))
    of_fold = f" of fold {data_config(bundles[0]).fold}, with its model alone" if len(bundles) > 1 else ""
    note = (
        f"{len(chosen)} of {len(windows)} windows of {duration_s:g} s{of_fold}: at most {at_most} of each patient and "
        f"AHA class, drawn with seed {SEED}, none of fine VF and other VT. They are judged as strips by themselves, as "
        "ecg_shock.predict does, with the rule for unusable strips, so that shares are not those above. Undisturbed: "
        f"Se {rounded_down(points[0].sensitivity.observed)} %, Sp {rounded_down(points[0].specificity.observed)} %."
    )
    return replace(content, stress=points, stress_note=note, notes=tuple(notes))


def _with_whole_records(
    content: ReportContent,
    bundles: Sequence[Bundle],
    databases: Sequence[str],
    folder: Path | None,
    on_stage: OnStage,
) -> ReportContent:
    step = on_stage("whole records", sum(len(records_of(bundle, databases)) for bundle in bundles))
    try:
        found = whole_records(bundles, databases, folder, on_record=step)
    except FileNotFoundError:
        return replace(content, notes=(*content.notes, "The recordings were not there to be scanned whole."))
    return replace(content, validation=replace(content.validation, whole_records=found))


def _has_noise(folder: Path | None) -> bool:
    return (data_dir(folder) / NOISE_DATABASE).is_dir()


def _provenance(
    bundles: Sequence[Bundle],
    databases: Sequence[str],
    folder: Path | None,
    out: Path,
    validation: Validation,
    command: str,
    quick: bool,
) -> dict[str, str | Mapping[str, str]]:
    configs = [data_config(bundle) for bundle in bundles]
    names = [*configs[0].databases, *databases, *([] if quick or not _has_noise(folder) else [NOISE_DATABASE])]
    configuration = _as_lines(configs[0].model_dump(mode="json", exclude={"fold", "window_s", "databases"}))
    found: dict[str, str | Mapping[str, str]] = {
        **({"Command": command} if command else {}),
        "Predictions": {PREDICTIONS_NAME: f"SHA-256 {sha256(out / PREDICTIONS_NAME)}"},
        "Data": dict(_describe_data(name) for name in dict.fromkeys(names)),
        "Configuration": {
            "databases": ", ".join(databases or configs[0].databases),
            "folds": ", ".join(str(config.fold) for config in configs),
            **configuration,
        },
        "Seeds": {**_seeds(validation), **({} if quick else {"stress tests": str(SEED)})},
        "Software": _software(),
    }
    if not quick:
        found["Other algorithms"] = {
            **{detector.name: detector.citation for detector in DETECTORS},
            SVM_NAME: SVM_CITATION,
        }
    return found


def _describe_data(name: str) -> tuple[str, str]:
    """Name a database and say which version of it was meant."""
    if name == SYNTHETIC:
        return name, f"made-up signals: {SYNTHETIC_PATIENTS} patients, seed {SYNTHETIC_SEED}"
    manifest = load_manifest(name)
    doi = f", doi:{manifest.doi}" if manifest.doi else ""
    files = f"{len(manifest.files)} files, {manifest.total_bytes} bytes, SHA-256 of their list {manifest.files_sha256}"
    return manifest.name, f"{manifest.title}, version {manifest.version}{doi}; {files}"


def _software() -> dict[str, str]:
    return {**versions(), "commit": commit() or "none: not run from a checkout"}


def _seeds(validation: Validation) -> dict[str, str]:
    return {"patient bootstrap": f"{validation.seed}, {validation.resamples} resamples"}


def _as_lines(values: Mapping[str, Any]) -> dict[str, str]:
    """Write nested settings as lines, such as ``labels.rapid_vt_bpm``."""
    words = {"None": "none", "True": "yes", "False": "no", "": "none"}
    texts = {
        name: ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        for name, value in flatten(values).items()
    }
    return {name: words.get(text, text) for name, text in texts.items()}
