"""Reproduce the headline and the pretrained model: `python tuning/results/headline/run.py`.

1. *Candidates*: train all variants of `tuning/comparisons/headline.toml` on all folds with all seeds.
2. *Choice*: each fold chooses a variant by the rule in that file, on its own validation patients.
3. *Final trainings*: each fold trains its choice with five seeds, those of step 1 included. A network of the same kind
   then learns the mean probability of these five networks (distillation).
4. *Bundles*: this network becomes the bundle of the fold, calibrated on its validation patients, in `OUT/fold-0/bundle`
   and so on.

The test patients are not used. To evaluate the bundles on them, run `ecg-shock validate OUT` afterwards, once.

5. `run.py --pretrained`, after that: train the pretrained model on all patients in the same way, in `OUT/pretrained`.
   It takes the variant that most folds chose, the earliest in the file among equals. There is nobody to choose an epoch
   by, so each training keeps its last one. The calibration is the mean of those of the bundles of step 4, and the card
   quotes their results.

6. `run.py --one-variant`, after step 4: train the variant of the pretrained model on all folds, in `OUT/one-variant`.
   Evaluate it with `ecg-shock validate OUT/one-variant`. This says what that variant is worth, but it was chosen over
   the validation patients of all folds, who are the test patients of other folds. So the result is slightly too good.
7. `run.py --cross-database`, after step 4: for each database, train a model on all patients of the other databases,
   with one seed and without calibration, in `OUT/without-vfdb` and so on. Evaluate it with
   `ecg-shock validate OUT/without-vfdb --databases vfdb`.

Everything is kept in the folder; the same command continues where it was stopped. The trainings of step 1 are listed in
`trials.csv`, those of step 3 in `final.csv`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w

from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.splits import load_split
from ecg_shock.evaluation.evaluation_set import find_bundles
from ecg_shock.files import atomic_writer, locked, with_values, write_text
from ecg_shock.models.bundle import BUNDLE_NAME
from ecg_shock.report.formats import rounded_down
from ecg_shock.search.compare import BASE, Changes, Settings, TrainingComparison, read_comparison
from ecg_shock.search.compare_results import choose
from ecg_shock.search.compare_trainings import (
    TrialResult,
    ValidationWindows,
    evaluate_training,
    read_results,
    run_comparison,
    trial_folder,
)
from ecg_shock.search.engine import LOG_FILE, Engine
from ecg_shock.training.fold import TrainingFold
from ecg_shock.training.trainer import TrainingResult, read_result

CANDIDATES = Path(__file__).parents[2] / "comparisons" / "headline.toml"
WORKERS = 2
FINAL_SEEDS = (0, 1, 2, 3, 4)
ALL_PATIENTS = "public-v1-all"


def main() -> None:
    """Run all steps that are not done yet."""
    parser = argparse.ArgumentParser(description="Reproduce the headline. The test patients are not used.")
    parser.add_argument("--out", type=Path, default=Path("runs/headline"), help="folder of the run")
    parser.add_argument("--data", type=Path, default=None, help="folder of the recordings")
    parser.add_argument("--pretrained", action="store_true", help="train the pretrained model, after the validation")
    parser.add_argument("--one-variant", action="store_true", help="train the pretrained model's variant on all folds")
    parser.add_argument("--cross-database", action="store_true", help="train models without one database each")
    arguments = parser.parse_args()
    candidates = read_comparison(CANDIDATES)
    if arguments.pretrained:
        train_pretrained(candidates, arguments.out, arguments.data)
        return
    if arguments.one_variant:
        choices = dict.fromkeys(candidates.folds, _most_chosen(candidates, arguments.out)[0])
        train_finally(candidates, choices, arguments.out, arguments.out / "one-variant", arguments.data)
        return
    if arguments.cross_database:
        train_across_databases(candidates, arguments.out, arguments.data)
        return
    _train(candidates, arguments.out / "candidates", arguments.data)
    write_trials(candidates, arguments.out)
    choices = choose(candidates, arguments.out / "candidates")
    print(", ".join(f"fold {fold}: {name}" for fold, name in choices.items()), flush=True)
    if len(choices) < len(candidates.folds):
        print("some candidates have no result; run this again to repeat them")
        return
    train_finally(candidates, choices, arguments.out, arguments.out, arguments.data)


def _train(comparison: TrainingComparison, folder: Path, data: Path | None) -> None:
    """Run the trainings of a comparison that are missing, some of them at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), Engine(folder / LOG_FILE, workers=WORKERS) as engine:
        run_comparison(comparison, folder, engine, data, on_trial=_print)


def write_trials(comparison: TrainingComparison, out: Path) -> None:
    """Write one row for each training of the candidates."""
    _write(read_results(comparison, out / "candidates"), out / "trials.csv")


def _write(results: Iterable[TrialResult], path: Path) -> None:
    with atomic_writer(path) as file:
        pd.DataFrame(map(_flat, results)).to_csv(file, index=False, float_format="%.6g")


def _flat(result: TrialResult) -> dict[str, object]:
    row: dict[str, object] = {}
    for key, value in asdict(result).items():
        if isinstance(value, dict):
            row |= {f"{key}_{name}": inner for name, inner in value.items()}
        else:
            row[key] = value
    return row


