"""Does labelling by the queue beat labelling at random? `python tuning/results/adjudication/simulate.py`.

A small network on public-v1, fold 0. The pool are windows of the 61 training patients, at most 20 of each patient and
AHA class, whose labels are taken as unknown. A committee of networks, which differ in their seed only, is trained on a
few labelled windows. Then more windows are labelled in rounds, by one of two rules, and the committee is trained again,
from the beginning:

- *queue*: the windows that `ecg_shock.evaluation.adjudication` chooses. They have no label yet, so the score is
  disagreement plus closeness to the threshold. The gap between two windows of a recording, and the cap of each patient,
  are those of the command. Of the chosen windows, those with the highest score are labelled.
- *random*: windows drawn with equal probability from the pool.

Both rules begin with the same windows and the same initial weights (paired seeds). All trainings have the same number
of steps. The measure is the balanced accuracy of the committee's mean logit on the validation patients, at a threshold
of 0.5; neither epoch nor threshold is chosen by it. The area under the ROC curve, which needs no threshold, is printed
too. The test patients are not used.

`curve.csv` has one row for each seed, rule and number of labelled windows. Printed is the mean difference, queue minus
random, with a 90 % interval of 10,000 bootstraps of the seeds. Each training is kept in the folder; the same command
continues where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from ecg_shock.data.datasets import DataConfig, Subsets, load_subsets, shockable
from ecg_shock.data.windows import WindowSet
from ecg_shock.evaluation.adjudication import QueueRule, pick_windows, score_windows
from ecg_shock.files import atomic_writer, locked
from ecg_shock.models import CnnSpec
from ecg_shock.preprocessing import FS
from ecg_shock.training.fold import examples, proportions
from ecg_shock.training.steps import compile_inference
from ecg_shock.training.trainer import TrainingConfig, train

RULES = ("queue", "random")
RULE = QueueRule(min_score=1e-6)  # every local maximum, with the gap and the cap of the command
MAX_WINDOWS = 20  # of the pool, of each patient and AHA class
FIRST, ADDED, ROUNDS = 50, 50, 4
MIN_OF_CLASS = 5  # shockable and nonshockable windows among the first
STEPS, BATCH, EPOCHS = 300, 32, 4
FILTERS, KERNELS = (10, 10, 10, 5), (10, 10, 10, 10)
MIN_SEEDS = 5
BOOTSTRAPS = 10_000
INTERVAL = (5.0, 95.0)


@dataclass(frozen=True)
class Row:
    """The result of one committee."""

    seed: int
    rule: str
    labelled: int
    shockable: int
    patients: int
    balanced_accuracy: float
    sensitivity: float
    specificity: float
    roc_area: float


def main() -> None:
    """Run the simulation, and print the differences."""
    parser = argparse.ArgumentParser(description="Compare labelling by the queue with labelling at random.")
    parser.add_argument("--out", type=Path, default=Path("runs/adjudication"), help="folder of the run")
    parser.add_argument("--data", type=Path, default=None, help="folder of the recordings")
    parser.add_argument("--seeds", type=int, default=10, help="number of paired seeds")
    parser.add_argument("--members", type=int, default=3, help="networks of a committee")
    arguments = parser.parse_args()
    config = DataConfig(train_leads="first", max_windows=MAX_WINDOWS)
    subsets = load_subsets(config, arguments.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with locked(arguments.out):
        for seed in range(arguments.seeds):
            rows += simulate(subsets, seed, arguments.members, arguments.out)
            write(rows, arguments.out / "curve.csv")
            print(f"seed {seed} is done", flush=True)
    if arguments.seeds < MIN_SEEDS:
        print(f"{arguments.seeds} seeds are too few for a comparison; give {MIN_SEEDS} or more")
        return
    for measure in ("balanced_accuracy", "roc_area"):
        for labelled, mean, low, high in differences(rows, measure):
            print(f"{measure}, {labelled} windows: queue minus random {mean:+.2f} points ({low:+.2f} to {high:+.2f})")


def simulate(subsets: Subsets, seed: int, members: int, out: Path) -> list[Row]:
    """Label the pool by both rules, from the same first windows."""
    first = first_windows(subsets.train, np.random.default_rng([seed, 0]))
    rows = []
    for rule in RULES:
        rng = np.random.default_rng([seed, 1])
        chosen = first
        for number in range(ROUNDS):
            shared = number == 0  # the first committee is the same for both rules
            folder = out / f"seed-{seed}" / ("first" if shared else f"{rule}-{number}")
            pool, validation = train_committee(subsets, chosen, seed, members, folder)
            rows.append(evaluate(subsets, chosen, validation, seed, rule))
            if rule == "queue":
                added = by_queue(subsets.train, pool, chosen, rng)
            else:
                added = at_random(subsets.train, chosen, rng)
            chosen = np.concatenate([chosen, added])
    return rows


def first_windows(pool: WindowSet, rng: np.random.Generator) -> np.ndarray:
    """Draw the windows that are labelled first, of both classes."""
    while True:
        chosen = rng.permutation(len(pool))[:FIRST]
        count = int(shockable(pool)[chosen].sum())
        if MIN_OF_CLASS <= count <= FIRST - MIN_OF_CLASS:
            return chosen


def by_queue(pool: WindowSet, logits: np.ndarray, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose windows by the queue, and at random if the queue is too short."""
    opinions = expit(logits)
    opinions[:, chosen] = np.nan
    score = score_windows(opinions, np.full(len(pool), np.nan)).score
    found: list[int] = []
    names = np.char.add(np.char.add(pool.database, "/"), pool.record)
    for record in np.unique(names):
        of_record = np.flatnonzero(names == record)
        of_record = of_record[np.argsort(pool.start_s[of_record], kind="stable")]
        found += of_record[pick_windows(score[of_record], pool.start_s[of_record], RULE)].tolist()
    kept: list[int] = []
    of_patient: dict[str, int] = {}
    for index in sorted(found, key=lambda index: -score[index]):
        patient = str(pool.patient[index])
        if of_patient.get(patient, 0) < RULE.max_per_patient:
            of_patient[patient] = of_patient.get(patient, 0) + 1
            kept.append(index)
    kept = kept[:ADDED]
    rest = at_random(pool, np.concatenate([chosen, np.array(kept, dtype=int)]), rng)
    return np.concatenate([np.array(kept, dtype=int), rest[: ADDED - len(kept)]])


