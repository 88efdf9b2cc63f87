"""Reproduce the headline and the pretrained model: `python tuning/results/headline/run.py`, two hours on two cores.

1. *Candidates*: train all variants of `tuning/comparisons/headline.toml` on all folds with all seeds.
2. *Choice*: each fold chooses a variant by the rule in that file, on its own validation patients.
3. *Final trainings*: each fold trains its choice with five seeds, those of step 1 included, and keeps the seed with the
   highest score on its own validation patients. The score is that of the choice.
4. *Bundles*: one for each fold, calibrated on its validation patients, in `OUT/fold-0/bundle` and so on.

The test patients are not used. To evaluate the bundles on them, run `ecg-shock validate OUT` afterwards, once.

5. `run.py --pretrained`, after that: train the pretrained model on all patients, in `OUT/pretrained`. It takes the
   variant that most folds chose, the earliest in the file among equals, with seed 0, and keeps the last epoch. Its
   calibration is the mean of those of that variant in step 1. Its card quotes the results of the bundles of step 4.

Everything is kept in the folder; the same command continues where it was stopped. The trainings of step 1 are listed in
`trials.csv`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecg_shock.data.splits import load_split
from ecg_shock.files import atomic_writer, with_values
from ecg_shock.models.bundle import BUNDLE_NAME
from ecg_shock.search.compare import (
    BASE,
    Changes,
    TrainingComparison,
    TrialResult,
    choose,
    read_comparison,
    read_results,
    run_comparison,
    trial_folder,
)
from ecg_shock.training.calibration import Calibration
from ecg_shock.training.fold import TrainingFold
from ecg_shock.training.trainer import read_result

CANDIDATES = Path(__file__).parents[2] / "comparisons" / "headline.toml"
FINAL_SEEDS = (0, 1, 2, 3, 4)
ALL_PATIENTS = "public-v1-all"


def main() -> None:
    """Run all steps that are not done yet."""
    parser = argparse.ArgumentParser(description="Reproduce the headline. The test patients are not used.")
    parser.add_argument("--out", type=Path, default=Path("runs/headline"), help="folder of the run")
    parser.add_argument("--data", type=Path, default=None, help="folder of the recordings")
    parser.add_argument("--pretrained", action="store_true", help="train the pretrained model, after the validation")
    arguments = parser.parse_args()
    candidates = read_comparison(CANDIDATES)
    if arguments.pretrained:
        train_pretrained(candidates, arguments.out, arguments.data)
        return
    run_comparison(candidates, arguments.out / "candidates", arguments.data, on_trial=_print)
    write_trials(candidates, arguments.out)
    choices = choose(candidates, arguments.out / "candidates")
    for fold, name in choices.items():
        print(f"fold {fold} chooses {name}", flush=True)
        _train_finally(candidates, name, fold, arguments.out, arguments.data)
    missing = sorted(set(candidates.folds) - set(choices))
    if missing:
        print(f"folds {missing} have candidates that another process is training; run this again when it has finished")


def write_trials(comparison: TrainingComparison, out: Path) -> None:
    """Write one row for each training of the candidates."""
    rows = [_flat(result) for result in read_results(comparison, out / "candidates")]
    with atomic_writer(out / "trials.csv") as file:
        pd.DataFrame(rows).to_csv(file, index=False, float_format="%.6g")


def _flat(result: TrialResult) -> dict[str, object]:
    row: dict[str, object] = {}
    for key, value in asdict(result).items():
        if isinstance(value, dict):
            row |= {f"{key}_{name}": inner for name, inner in value.items()}
        else:
            row[key] = value
    return row


def _train_finally(candidates: TrainingComparison, name: str, fold: int, out: Path, data: Path | None) -> None:
    """Train the choice of a fold with several seeds, and write the best as the fold's bundle."""
    final = TrainingComparison(
        name="final",
        folds=(fold,),
        seeds=FINAL_SEEDS,
        rule="the highest score on the fold's validation patients",
        other_hospitals=candidates.other_hospitals,
        base=Changes(**candidates.sections(name)),
    )
    for seed in candidates.seeds:
        copy = trial_folder(out / "final", BASE, fold, seed)
        if not copy.exists():
            shutil.copytree(trial_folder(out / "candidates", name, fold, seed), copy)
    run_comparison(final, out / "final", data, on_trial=_print)
    results = list(read_results(final, out / "final"))
    if len(results) < len(FINAL_SEEDS):
        print(f"fold {fold}: another process is training; run this again when it has finished", flush=True)
        return
    best = max(results, key=lambda result: np.mean(list(result.balanced_accuracy.values())))
    settings = final.settings(BASE)
    training_fold = TrainingFold.load(with_values(settings.data, fold=fold), data)
    patients = len(load_split(settings.data.split)[fold].validation)
    bundle = training_fold.write_bundle(
        out / f"fold-{fold}" / BUNDLE_NAME,
        f"headline, fold {fold}",
        read_result(trial_folder(out / "final", BASE, fold, best.seed)),
        selection=f"{name}, one of {len(candidates.names)} ways of training, and the best of {len(FINAL_SEEDS)} seeds, "
        f"both chosen on the {patients} validation patients of this fold",
    )
    print(f"fold {fold}: seed {best.seed}, {bundle.folder}", flush=True)


def train_pretrained(candidates: TrainingComparison, out: Path, data: Path | None) -> None:
    """Train the pretrained model on all patients, by the rule in step 5."""
    choices = list(choose(candidates, out / "candidates").values())
    report = out / "validation" / "report.json"
    if len(choices) < len(candidates.folds) or not report.is_file():
        raise FileNotFoundError(f"there is no {report}; run this script without --pretrained, then ecg-shock validate")
    name = max(candidates.names, key=choices.count)
    settings = candidates.settings(name)
    fold = TrainingFold.load(with_values(settings.data, split=ALL_PATIENTS, fold=0), data)
    trained = fold.train(settings.network, settings.training, out / "pretrained-training")
    found = [result.calibration for result in read_results(candidates, out / "candidates") if result.name == name]
    calibration = Calibration(*np.mean([(one.scale, one.offset) for one in found], axis=0).tolist())
    bundle = fold.write_bundle(
        out / "pretrained",
        "pretrained",
        trained,
        selection=f"{name}, which {choices.count(name)} of {len(choices)} folds of {settings.data.split} chose on "
        f"their validation patients; the calibration is the mean of {len(found)} models of these folds",
        calibration=calibration,
        expected=_expected(json.loads(report.read_text(encoding="utf-8"))),
    )
    print(f"{bundle.folder}: {bundle.spec.parameter_count()} parameters, {calibration}")


def _expected(report: dict[str, Any]) -> dict[str, str]:
    """Return a line for each window length, from the report on the models of the folds."""
    lines = {"limits": report["limits"]["level"]}
    for at in report["performances"]:
        accuracy = at["balanced_accuracy"]
        lines[f"{at['duration_s']:g} s"] = (
            f"balanced accuracy {100 * accuracy['observed']:.1f} %, limit by patient "
            f"{100 * accuracy['patient_limit']:.1f} %, {accuracy['patients']} patients"
        )
    return lines


def _print(result: TrialResult) -> None:
    accuracies = ", ".join(f"{100 * value:.2f} % at {length} s" for length, value in result.balanced_accuracy.items())
    print(f"{result.name}, fold {result.fold}, seed {result.seed}: {accuracies}, {result.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