def train_finally(
    candidates: TrainingComparison, choices: dict[int, str], out: Path, bundles: Path, data: Path | None
) -> None:
    """Train the variant of each fold with five seeds, distil them, and write the bundle of the fold to `bundles`."""
    rows = []
    for fold, name in choices.items():
        final = TrainingComparison(
            name="final",
            folds=(fold,),
            seeds=FINAL_SEEDS,
            rule="no choice: the five networks are distilled into one",
            other_hospitals=candidates.other_hospitals,
            base=Changes(**candidates.sections(name)),
        )
        for seed in candidates.seeds:
            copy = trial_folder(out / "final" / name, BASE, fold, seed)
            if not copy.exists():
                shutil.copytree(trial_folder(out / "candidates", name, fold, seed), copy)
        _train(final, out / "final" / name, data)
        settings = final.settings(BASE)
        training_fold = TrainingFold.load(with_values(settings.data, fold=fold), data)
        trials = [trial_folder(out / "final" / name, BASE, fold, seed) for seed in FINAL_SEEDS]
        trained = _distil(training_fold, settings, trials, out / "distilled" / name / f"fold-{fold}")
        windows = ValidationWindows(training_fold, candidates.other_hospitals)
        result = evaluate_training("distilled", training_fold, windows, trained)
        _print(result)
        rows += [replace(one, name=name) for one in read_results(final, out / "final" / name)] + [result]
        patients = len(load_split(settings.data.split)[fold].validation)
        bundle = training_fold.write_bundle(
            bundles / f"fold-{fold}" / BUNDLE_NAME,
            f"{bundles.name}, fold {fold}",
            trained,
            selection=f"{name}, one of {len(candidates.names)} ways of training, chosen on the {patients} validation "
            "patients of this fold",
            teachers=len(trials),
        )
        print(f"fold {fold}: {bundle.folder}", flush=True)
    _write(rows, bundles / "final.csv")


def train_pretrained(candidates: TrainingComparison, out: Path, data: Path | None) -> None:
    """Train the pretrained model on all patients, by the rule in step 5."""
    report = out / "validation" / "report.json"
    if not report.is_file():
        raise FileNotFoundError(f"there is no {report}; run this script without --pretrained, then ecg-shock validate")
    name, folds = _most_chosen(candidates, out)
    settings = candidates.settings(name)
    fold = TrainingFold.load(with_values(settings.data, split=ALL_PATIENTS, fold=0), data)
    trials = [out / "pretrained-trainings" / f"seed-{seed}" for seed in FINAL_SEEDS]
    for seed, trial in zip(FINAL_SEEDS, trials, strict=True):
        fold.train(settings.network, with_values(settings.training, seed=seed), trial)
        print(f"{trial}: done", flush=True)
    scales = [bundle.card.calibration for bundle in find_bundles(out)]
    bundle = fold.write_bundle(
        out / "pretrained",
        "pretrained",
        _distil(fold, settings, trials, out / "pretrained-trainings" / "distilled"),
        selection=f"{name}, which {folds} of {len(candidates.folds)} folds of {settings.data.split} chose on "
        "their validation patients; the calibration is the mean of those of the models of these folds",
        calibration=float(np.mean([scale for scale in scales if scale])),
        expected=_expected(json.loads(report.read_text(encoding="utf-8"))),
        teachers=len(trials),
    )
    print(f"{bundle.folder}: {bundle.spec.parameter_count()} parameters")


def train_across_databases(candidates: TrainingComparison, out: Path, data: Path | None) -> None:
    """Train a model without each of the databases, by the variant that most folds chose."""
    settings = candidates.settings(_most_chosen(candidates, out)[0])
    for left in settings.data.databases:
        others = tuple(name for name in settings.data.databases if name != left)
        manifests = [load_manifest(name) for name in others]
        everyone = sorted({manifest.patient_of(record) for manifest in manifests for record in manifest.records})
        split = out / f"without-{left}.toml"
        write_text(split, tomli_w.dumps({"folds": [everyone]}))
        fold = TrainingFold.load(with_values(settings.data, databases=others, split=str(split), fold=0), data)
        training = with_values(settings.training, calibrated=False)
        trained = fold.train(settings.network, training, out / "cross-database" / left)
        fold.write_bundle(out / f"without-{left}", f"without {left}", trained, selection="that of the pretrained model")
        print(f"to evaluate it: ecg-shock validate {out / f'without-{left}'} --databases {left}", flush=True)


def _most_chosen(candidates: TrainingComparison, out: Path) -> tuple[str, int]:
    """Return the variant that most folds chose, the earliest among equals, and the number of these folds."""
    choices = list(choose(candidates, out / "candidates").values())
    if len(choices) < len(candidates.folds):
        raise FileNotFoundError(f"{out} does not hold all candidates; run this script without options first")
    name = max(candidates.names, key=choices.count)
    return name, choices.count(name)


def _distil(fold: TrainingFold, settings: Settings, trials: Sequence[Path], folder: Path) -> TrainingResult:
    """Train a network that learns the mean probability of those of other trainings, with another seed."""
    teachers = [read_result(trial).load_model() for trial in trials]
    training = with_values(settings.training, seed=max(FINAL_SEEDS) + 1)
    return fold.train(settings.network, training, folder, teachers=teachers)


def _expected(report: dict[str, Any]) -> dict[str, str]:
    """Return a line for each window length, from the report on the models of the folds."""
    lines = {"limits": report["limits"]["level"]}
    labels = {"": report["performances"], ", default labels": report["default_labels"]["performances"]}
    for name, performances in labels.items():
        for at in performances:
            accuracy = at["balanced_accuracy"]
            lines[f"{at['duration_s']:g} s{name}"] = (
                f"balanced accuracy {rounded_down(accuracy['observed'])} %, limit by patient "
                f"{rounded_down(accuracy['patient_limit'])} %, {accuracy['patients']} patients"
            )
    return lines


def _print(result: TrialResult) -> None:
    accuracies = ", ".join(f"{100 * value:.2f} % at {length} s" for length, value in result.balanced_accuracy.items())
    print(f"{result.name}, fold {result.fold}, seed {result.seed}: {accuracies}, {result.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