def at_random(pool: WindowSet, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw windows that are not labelled yet."""
    return rng.permutation(np.setdiff1d(np.arange(len(pool)), chosen))[:ADDED]


def train_committee(
    subsets: Subsets, chosen: np.ndarray, seed: int, members: int, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Train networks on the labelled windows; return their logits of the pool and of the validation windows.

    Both have the shape (n_members, n_windows).
    """
    kept = folder / "logits.npz"
    if kept.is_file():
        with np.load(kept) as stored:
            if np.array_equal(stored["chosen"], chosen) and len(stored["pool"]) == members:
                return stored["pool"], stored["validation"]
    spec = CnnSpec(FILTERS, KERNELS, input_samples=round(subsets.train.window_s * FS))
    repeated = np.resize(chosen, STEPS * BATCH // EPOCHS)  # so that all trainings have the same number of steps
    pool, validation = [], []
    for member in range(members):
        config = TrainingConfig(epochs=EPOCHS, batch_size=BATCH, seed=100 * seed + member)
        result = train(spec, examples(subsets.train.select(repeated)), None, config, folder / f"member-{member}")
        infer = compile_inference(result.load_model())
        pool.append(infer(subsets.train.ecg)[0])
        validation.append(infer(subsets.validation.ecg)[0])
    found = np.array(pool, dtype=float), np.array(validation, dtype=float)
    with atomic_writer(kept) as file:
        np.savez(file, chosen=chosen, pool=found[0], validation=found[1])
    return found


def evaluate(subsets: Subsets, chosen: np.ndarray, logits: np.ndarray, seed: int, rule: str) -> Row:
    """Evaluate a committee on the validation windows."""
    score, truth = logits.mean(axis=0), shockable(subsets.validation)
    sensitivity, specificity = proportions(score >= 0, truth)
    return Row(
        seed=seed,
        rule=rule,
        labelled=len(chosen),
        shockable=int(shockable(subsets.train)[chosen].sum()),
        patients=len(set(subsets.train.patient[chosen].tolist())),
        balanced_accuracy=(sensitivity + specificity) / 2,
        sensitivity=sensitivity,
        specificity=specificity,
        roc_area=float(roc_auc_score(truth, score)),
    )


def differences(rows: list[Row], measure: str) -> list[tuple[int, float, float, float]]:
    """Return the mean difference in points, and its interval, for each number of labelled windows after the first."""
    found_at = {(row.seed, row.rule, row.labelled): 100 * getattr(row, measure) for row in rows}
    seeds = sorted({row.seed for row in rows})
    found = []
    for labelled in sorted({row.labelled for row in rows})[1:]:
        paired = np.array([found_at[seed, "queue", labelled] - found_at[seed, "random", labelled] for seed in seeds])
        drawn = np.random.default_rng(0).integers(0, len(seeds), (BOOTSTRAPS, len(seeds)))
        low, high = np.percentile(paired[drawn].mean(axis=1), INTERVAL)
        found.append((labelled, float(paired.mean()), float(low), float(high)))
    return found


def write(rows: list[Row], path: Path) -> None:
    """Write the results, one committee on each line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.5f}" if isinstance(value, float) else value for key, value in vars(row).items()}
            for row in rows
        )


if __name__ == "__main__":
    main()
