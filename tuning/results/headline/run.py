"""Reproduce the headline and the pretrained model: `python tuning/results/headline/run.py`.

1. *Trainings*: train the variant `robust` of `tuning/comparisons/headline.toml` on each fold with five seeds.
2. *Distillation*: a network of the same kind learns the mean probability of the five networks of its fold.
3. *Bundles*: this network becomes the bundle of the fold, calibrated on its validation patients, in `OUT/fold-0/bundle`
   and so on.

The test patients are not used. To evaluate the bundles on them, run `ecg-shock validate OUT` afterwards, once.

4. `run.py --pretrained`, after that: train the pretrained model on all patients in the same way, in `OUT/pretrained`.
   There is nobody to choose an epoch by, so each training keeps its last one. The calibration is the mean of those of
   the bundles of step 3, and the card quotes their results on their test patients.
5. `run.py --cross-database`: for each database, train a model on all patients of the other databases, with one seed and
   without calibration, in `OUT/without-vfdb` and so on. Evaluate it with
   `ecg-shock validate OUT/without-vfdb --databases vfdb`.

Everything is kept in the folder; the same command continues where it was stopped. `final.csv` lists the trainings of
steps 1 and 2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
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

COMPARISON = Path(__file__).parents[2] / "comparisons" / "headline.toml"
VARIANT = "robust"
SEEDS = (0, 1, 2, 3, 4)
ALL_PATIENTS = "public-v1-all"
SELECTION = "the way of training was fixed beforehand for all folds, see tuning/comparisons/headline.toml"


def main() -> None:
    """Run all steps that are not done yet."""
    parser = argparse.ArgumentParser(description="Reproduce the headline. The test patients are not used.")
    parser.add_argument("--out", type=Path, default=Path("runs/headline"), help="folder of the run")
    parser.add_argument("--data", type=Path, default=None, help="folder of the recordings")
    parser.add_argument("--workers", type=int, default=1, help="trainings at the same time")
    parser.add_argument("--pretrained", action="store_true", help="train the pretrained model, after the validation")
    parser.add_argument("--cross-database", action="store_true", help="train models without one database each")
    arguments = parser.parse_args()
    listed = read_comparison(COMPARISON)
    if arguments.pretrained:
        train_pretrained(listed.settings(VARIANT), arguments.out, arguments.data)
    elif arguments.cross_database:
        train_across_databases(listed.settings(VARIANT), arguments.out, arguments.data)
    else:
        train_folds(listed, arguments.out, arguments.data, arguments.workers)


def train_folds(listed: TrainingComparison, out: Path, data: Path | None, workers: int) -> None:
    """Train five networks for each fold, distil them, and write the bundles."""
    final = TrainingComparison(
        name="final",
        folds=listed.folds,
        seeds=SEEDS,
        rule="no choice: the five networks of a fold are distilled into one",
        other_hospitals=listed.other_hospitals,
        base=Changes(**listed.sections(VARIANT)),
    )
    folder, settings = out / "final", final.settings(BASE)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), Engine(folder / LOG_FILE, workers=workers) as engine:
        run_comparison(final, folder, engine, data, on_trial=_print)
    rows = list(read_results(final, folder))
    for number in final.folds:
        fold = TrainingFold.load(with_values(settings.data, fold=number), data)
        trials = [trial_folder(folder, BASE, number, seed) for seed in SEEDS]
        distilled = _distil(fold, settings, trials, out / "distilled" / f"fold-{number}")
        windows = ValidationWindows(fold, final.other_hospitals)
        rows.append(evaluate_training("distilled", fold, windows, distilled))
        _print(rows[-1])
        bundle = fold.write_bundle(
            out / f"fold-{number}" / BUNDLE_NAME,
            f"{out.name}, fold {number}",
            distilled,
            selection=f"{SELECTION}; the epoch was chosen on {len(load_split(settings.data.split)[number].validation)} "
            "validation patients",
            teachers=len(SEEDS),
        )
        print(f"fold {number}: {bundle.folder}", flush=True)
    with atomic_writer(out / "final.csv") as file:
        pd.DataFrame(map(_flat, rows)).to_csv(file, index=False, float_format="%.6g")


def train_pretrained(settings: Settings, out: Path, data: Path | None) -> None:
    """Train the pretrained model on all patients, by the rule in step 4."""
    fold = TrainingFold.load(with_values(settings.data, split=ALL_PATIENTS, fold=0), data)
    trials = [out / "pretrained-trainings" / f"seed-{seed}" for seed in SEEDS]
    for seed, trial in zip(SEEDS, trials, strict=True):
        fold.train(settings.network, with_values(settings.training, seed=seed), trial)
        print(f"{trial}: done", flush=True)
    distilled = _distil(fold, settings, trials, out / "pretrained-trainings" / "distilled")
    report = out / "validation" / "report.json"
    if not report.is_file():
        raise FileNotFoundError(f"there is no {report}; run this script without --pretrained, then ecg-shock validate")
    bundles = find_bundles(out)
    bundle = fold.write_bundle(
        out / "pretrained",
        "pretrained",
        distilled,
        selection=f"{SELECTION}; the calibration is the mean of those of the {len(bundles)} models of the folds",
        calibration=float(np.mean([bundle.card.calibration for bundle in bundles])),
        expected=_expected(json.loads(report.read_text(encoding="utf-8"))),
        teachers=len(SEEDS),
    )
    print(f"{bundle.folder}: {bundle.spec.parameter_count()} parameters")


def train_across_databases(settings: Settings, out: Path, data: Path | None) -> None:
    """Train a model without each of the databases."""
    for left in settings.data.databases:
        others = tuple(name for name in settings.data.databases if name != left)
        manifests = [load_manifest(name) for name in others]
        everyone = sorted({manifest.patient_of(record) for manifest in manifests for record in manifest.records})
        split = out / f"without-{left}.toml"
        write_text(split, tomli_w.dumps({"folds": [everyone]}))
        fold = TrainingFold.load(with_values(settings.data, databases=others, split=str(split), fold=0), data)
        training = with_values(settings.training, calibrated=False)
        trained = fold.train(settings.network, training, out / "cross-database" / left)
        fold.write_bundle(out / f"without-{left}", f"without {left}", trained, selection=SELECTION)
        print(f"to evaluate it: ecg-shock validate {out / f'without-{left}'} --databases {left}", flush=True)


def _distil(fold: TrainingFold, settings: Settings, trials: Sequence[Path], folder: Path) -> TrainingResult:
    """Train a network that learns the mean probability of those of other trainings, with another seed."""
    teachers = [read_result(trial).load_model() for trial in trials]
    training = with_values(settings.training, seed=max(SEEDS) + 1)
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


def _flat(result: TrialResult) -> dict[str, object]:
    row: dict[str, object] = {}
    for key, value in asdict(result).items():
        if isinstance(value, dict):
            row |= {f"{key}_{name}": inner for name, inner in value.items()}
        else:
            row[key] = value
    return row


def _print(result: TrialResult) -> None:
    accuracies = ", ".join(f"{100 * value:.2f} % at {length} s" for length, value in result.balanced_accuracy.items())
    print(f"{result.name}, fold {result.fold}, seed {result.seed}: {accuracies}, {result.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
